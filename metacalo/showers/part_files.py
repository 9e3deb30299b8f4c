"""Long generation in parts, so that a run that is killed loses one part and not all.

HDF5 files do not survive a kill while they grow, so each part is a complete file of its own in `<out>.work` until all
are there. A part's showers depend on the seed and its index alone, whichever process makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metacalo.detectors.detector import Detector
from metacalo.errors import ConfigError, OutputError
from metacalo.showers.shower_file import Showers, open_showers
from metacalo.showers.writer import ShowerWriter
from metacalo.storage.checkpoint import load_json, save_json

__all__ = ["joined", "open_parts", "part_file", "part_seed", "write_part"]

_BATCH = 1024  # showers in memory when parts are joined


def part_file(work: Path, index: int) -> Path:
    """Where the part of that index lies."""
    return work / f"part-{index:05d}.h5"


def part_seed(seed: int, index: int) -> int:
    """The seed of a part; the first has the run's own.

    Example:
        >>> part_seed(7, 0), part_seed(7, 1) == part_seed(8, 1)
        (7, False)
    """
    return int(np.random.SeedSequence(seed, spawn_key=(index,)).generate_state(1)[0]) if index else seed


def open_parts(work: Path, made_from: Mapping[str, Any], *, resume: bool) -> None:
    """Begins or goes on with the folder of the parts.

    Args:
        work: the folder.
        made_from: all that decides the showers, as JSON has it; kept in the folder.
        resume: whether parts may be there.

    Raises:
        OutputError: parts are there and not `resume`, or the folder cannot be written.
        ConfigError: parts are there that were made from something else.
    """
    record = work / "settings.json"
    if not part_file(work, 0).exists() or not record.exists():
        save_json(record, made_from)
        return
    if not resume:
        raise OutputError(f"{work}: an unfinished run is here; give --resume to go on, or remove the folder")
    different = [key for key, value in load_json(record).items() if made_from.get(key) != value]
    if different:
        raise ConfigError(
            f"{record}: the unfinished run had other {', '.join(different)}; resume with the same, or remove it"
        )


def write_part(work: Path, index: int, batches: Iterable[Showers], detector: Detector) -> None:
    """Writes one part; it appears when complete.

    Raises:
        OutputError: it cannot be written, or the disk is full; the parts before are kept.
    """
    try:
        with ShowerWriter(part_file(work, index), detector.grid, detector=detector) as writer:
            for batch in batches:
                writer.append(batch)
    except OutputError as error:
        raise OutputError(f"{error}; the parts before are kept, so go on with --resume") from error


def joined(work: Path, parts: int) -> Iterator[Showers]:
    """The showers of all parts, in order, some at a time."""
    for index in range(parts):
        with open_showers(part_file(work, index)) as file:
            for start in range(0, len(file), _BATCH):
                rows = slice(start, start + _BATCH)
                yield Showers(file.read_as_stored(rows), file.energy[rows], file.theta[rows], file.phi[rows])
