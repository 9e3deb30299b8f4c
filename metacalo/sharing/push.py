"""`metacalo push`: a base or an adapted model into a repository of models, with a card and a hash of every file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

import metacalo
from metacalo.config import Settings
from metacalo.errors import HubError
from metacalo.model_folders.base import resolve_base
from metacalo.runtime.signals import note_on_interrupt
from metacalo.sharing.card import CARD, readme
from metacalo.sharing.manifest import MANIFEST, README, STAYS, FileRecord, Manifest, belongs
from metacalo.sharing.repository import DEFAULT_REVISION, Repository
from metacalo.sharing.validation import validate_model_folder
from metacalo.typing import PathLike

__all__ = ["PushSettings", "Pushed", "push"]


class PushSettings(Settings):
    """How a model is given away."""

    revision: str = Field(default=DEFAULT_REVISION, min_length=1, max_length=200, description="branch, made if new")
    private: bool = Field(default=False, description="make a new repository private")
    license: str = Field(default="mit", pattern="^[a-z0-9.-]+$", description="licence, by its name on the hub")


@dataclass(frozen=True)
class Pushed:
    """What was pushed.

    Attributes:
        url: of the repository.
        commit: that the push made, SHA-1.
        files: names of what travelled.
        left: names of what is in the folder and stayed there.
    """

    url: str
    commit: str
    files: tuple[str, ...]
    left: tuple[str, ...]


def push(
    model: PathLike,
    repository: str,
    settings: PushSettings | None = None,
    *,
    base: PathLike | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Pushed:
    """Puts a model into a repository on the hub, in one commit, and makes the repository if there is none.

    Weights (safetensors), JSON and figures (PNG) travel, and the card: CARD.md of the folder, or one made from its
    metrics. The model is loaded first, so that none is pushed that cannot be.

    Args:
        model: folder of a base or of an adapted model, or the name of a base.
        repository: such as `group/pblar`.
        settings: see `PushSettings`.
        base: where the adapted model's base lies, if not in `pretrained/`.
        force: replace the model that the repository holds; it stays in the history.
        quiet: draw no bars.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        ModelFolderError, UnknownNameError: there is no such model, or it is damaged.
        HubError: the name is not OWNER/NAME, the hub refuses or is out of reach, the repository holds files and not
            `force`, or is public and the settings want a private one.
    """
    settings = settings or PushSettings()
    to = Repository(repository)
    folder = Path(model) if Path(model).is_dir() else resolve_base(model).path
    found = validate_model_folder(folder, base=base)
    kept = {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and belongs(path.name)}
    left = tuple(sorted({path.name for path in folder.iterdir()} - {*kept, *STAYS, CARD}))
    source = f"{to.url}/blob/{settings.revision}"
    card = readme(folder, found, repository=repository, source=source, license=settings.license)
    files = {name: FileRecord.of(path) for name, path in kept.items()} | {README: FileRecord.of_text(card)}
    manifest = Manifest.build(
        {
            "kind": found.kind,
            "version": metacalo.__version__,
            "base": found.base,
            "base_hash": found.base_hash,
            "files": files,
        },
        source=str(folder),
    )
    with note_on_interrupt(f"{to.url} holds what it held; give the same command again"):
        to.create(private=settings.private)
        if settings.revision != DEFAULT_REVISION:
            to.branch(settings.revision)
        before = to.at(settings.revision)
        if settings.private and not before.private:
            raise HubError(f"{to.url}: is public; make it private there first, or push to another --repository")
        if before.files and not force:
            raise HubError(
                f"{to.url}: holds files already; give --force to replace the model (the old one stays in the history), "
                "or another --repository"
            )
        commit = to.commit(
            {**kept, README: card, MANIFEST: manifest.model_dump_json(indent=2) + "\n"},
            settings.revision,
            f"metacalo {metacalo.__version__}: push {folder.resolve().name}",
            before=before,
            removed=[name for name in before.files if belongs(name) and name not in kept],
            quiet=quiet,
        )
    return Pushed(to.url, commit, (*manifest.files, MANIFEST), left)
