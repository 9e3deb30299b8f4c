"""Shower files compared, and the comparison written down: figures and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metacalo.checkpoint import atomic_folder, save_json
from metacalo.errors import ShowerFileError
from metacalo.evaluate.comparison import compare
from metacalo.evaluate.plots import profile_figure
from metacalo.evaluate.reference import EvaluateSettings
from metacalo.showers.hdf5 import open_showers
from metacalo.typing import PathLike

__all__ = ["evaluate_files"]


def evaluate_files(
    generated: PathLike,
    reference: PathLike,
    out: PathLike,
    *,
    seen_hashes: NDArray[np.int64] | None = None,
    settings: EvaluateSettings | None = None,
    command: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Compares two shower files and writes the folder `out` with `metrics.json` and `profiles.png`.

    Args:
        generated: file of generated showers.
        reference: file of Geant4 showers.
        out: folder to make.
        seen_hashes: hashes (as of `ShowerFile.hashes`) of showers that the generator was adapted with; they
            are left out of the reference, which must be of unseen showers; the no-copy test is against them.
        settings: seed, sizes and whether to train classifiers.
        command: the command line, kept with the result.
        force: replace `out` if it exists.

    Returns:
        The content of `metrics.json`: the dictionary of `compare`, the settings and the names of the files.

    Raises:
        ShowerFileError: a file cannot be read, or the two cannot be compared.
        OutputError: `out` exists and not `force`, or cannot be written.
    """
    settings = settings or EvaluateSettings()
    with atomic_folder(out, force=force) as folder:
        with open_showers(generated) as file:
            ours = file.load(settings.draw(np.arange(len(file))))
        with open_showers(reference) as file:
            seen = np.zeros(len(file), bool) if seen_hashes is None else np.isin(file.hashes(), seen_hashes)
            rows = np.flatnonzero(~seen)
            if len(rows) == 0:
                raise ShowerFileError(f"{reference}: every shower was used for the adaptation; give another reference")
            theirs = file.load(settings.draw(rows))
            shots = file.load(settings.draw(np.flatnonzero(seen)))
        metrics = compare(ours, theirs, settings, shots=shots)
        metrics["showers"]["left_out"] = int(seen.sum())
        metrics |= {
            "settings": settings.model_dump(),
            "files": {"generated": str(generated), "reference": str(reference)},
            "command": command,
        }
        save_json(folder / "metrics.json", metrics)
        profile_figure({"Geant4": theirs, "generated": ours}, folder / "profiles.png", title=Path(generated).stem)
    return metrics
