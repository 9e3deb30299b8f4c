"""Shower files compared, and the comparison written down: figures, pages and pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metacalo.detectors.condition_range import ConditionRange, left_range, range_of_attributes
from metacalo.errors import ConfigError, ShowerFileError
from metacalo.evaluate.checks import on_shared_energies
from metacalo.evaluate.comparison import STEPS, compare
from metacalo.evaluate.pages import write_pages
from metacalo.evaluate.plots import profile_figure
from metacalo.evaluate.reference import EvaluateSettings, Reference
from metacalo.runtime.pictures import drawing
from metacalo.runtime.progress import bars
from metacalo.runtime.signals import note_on_interrupt
from metacalo.showers.sample_checks import warn_of_showers
from metacalo.showers.shower_file import Showers, open_showers
from metacalo.showers.tasks import shower_path
from metacalo.storage.checkpoint import atomic_folder, save_json
from metacalo.storage.locking import sole_writer
from metacalo.storage.provenance import FILE, file_record, provenance, shown_path
from metacalo.typing import PathLike

__all__ = ["REFERENCE", "all_warnings", "evaluate_files", "labels_of"]

REFERENCE = "Geant4"
"""Label of the reference in tables and pictures."""


def evaluate_files(
    generated: PathLike | Sequence[PathLike],
    reference: PathLike,
    out: PathLike,
    *,
    labels: Sequence[str] | None = None,
    cards: Mapping[str, str] | None = None,
    seen_hashes: NDArray[np.int64] | None = None,
    seen_by: Mapping[str, str | None] | None = None,
    settings: EvaluateSettings | None = None,
    command: str | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Compares shower files with a reference and writes the folder `out`.

    It holds `report.html` and `report.pdf` with all figures of `figures/` (PNG and PDF), `metrics.json`, and
    `profiles.png` and `.pdf`.

    Args:
        generated: file of generated showers (or the name of a task), or several.
        reference: file of Geant4 showers, or the name of a task.
        out: folder to make.
        labels: what the generated files are called; by default their names without extension.
        cards: label to the Markdown of the model card, for the report; files of unknown models have none.
        seen_hashes: hashes (as of `ShowerFile.hashes`) of showers that the generators were adapted with; they
            are left out of the reference, which must be of unseen showers; the no-copy test is against them.
        seen_by: whose hashes they are (`unseen_by`, `base`), recorded with the result.
        settings: seed, sizes, whether to train classifiers and to write pages.
        command: the command line, kept with the result.
        force: replace `out` if it exists.

    Returns:
        The content of `metrics.json`: `samples` (label to the dictionary of `compare`), `left_out` (reference showers
        that the generators had seen), `files`, `settings` and `command`.

    Raises:
        ShowerFileError: a file cannot be read, or two cannot be compared.
        ConfigError: the labels are not as many as the files, not different, or the reference's.
        OutputError: `out` exists and not `force`, or cannot be written.
    """
    given = [generated] if isinstance(generated, str | Path) else list(generated)
    files, reference = [shower_path(path) for path in given], shower_path(reference)
    named = dict(zip(labels_of(given, labels), files, strict=True))
    settings = settings or EvaluateSettings()
    with (
        sole_writer(out, force=force),
        note_on_interrupt(f"{out} was not written; give the same command again"),
        atomic_folder(out, force=force) as folder,
        bars() as add,
    ):
        if settings.calochallenge is None:
            asked = any(_keeps_challenge_layout(path) for path in (reference, *files))
            settings = settings.model_copy(update={"calochallenge": asked})
        theirs, shots, left_out = _reference(reference, seen_hashes, settings)
        samples: dict[str, Showers] = {REFERENCE: theirs.showers}
        warn_of_showers(theirs.showers, reference)
        metrics: dict[str, Any] = {}
        bar = add("compare", STEPS * len(named))
        for label, path in named.items():
            with open_showers(path) as file:
                samples[label] = file.load(settings.draw(np.arange(len(file))))
                seen = range_of_attributes(file.attributes)
            warn_of_showers(samples[label], path)
            samples[label] = settings.cut(samples[label])
            try:
                metrics[label] = compare(samples[label], theirs, shots=shots, done=bar.advance)
            except ShowerFileError as error:
                raise ShowerFileError(f"{path} against {reference}: {error}") from None
            metrics[label]["warnings"] += _outside(seen, samples[label])
        result = {
            "samples": metrics,
            "left_out": left_out,
            "settings": settings.model_dump(),
            "files": {"generated": {label: str(path) for label, path in named.items()}, "reference": str(reference)},
            "command": command,
        }
        save_json(folder / "metrics.json", result)
        save_json(folder / FILE, _provenance(named, reference, settings, seen_by, seen_hashes, command))
        title = f"{', '.join(named)} against {REFERENCE}"
        shown = on_shared_energies(samples)
        with drawing("profiles.png"):
            profile_figure(shown, folder / "profiles.png", folder / "profiles.pdf")
        if settings.pages:
            write_pages(folder, shown, metrics, title=title, command=command, cards=cards, progress=add)
    return result


def _outside(seen: ConditionRange | None, showers: Showers) -> list[str]:
    """Sentences on showers unlike those that their model was made from, where the file names these."""
    if seen is None:
        return []
    mend = "generate within it, or adapt with shots there"
    return left_range(seen, "what their model has seen", showers.energy, showers.theta, "generated showers", mend)


def _provenance(
    named: Mapping[str, PathLike],
    reference: PathLike,
    settings: EvaluateSettings,
    seen_by: Mapping[str, str | None] | None,
    seen_hashes: NDArray[np.int64] | None,
    command: str | None,
) -> dict[str, Any]:
    inputs = {f"generated {label}": file_record(path) for label, path in named.items()}
    inputs["reference"] = file_record(reference)
    if seen_hashes is not None:
        digest = hashlib.sha256(np.sort(seen_hashes).tobytes()).hexdigest()
        inputs["seen showers"] = {"number": len(seen_hashes), "hash": digest}
    given = {
        "generated": {label: shown_path(path) for label, path in named.items()},
        "reference": shown_path(reference),
        **{name: None if path is None else shown_path(path) for name, path in (seen_by or {}).items()},
    }
    return provenance("evaluate", command, settings=settings.model_dump(mode="json"), arguments=given, inputs=inputs)


def labels_of(files: Sequence[PathLike], labels: Sequence[str] | None = None) -> list[str]:
    """What each generated file is called: the labels given, or file names, with folders where names are equal.

    Raises:
        ConfigError: the labels are not as many as the files, not different, or the reference's.
    """
    if not files:
        message = "no generated file to compare; name one with --generated"
        raise ConfigError(message)
    names = [Path(path).stem for path in files]
    if len(set(names)) < len(names):
        names = [str(Path(path).with_suffix("")) for path in files]
    found = list(labels) if labels else names
    if len(found) != len(files):
        raise ConfigError(f"--labels names {len(found)} and --generated {len(files)} samples; give as many of either")
    if len(set(found)) < len(found) or REFERENCE in found:
        raise ConfigError(f"--labels {','.join(found)}: each must be another one, and none '{REFERENCE}'")
    return found


def _keeps_challenge_layout(path: PathLike) -> bool:
    with open_showers(path) as file:
        return file.convention == "calochallenge"


def _reference(
    path: PathLike, seen_hashes: NDArray[np.int64] | None, settings: EvaluateSettings
) -> tuple[Reference, Showers, int]:
    """Reference showers that no generator has seen, those that it has, and how many these are in the file."""
    with open_showers(path) as file:
        seen = np.zeros(len(file), bool) if seen_hashes is None else np.isin(file.hashes(), seen_hashes)
        rows = np.flatnonzero(~seen)
        if len(rows) == 0:
            raise ShowerFileError(f"{path}: every shower was used for the adaptation; give another reference")
        shots = file.load(settings.draw(np.flatnonzero(seen)))
        return Reference(file.load(settings.draw(rows)), settings), shots, int(seen.sum())


def all_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """The warnings of all samples of `metrics.json`, with the label where there are several samples."""
    samples = metrics["samples"]
    return [
        f"{label}: {warning}" if len(samples) > 1 else warning
        for label, found in samples.items()
        for warning in found["warnings"]
    ]
