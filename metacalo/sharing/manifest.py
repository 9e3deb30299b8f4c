"""The files of a model that are shared, with the SHA-256 of each, by which the receiver checks them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from metacalo.config import Settings
from metacalo.errors import ConfigError, ModelFolderError
from metacalo.model_folders.base import PlainName
from metacalo.storage.checkpoint import LARGEST_TENSORS, load_json
from metacalo.storage.provenance import file_record

__all__ = ["MANIFEST", "README", "STAYS", "FileRecord", "Manifest", "belongs"]

MANIFEST: Final = "metacalo.json"
"""Name of the manifest in a repository; a model folder has none."""

README: Final = "README.md"
"""The card: what hubs show of a repository."""

STAYS: Final = frozenset({"profiles.pdf"})
"""Files of a model folder that do not travel: a PDF can hold programs, and the PNG shows the same."""

_MOST_FILES: Final = 64
_NAME: Final = r"[a-z0-9][a-z0-9_.-]{0,99}\.(safetensors|json|png)"
"""Weights, settings and figures, in no folder; in small letters, as some file systems ignore case."""

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=rf"^({_NAME}|README\.md)$")]


class FileRecord(Settings):
    """What a file must be: its size in bytes and its SHA-256."""

    size: int = Field(ge=0, le=LARGEST_TENSORS)
    sha256: Digest

    @classmethod
    def of(cls, file: Path) -> FileRecord:
        """The record of a file as it is.

        Raises:
            ConfigError: it is larger than any that metacalo reads.
        """
        record = file_record(file)
        return cls.build({"size": record["size"], "sha256": record["sha256"] or ""}, source=str(file))

    @classmethod
    def of_text(cls, text: str) -> FileRecord:
        """The record of a text that is not on disk yet."""
        content = text.encode()
        return cls(size=len(content), sha256=hashlib.sha256(content).hexdigest())


class Manifest(Settings):
    """What a repository holds of a model; `metacalo.json` in it."""

    format: Literal[1] = 1
    kind: Literal["base", "adapted"]
    version: str = Field(description="metacalo that pushed it")
    base: PlainName = Field(description="name of the base that it is, or was adapted from")
    base_hash: Digest = Field(description="SHA-256 over the weights of that base")
    files: Annotated[dict[FileName, FileRecord], Field(max_length=_MOST_FILES)]

    @classmethod
    def load(cls, file: Path, source: str) -> Manifest:
        """Reads a manifest; `source` names the repository in errors.

        Raises:
            ModelFolderError: it is not a manifest, or names files that do not belong to a model.
        """
        try:
            return cls.build(load_json(file), source=f"{source}, {MANIFEST}")
        except ModelFolderError as error:
            raise ModelFolderError(str(error).replace(str(file.parent), source)) from None
        except ConfigError as error:
            raise ModelFolderError(f"{error}; it was not pushed by this version of metacalo") from None

    def require_same(self, folder: Path, source: str) -> None:
        """Compares the files of a folder with their records.

        Raises:
            ModelFolderError: one is missing, or not the file that was pushed.
        """
        for name, wanted in self.files.items():
            if not (folder / name).is_file():
                raise ModelFolderError(f"{source}: '{name}' did not arrive; pull again")
            found = file_record(folder / name)
            if (found["size"], found["sha256"]) != (wanted.size, wanted.sha256):
                digest = (found["sha256"] or "none")[:12]
                raise ModelFolderError(
                    f"{source}: '{name}' is not the file that was pushed (SHA-256 {digest}, {MANIFEST} has "
                    f"{wanted.sha256[:12]}); pull again, and if that does not help have it pushed anew"
                )


def belongs(name: str) -> bool:
    """Whether a file of that name may be part of a model that travels; the manifest and the card are apart."""
    return name != MANIFEST and re.fullmatch(_NAME, name) is not None
