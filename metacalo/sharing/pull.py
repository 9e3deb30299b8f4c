"""`metacalo pull`: a model from a repository, if every file of it is the one that was pushed and it can be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from metacalo.config import Settings
from metacalo.errors import BaseMismatchError, MetacaloError, ModelFolderError
from metacalo.runtime.signals import note_on_interrupt
from metacalo.sharing.card import CARD, without_header
from metacalo.sharing.manifest import MANIFEST, README, Manifest
from metacalo.sharing.repository import DEFAULT_REVISION, Repository, Revision
from metacalo.sharing.validation import ValidatedFolder, validate_model_folder
from metacalo.storage.atomic import remove
from metacalo.storage.checkpoint import atomic_folder
from metacalo.storage.locking import sole_writer
from metacalo.typing import PathLike

__all__ = ["PullSettings", "Pulled", "pull"]

LARGEST_MANIFEST = 2**20  # bytes


class PullSettings(Settings):
    """Which of a repository's models is taken."""

    revision: str = Field(
        default=DEFAULT_REVISION, min_length=1, max_length=200, description="a branch, a tag or a commit"
    )


@dataclass(frozen=True)
class Pulled:
    """What was pulled.

    Attributes:
        out: the folder.
        commit: where it is from, SHA-1; as `revision` it gives the same model for ever.
        model: base or adapted model, of which base, and whether that is here.
        left: names of what the repository has besides, which was not fetched.
    """

    out: Path
    commit: str
    model: ValidatedFolder
    left: tuple[str, ...]

    @property
    def needed(self) -> str:
        """One sentence on the base: how this one is used, or whether the one that it needs is here."""
        base, content_hash = self.model.base, self.model.base_hash
        if self.model.kind == "base":
            return f"base '{base}' with hash {content_hash[:12]}: adapt it by metacalo adapt --base {self.out}"
        if self.model.base_here:
            return f"its base '{base}' with hash {content_hash[:12]} is here"
        return f"{self.out}: its base '{base}' with hash {content_hash} is not here; pull it too and name it by --base"


def pull(
    repository: str,
    out: PathLike,
    settings: PullSettings | None = None,
    *,
    base: PathLike | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Pulled:
    """Fetches a model that `push` has put into a repository, and gives it its name once all of it was looked at.

    Only the files of its manifest are fetched: safetensors, JSON, figures and the card, which becomes CARD.md. Each
    must have the SHA-256 that the manifest has. A base is loaded; so is an adapted model whose base is here.

    Args:
        repository: such as `group/pblar`.
        out: folder to write.
        settings: see `PullSettings`.
        base: where the adapted model's base lies, if not in `pretrained/`.
        force: replace an existing `out`.
        quiet: draw no bars.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
        HubError: the name is not OWNER/NAME, there is no such repository or revision, or the hub cannot be reached.
        ModelFolderError: it holds no model of metacalo, a file is not the one that was pushed, or it cannot be loaded.
        BaseMismatchError: `base` is another one than it was adapted from.
        OutputError: `out` exists and not `force`, or cannot be written.
    """
    settings, out = settings or PullSettings(), Path(out)
    of = Repository(repository)
    with sole_writer(out, force=force), note_on_interrupt(f"{out} was not written; give the same command again"):
        held = of.at(settings.revision)
        with atomic_folder(out, force=force) as folder:
            manifest = _manifest(of, held, folder)
            of.fetch([*manifest.files], held.commit, folder, quiet=quiet)
            manifest.require_same(folder, of.url)
            _unpack_card(folder)
            model = _validated(folder, manifest, base, of.url)
    left = tuple(sorted({*held.files} - {*manifest.files, MANIFEST}))
    return Pulled(out, held.commit, model, left)


def _manifest(of: Repository, held: Revision, folder: Path) -> Manifest:
    """The repository's manifest, if what it names is there and has the sizes that it says."""
    if MANIFEST not in held.files:
        raise ModelFolderError(f"{of.url}: holds no {MANIFEST}, so no model that metacalo pushed; correct the name")
    if (held.files[MANIFEST] or 0) > LARGEST_MANIFEST:
        raise ModelFolderError(f"{of.url}: {MANIFEST} has {held.files[MANIFEST]:,} bytes; have the model pushed anew")
    of.fetch([MANIFEST], held.commit, folder, quiet=True)
    manifest = Manifest.load(folder / MANIFEST, of.url)
    remove(folder / MANIFEST)
    for name, record in manifest.files.items():
        if name not in held.files:
            raise ModelFolderError(f"{of.url}: '{name}' is missing there, {MANIFEST} names it; have it pushed anew")
        if held.files[name] not in (None, record.size):
            raise ModelFolderError(
                f"{of.url}: '{name}' has {held.files[name]:,} bytes there, {record.size:,} were pushed; have it pushed "
                "anew"
            )
    return manifest


def _unpack_card(folder: Path) -> None:
    """CARD.md in the place of the README, without the lines for the hub."""
    file = folder / README
    if file.is_file():
        text = file.read_bytes().decode("utf-8", errors="replace")
        (folder / CARD).write_bytes(without_header(text).encode())
        remove(file)


def _validated(folder: Path, manifest: Manifest, base: PathLike | None, source: str) -> ValidatedFolder:
    """Loads the model once, and compares it with its manifest."""
    try:
        found = validate_model_folder(folder, base=base, needs_base=False)
    except MetacaloError as error:
        sentence = str(error).replace(str(folder), source)  # the folder has a name for the moment only
        raise (BaseMismatchError if isinstance(error, BaseMismatchError) else ModelFolderError)(sentence) from None
    if (found.kind, found.base_hash) != (manifest.kind, manifest.base_hash):
        raise ModelFolderError(
            f"{source}: holds a model of kind '{found.kind}' with base {found.base_hash[:12]}, {MANIFEST} says "
            f"'{manifest.kind}' and {manifest.base_hash[:12]}; have it pushed anew"
        )
    return found
