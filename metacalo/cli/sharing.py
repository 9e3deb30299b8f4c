"""Commands that share models: push, pull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metacalo.cli.app import app, say, warn
from metacalo.cli.options import (
    BaseOfModel,
    Config,
    Force,
    Quiet,
)

__all__ = ["pull", "push"]

Named = Annotated[str, typer.Option("--repository", help="Where on the hub, as USER/NAME.")]


@app.command()
def push(
    model: Annotated[Path, typer.Option("--model", help="Adapted model, or a base.")],
    repository: Named,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, made if new.")] = None,
    private: Annotated[bool | None, typer.Option("--private", help="Make a new repository private.")] = None,
    license: Annotated[str | None, typer.Option("--license", help="By its name on the hub; mit.")] = None,  # noqa: A002
    base: BaseOfModel = None,
    config: Config = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Put a base or an adapted model into a repository of the Hugging Face Hub, with a card and hashes."""
    from metacalo.sharing import PushSettings
    from metacalo.sharing import push as run

    settings = PushSettings.resolve(config, revision=revision, private=private, license=license)
    pushed = run(model, repository, settings, base=base, force=force, quiet=quiet)
    if pushed.left:
        warn(f"{model}: what is no part of a model stayed there ({', '.join(pushed.left)})")
    if not quiet:
        say(f"{len(pushed.files)} files pushed to {pushed.url}   commit {pushed.commit}")


@app.command()
def pull(
    repository: Named,
    out: Annotated[Path, typer.Option("--out", help="Where the result goes.")],
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit.")] = None,
    base: BaseOfModel = None,
    config: Config = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a model from a repository of the Hugging Face Hub, if all its files are those that were pushed."""
    from metacalo.sharing import PullSettings
    from metacalo.sharing import pull as run

    pulled = run(repository, out, PullSettings.resolve(config, revision=revision), base=base, force=force, quiet=quiet)
    if pulled.left:
        warn(f"{repository}: not fetched, as no part of the model ({', '.join(pulled.left)})")
    if not pulled.model.base_here:
        warn(pulled.needed)
    if not quiet:
        say(f"model written to {out}   commit {pulled.commit}")
        if pulled.model.base_here:
            say(pulled.needed)
