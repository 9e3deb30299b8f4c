"""Where a result comes from: program, machine, command, settings and inputs, so that it can be made again.

A folder keeps it as `provenance.json`, an HDF5 file as JSON in the attribute `provenance`. It holds no date, so that
the same run leaves the same bytes, and no home folder, so that models can be given away.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import h5py
import torch

import metacalo
from metacalo.errors import UNREADABLE, ModelFolderError, ShowerFileError
from metacalo.storage.checkpoint import load_json
from metacalo.storage.documents import DocumentError, parse_json
from metacalo.storage.hdf5_access import open_hdf5, scalar

__all__ = ["FILE", "file_record", "load_provenance", "provenance", "shown_path"]

FILE: Final = "provenance.json"
"""Name of the file in a result's folder; that of the attribute is its stem."""

LARGEST_HASHED: Final = 2**30
"""Bytes of an input that are hashed as a whole; of a larger one, or of shards, those of the showers used must do."""

_PACKAGES: Final = (
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "h5py",
    "safetensors",
    "higher",
    "vector-quantize-pytorch",
)


def provenance(
    function: str,
    command: str | None,
    *,
    settings: Mapping[str, Any],
    arguments: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, Any]],
    device: str = "cpu",
) -> dict[str, Any]:
    """All that a result's maker knows of where it comes from, as JSON can hold it.

    Args:
        function: which of metacalo's functions made it, such as `adapt`.
        command: the command line, if there was one.
        settings: resolved settings of the function.
        arguments: its other arguments; paths as of `shown_path`.
        inputs: name of an input to its `file_record`, or to name and hash of a base.
        device: of torch, that it ran on.
    """
    canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return {
        "function": function,
        "command": command or None,
        "arguments": dict(arguments),
        "settings": dict(settings),
        "settings_sha256": hashlib.sha256(canonical.encode()).hexdigest(),
        "inputs": {name: dict(record) for name, record in inputs.items()},
        "environment": _environment(device),
    }


def shown_path(path: str | Path) -> str:
    """A path as it is kept with a result: as given, but relative to the working folder or to `~` if it lies there."""
    path = Path(path)
    if not path.is_absolute():
        return str(path)
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    home = Path.home()
    return str(Path("~") / path.relative_to(home)) if path.is_relative_to(home) else str(path)


def file_record(path: str | Path) -> dict[str, Any]:
    """Path, size and SHA-256 of an input file; no hash where it is larger than `LARGEST_HASHED`, or several files."""
    path = Path(path)
    size, digest = path.stat().st_size if path.is_file() else None, None
    if size is not None and size <= LARGEST_HASHED:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"path": shown_path(path), "name": path.name, "size": size, "sha256": digest}


def load_provenance(path: str | Path) -> dict[str, Any] | None:
    """The provenance of a result's folder or HDF5 file; None where it has none.

    Raises:
        ModelFolderError: it cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        return load_json(path / FILE) if (path / FILE).exists() else None
    try:
        with open_hdf5(path) as file:
            record = file.attrs.get(Path(FILE).stem)
        found = None if record is None else parse_json(str(scalar(record)))
    except (ShowerFileError, DocumentError, *UNREADABLE) as error:
        raise ModelFolderError(
            f"{path}: its provenance cannot be read ({error}); is it a result of metacalo?"
        ) from None
    if found is not None and not isinstance(found, dict):
        raise ModelFolderError(f"{path}: its provenance is no JSON object; make it again")
    return found


def _environment(device: str) -> dict[str, Any]:
    found: dict[str, Any] = {"metacalo": metacalo.__version__, "commit": _commit(), "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    cuda = device.startswith("cuda") and torch.cuda.is_available()
    return {
        **found,
        "hdf5": h5py.version.hdf5_version,
        "platform": platform.platform(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if cuda else device,
        "cuda": torch.version.cuda if cuda else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of a source tree, with `-dirty` where it was changed since; None of an installed package."""
    root = Path(metacalo.__path__[0]).parent
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
