"""A model folder tried before it is given away or kept: everything in it is read once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from metacalo.errors import MetacaloError, ModelFolderError
from metacalo.model_folders.adapted import AdaptedConfig, load_model
from metacalo.model_folders.base import Base, checked_kind, resolve_base
from metacalo.sharing.manifest import belongs
from metacalo.storage.checkpoint import load_json, load_tensors
from metacalo.typing import PathLike

__all__ = ["ValidatedFolder", "validate_model_folder"]

_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class ValidatedFolder:
    """What a folder was found to be.

    Attributes:
        kind: base or adapted model.
        base: name of the base that it is, or was adapted from.
        base_hash: SHA-256 over that base's weights.
        base_here: whether that base is here, so that the model could be loaded with it.
    """

    kind: Literal["base", "adapted"]
    base: str
    base_hash: str
    base_here: bool


def validate_model_folder(folder: Path, *, base: PathLike | None = None, needs_base: bool = True) -> ValidatedFolder:
    """Reads all files of a model folder that may travel, and loads the model.

    Args:
        folder: of a base or of an adapted model.
        base: where the adapted model's base lies, if not under its name in `pretrained/`.
        needs_base: whether an adapted model without its base is refused; if not, its files are read one by one.

    Raises:
        ModelFolderError: something is missing, damaged or does not fit, or it is no model folder.
        BaseMismatchError: the base is another one.
    """
    kind = checked_kind(folder, "base", "adapted")["kind"]
    for file in sorted(folder.iterdir()):
        if belongs(file.name):
            _read(file)
    if kind == "base":
        found = Base.load(folder)
        for name in found.config.generators:
            found.generator(name)
        return ValidatedFolder("base", found.config.name, found.hash, True)
    config = AdaptedConfig.build(checked_kind(folder, "adapted"), source=str(folder / "config.json"))
    here = base is not None or needs_base or _is_here(config)
    if here:
        load_model(folder, base=base)
    return ValidatedFolder("adapted", config.base, config.base_hash, here)


def _read(file: Path) -> None:
    if file.suffix == ".safetensors":
        load_tensors(file)
    elif file.suffix == ".json":
        load_json(file)
    elif file.suffix == ".png":
        with file.open("rb") as opened:
            if opened.read(len(_PNG)) != _PNG:
                raise ModelFolderError(f"{file}: is no PNG; remove it or draw it again")


def _is_here(config: AdaptedConfig) -> bool:
    try:
        return resolve_base(config.base).hash == config.base_hash
    except MetacaloError:
        return False
