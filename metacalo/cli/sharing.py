"""Commands that share models: push, pull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metacalo.cli.app import say, warn
from metacalo.cli.options import (
    BaseOfModel,
    Config,
    Force,
    Quiet,
)
from metacalo.cli.settings_options import Given, SettingsOptions, command

__all__ = ["pull", "push"]

Named = Annotated[str, typer.Option("--repository", help="Where on the hub, as USER/NAME.")]


@command(SettingsOptions("metacalo.sharing:PushSettings"))
def push(
    model: Annotated[Path, typer.Option("--model", help="Adapted model, or a base.")],
    repository: Named,
    given: Given,
    base: BaseOfModel = None,
    config: Config = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Put a base or an adapted model into a repository of the Hugging Face Hub, with a card and hashes."""
    from metacalo.sharing import PushSettings
    from metacalo.sharing import push as run

    settings = PushSettings.resolve(config, **given)
    pushed = run(model, repository, settings, base=base, force=force, quiet=quiet)
    if pushed.left:
        warn(f"{model}: what is no part of a model stayed there ({', '.join(pushed.left)})")
    if not quiet:
        say(f"{len(pushed.files)} files pushed to {pushed.url}   commit {pushed.commit}")


@command(SettingsOptions("metacalo.sharing:PullSettings"))
def pull(
    repository: Named,
    out: Annotated[Path, typer.Option("--out", help="Where the result goes.")],
    given: Given,
    base: BaseOfModel = None,
    config: Config = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a model from a repository of the Hugging Face Hub, if all its files are those that were pushed."""
    from metacalo.sharing import PullSettings
    from metacalo.sharing import pull as run

    pulled = run(repository, out, PullSettings.resolve(config, **given), base=base, force=force, quiet=quiet)
    if pulled.left:
        warn(f"{repository}: not fetched, as no part of the model ({', '.join(pulled.left)})")
    if not pulled.model.base_here:
        warn(pulled.needed)
    if not quiet:
        say(f"model written to {out}   commit {pulled.commit}")
        if pulled.model.base_here:
            say(pulled.needed)
