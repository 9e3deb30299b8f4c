"""Parts of a result with a hash of each, but for what says when, by whom or how fast it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from metacalo.showers.hdf5_limits import naming_read_errors
from metacalo.storage.checkpoint import load_json, load_tensors, tensor_hash
from metacalo.storage.hdf5_access import open_hdf5
from metacalo.storage.provenance import FILE

__all__ = ["VOLATILE", "fingerprints"]

VOLATILE: Final = {"seconds", "cost", "command", "converted_by", Path(FILE).stem, "version"}
"""Keys of results that say when, by whom or how fast, and not what."""

_PLACES: Final = {"base", "conditions", "initial", "reference", "storage", "tasks", "unseen_by"}
"""Settings that say where an input lies. What it is counts: its hash stands among the inputs of the provenance."""


def fingerprints(path: Path) -> dict[str, str]:
    """Part of a result to a hash of it: tensors of weights, values of JSON without `VOLATILE`, datasets of HDF5."""
    if path.is_file():
        found = dict(_of_hdf5(path))
        beside = path.with_suffix(".json")
        return found | (dict(_of_json(beside)) if beside.is_file() else {})
    parts: dict[str, str] = {}
    for file in sorted(path.iterdir()):
        if file.suffix == ".safetensors":
            parts[file.name] = tensor_hash(load_tensors(file)[0])
        elif file.suffix == ".json" and file.name != FILE:
            parts |= dict(_of_json(file))
        elif file.suffix == ".png":
            parts[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return parts


def _of_json(file: Path) -> Iterator[tuple[str, str]]:
    for key, value in load_json(file).items():
        if key not in VOLATILE and key not in ("files", "model", "showers", "against"):
            kept = json.dumps(_lasting(value), sort_keys=True)
            yield f"{file.name}: {key}", kept if len(kept) <= 24 else hashlib.sha256(kept.encode()).hexdigest()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(inner) for key, inner in value.items() if key not in {*VOLATILE, *_PLACES, "pages"}}
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value


def _of_hdf5(file: Path) -> Iterator[tuple[str, str]]:
    with naming_read_errors(str(file)), open_hdf5(file) as opened:
        names: list[str] = []
        opened.visit(names.append)
        for name in names:
            if isinstance(opened[name], h5py.Dataset):
                yield name, _dataset_hash(opened[name])
        kept = {key: repr(value) for key, value in opened.attrs.items() if key not in VOLATILE}
        left_out = ("model", "showers", "against", *_PLACES)
        lasting = json.dumps([each for each in sorted(kept.items()) if each[0] not in left_out])
        yield "attributes", hashlib.sha256(lasting.encode()).hexdigest()


def _dataset_hash(dataset: h5py.Dataset) -> str:
    digest = hashlib.sha256(f"{dataset.dtype}|{dataset.shape}|".encode())
    for start in range(0, len(dataset), 1000):
        digest.update(np.ascontiguousarray(dataset[start : start + 1000]).tobytes())
    return digest.hexdigest()
