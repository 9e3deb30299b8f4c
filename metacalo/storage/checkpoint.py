"""Results on disk: safetensors for tensors, JSON for the rest, every write atomic, never a pickle.

A file is written beside its target under a temporary name, flushed to the disk, and renamed over the target;
a folder likewise (`storage.atomic`). Whoever reads therefore sees the old or the new result, never half of one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from metacalo.errors import UNREADABLE, ModelFolderError, OutputError
from metacalo.storage.atomic import clear_leftovers, put_in_place, put_set_in_place, remove, temporary_beside
from metacalo.storage.documents import DocumentError, read_json

__all__ = [
    "atomic_file",
    "atomic_folder",
    "atomic_set",
    "load_json",
    "load_tensors",
    "require_free",
    "save_json",
    "save_tensors",
    "tensor_hash",
]


LARGEST_TENSORS = 2**30  # bytes of a model's file; the largest that ships has 3 MB
_DTYPES = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int32, torch.int64),
}


def require_free(path: Path, force: bool) -> None:
    """Raises `OutputError` where `path` may not be made or replaced: asked before long work, not after it."""
    try:
        if path.exists() and not force:
            raise OutputError(f"{path}: exists already; give --force to replace it or another --out")
        parent = next(place for place in path.absolute().parents if place.exists())
    except OSError as error:  # a name that the file system refuses
        raise OutputError.refused(path, error) from error
    if not parent.is_dir():
        raise OutputError(f"{path}: cannot be written ({parent} is no folder); choose another --out")


@contextmanager
def atomic_file(path: str | Path, *, force: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on a clean exit it replaces `path`, else it is removed.

    Raises:
        OutputError: `path` exists and not `force`, its folder cannot be written, or the disk is full.
    """
    path = Path(path)
    with _placed(path, force) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary


@contextmanager
def atomic_folder(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Yields a temporary folder beside `path` that takes the place of `path` on a clean exit.

    Raises:
        OutputError: `path` exists and not `force`, cannot be written, or the disk is full.
    """
    path = Path(path)
    with _placed(path, force) as temporary:
        temporary.mkdir(parents=True)
        yield temporary


@contextmanager
def atomic_set(path: str | Path, stale: Iterable[Path] = ()) -> Iterator[Path]:
    """Yields a temporary folder whose files take their names beside `path` on a clean exit: all of them, or none.

    `path` is one of them; the `stale` ones, of an older set, are removed. The caller is the sole writer of `path`.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = temporary_beside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        put_set_in_place(temporary, path, stale)
    except OSError as error:
        raise OutputError.refused(path, error) from error
    finally:
        remove(temporary)


@contextmanager
def _placed(path: Path, force: bool) -> Iterator[Path]:
    """Yields a name beside `path`; what has it on a clean exit takes the place of `path`, and else is removed."""
    clear_leftovers(path)
    require_free(path, force)
    temporary = temporary_beside(path)
    try:
        yield temporary
        put_in_place(temporary, path)
    except OSError as error:
        raise OutputError.refused(path, error) from error
    finally:
        remove(temporary)


def save_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Writes readable JSON atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=True) + "\n", encoding="utf-8")


def load_json(path: str | Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ModelFolderError: the file is missing or holds no JSON object.
    """
    path = Path(path)
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise ModelFolderError(f"{path}: missing; is {path.parent} a metacalo model folder?") from None
    except DocumentError as error:
        raise ModelFolderError(f"{path}: not readable as JSON ({error}); make the model again") from None
    if not isinstance(value, dict):
        raise ModelFolderError(f"{path}: holds {type(value).__name__}, an object was expected; make the model again")
    return value


def save_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors (and string metadata) as one safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(path) as temporary:
        temporary.write_bytes(save(plain, metadata=dict(metadata) if metadata else None))


def load_tensors(
    path: str | Path, device: str = "cpu", *, largest: int | None = LARGEST_TENSORS
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, of at most `largest` bytes (None = any number).

    Raises:
        ModelFolderError: the file is missing, truncated, too large, of another format, or holds types that metacalo
            does not write, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFolderError(f"{path}: missing; is {path.parent} a metacalo model folder?")
    if largest is not None and path.stat().st_size > largest:
        raise ModelFolderError(f"{path}: has {path.stat().st_size:,} bytes, at most {largest:,} are read")
    try:
        with safe_open(str(path), framework="pt", device=device) as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            metadata = dict(handle.metadata() or {})
    except (SafetensorError, *UNREADABLE) as error:
        raise ModelFolderError(f"{path}: not a readable safetensors file ({error}); make the model again") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ModelFolderError(f"{path}: tensor '{name}' has type {tensor.dtype}; make the model again")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelFolderError(f"{path}: tensor '{name}' holds values that are not finite; make the model again")
    return tensors, metadata


def tensor_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names: equal hash, equal tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
