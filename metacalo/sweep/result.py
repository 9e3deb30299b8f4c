"""The result of a complete study: its best trial adapted again on all shots, written by one worker alone."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import optuna
import torch

import metacalo
from metacalo.adapt import AdaptSettings, adapt_into
from metacalo.detectors.detector import Detector
from metacalo.errors import ModelFolderError
from metacalo.storage.checkpoint import atomic_folder, load_json, require_free, save_json
from metacalo.storage.locking import sole_writer
from metacalo.sweep.settings import SweepSettings
from metacalo.sweep.space import Hyperparameters
from metacalo.sweep.sweep_report import write_report
from metacalo.typing import PathLike

__all__ = ["SWEEP_FILE", "read_result", "require_free_or_same", "write_result"]

SWEEP_FILE: Final = "sweep.json"
"""What a sweep leaves beside the model of its best trial."""


def read_result(out: Path, identity: Mapping[str, Any], study: str) -> dict[str, Any] | None:
    """What `out` holds of that study; None where it holds nothing, or something else."""
    if not (out / SWEEP_FILE).is_file():
        return None
    try:
        found = load_json(out / SWEEP_FILE)
    except ModelFolderError:
        return None
    return found if (found.get("study"), found.get("identity")) == (study, dict(identity)) else None


def require_free_or_same(out: Path, identity: Mapping[str, Any], study: str, force: bool) -> None:
    """Raises `OutputError` where the result may not be written: an earlier one of the same study may be replaced."""
    require_free(out, force or read_result(out, identity, study) is not None)


def write_result(
    detector: PathLike,
    out: Path,
    settings: SweepSettings,
    identity: Mapping[str, Any],
    found: Mapping[str, Any],
    *,
    described: Detector | None,
    force: bool,
    quiet: bool,
    command: str,
    storage: str,
) -> tuple[dict[str, Any], bool]:
    """Writes `out`, unless another worker has; returns what `sweep.json` holds, and whether it was written here.

    Workers that end at the same time wait for the one that writes; should it be killed, the next one writes.

    Args:
        detector: see `adapt`.
        out: folder of the adapted model; with `sweep.json` and `sweep.html`.
        settings: of the sweep.
        identity: see `identity_of`.
        found: see `findings`.
        described: see `adapt`.
        force: replace a foreign `out`.
        quiet: draw no bars.
        command: recorded with the result, without passwords.
        storage: likewise.

    Raises:
        OutputError: `out` cannot be written.
    """
    with sole_writer(out, wait=True):
        earlier = read_result(out, identity, found["study"])
        if earlier is not None and earlier["ended"] >= found["ended"]:
            return earlier, False
        hyper = Hyperparameters(**found["best"]["params"])
        adaptation = AdaptSettings(
            base=settings.base,
            shots=settings.shots,
            generator=settings.generator,
            seed=settings.seed,
            device=settings.device,
            autocast=settings.autocast,
            compared_showers=settings.compared_showers,
            sampling=hyper.sampling(),
            **hyper.adaptation(),
        )
        record = {
            **found,
            "sampling": adaptation.sampling.model_dump(exclude_none=True),
            "settings": settings.model_dump(mode="json", exclude_none=True),
            "identity": dict(identity),
            "storage": storage,
            "command": command,
            "version": metacalo.__version__,
            "versions": {"optuna": optuna.__version__, "torch": torch.__version__, "python": platform.python_version()},
        }
        place = _with_trials(out, record, force=force or earlier is not None)
        adapt_into(place, detector, adaptation, described=described, quiet=quiet, command=command)
    return record, True


@contextmanager
def _with_trials(out: Path, record: Mapping[str, Any], *, force: bool) -> Iterator[Path]:
    """Yields a folder that becomes `out`, with the trials beside what was written into it."""
    with atomic_folder(out, force=force) as folder:
        yield folder
        save_json(folder / SWEEP_FILE, record)
        write_report(folder / "sweep.html", record)
