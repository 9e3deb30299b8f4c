"""`metacalo score`: the scores of a shower file, what is unlikely in it, and how well they separate it from another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

import metacalo
from metacalo.detectors.condition_range import warn_outside
from metacalo.detectors.detector import Detector
from metacalo.detectors.json_record import record_of
from metacalo.errors import OutputError, ShowerFileError
from metacalo.evaluate.classifier import auc_error
from metacalo.evaluate.outliers import FEWEST, EnergyTrend
from metacalo.model_folders.adapted import ShowerModel, load_model
from metacalo.runtime.signals import note_on_interrupt
from metacalo.scoring.scores import Scores, ScoreSettings, fitted_to, require_mesh, score, scored_generators
from metacalo.showers.hdf5_sink import new_hdf5
from metacalo.showers.sample_checks import warn_of_file
from metacalo.showers.shower_file import ShowerFile, open_showers
from metacalo.showers.tasks import shower_path
from metacalo.storage.checkpoint import atomic_file, require_free, save_json
from metacalo.storage.locking import sole_writer
from metacalo.storage.provenance import FILE, file_record, provenance, shown_path
from metacalo.typing import PathLike

__all__ = ["Judged", "judge", "score_files", "summary"]

Array = NDArray[np.float64]

_QUANTILES: Final = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_BINS = 4  # of ln E
_UNITS: Final = {"row": "", "incident_energy": "MeV", "incident_theta": "rad", "incident_phi": "rad", "response": ""}


@dataclass(frozen=True)
class Judged:
    """Scores beside what is usual in a reference.

    Attributes:
        scores: of the showers.
        deviations: score to robust standard deviations above (below: negative) the reference's trend in ln E, (n,).
        percentiles: score to the share of the reference in % whose deviation is not higher, (n,).
    """

    scores: Scores
    deviations: Mapping[str, Array]
    percentiles: Mapping[str, Array]


def judge(reference: Scores, *others: Scores) -> list[Judged]:
    """The scores of `reference`, and of `others`, against the trends of the reference.

    Raises:
        ShowerFileError: the reference has fewer than 20 showers.
    """
    trends = {name: EnergyTrend.fit(reference.energy, values) for name, values in reference.values.items()}
    usual = {name: np.sort(trend.deviation(reference.energy, reference.values[name])) for name, trend in trends.items()}
    judged = []
    for scores in (reference, *others):
        deviations = {name: trends[name].deviation(scores.energy, values) for name, values in scores.values.items()}
        percentiles = {
            name: 100 * np.searchsorted(usual[name], values, side="right") / len(reference)
            for name, values in deviations.items()
        }
        judged.append(Judged(scores, deviations, percentiles))
    return judged


def score_files(
    model: PathLike,
    showers: PathLike,
    out: PathLike,
    settings: ScoreSettings | None = None,
    *,
    against: PathLike | None = None,
    base: PathLike | None = None,
    detector: Detector | None = None,
    force: bool = False,
    quiet: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Scores the showers of a file with the model of a folder, and writes `out` (HDF5) and a summary beside it (JSON).

    Args:
        model: folder of an adapted model; or a base, with `detector`.
        showers: shower file, or the name of a task; its scores are the reference of the trend in energy.
        out: HDF5 file to write; the summary has its name with the suffix .json.
        settings: see `ScoreSettings`.
        against: a second file, whose showers the scores are to separate from the first one's.
        base: where the model's base lies, if not in `pretrained/`.
        detector: of a base at zero shots.
        force: replace existing results.
        quiet: draw no bar.
        command: recorded with the result.

    Returns:
        The summary: see `summary`, and the model, files, settings and command.

    Raises:
        ShowerFileError: a file cannot be read, has another mesh than the model's, or too few showers (20 are needed).
        OutputError: a result exists and not `force`, or cannot be written.
        MetacaloError: see `load_model` and `score`.
    """
    settings = settings or ScoreSettings()
    showers, against = shower_path(showers), None if against is None else shower_path(against)
    beside = Path(out).with_suffix(".json")
    if beside == Path(out):
        raise OutputError(f"{out}: is where the summary goes; give --out the name of an HDF5 file, such as scores.h5")
    with sole_writer(out, force=force), note_on_interrupt(f"{out} was not written; give the same command again"):
        require_free(beside, force)  # asked before long work
        return _scored(
            model,
            showers,
            out,
            settings,
            against=against,
            base=base,
            detector=detector,
            force=force,
            quiet=quiet,
            command=command,
        )


def _scored(
    model: PathLike,
    showers: PathLike,
    out: PathLike,
    settings: ScoreSettings,
    *,
    against: PathLike | None,
    base: PathLike | None,
    detector: Detector | None,
    force: bool,
    quiet: bool,
    command: str,
) -> dict[str, Any]:
    loaded = load_model(model, base=base, detector=detector)
    names = scored_generators(loaded, settings)
    with ExitStack() as stack:
        files = [stack.enter_context(open_showers(path)) for path in (showers, against) if path is not None]
        loaded = fitted_to(loaded, files[0])
        for file in files:
            require_mesh(loaded, file)
            warn_of_file(file)
        rows = [_rows(file, loaded, settings) for file in files]
        if len(rows[0]) < FEWEST:
            raise ShowerFileError(
                f"{showers}: {len(rows[0])} showers to score are too few to find unlikely ones beside the trend in "
                f"energy; at least {FEWEST} are needed"
            )
        for file, chosen in zip(files, rows, strict=True):
            name = f"showers of {file.path.name}"
            warn_outside(loaded.outside_range(file.energy[chosen], file.theta[chosen], showers=name))
        scores = [
            score(loaded, file, settings, rows=chosen, quiet=quiet) for file, chosen in zip(files, rows, strict=True)
        ]
    judged = judge(*scores)
    attributes: dict[str, Any] = {
        "model": str(model),
        "base": loaded.base.config.name,
        "base_hash": loaded.base.hash,
        "shots": len(loaded.shots),
        "detector": loaded.detector.name,
        "generators": list(names),
        "showers": str(showers),
        "against": None if against is None else str(against),
        "settings": settings.model_dump(mode="json"),
        "command": command,
        "version": metacalo.__version__,
    }
    given: dict[str, Any] = {"model": shown_path(model), "showers": shown_path(showers), "out": Path(out).name}
    given |= {name: shown_path(path) for name, path in (("against", against), ("base", base)) if path is not None}
    inputs: dict[str, dict[str, Any]] = {"base": {"name": loaded.base.config.name, "hash": loaded.base.hash}}
    inputs |= {
        name: file_record(path) for name, path in (("showers", showers), ("against", against)) if path is not None
    }
    if detector is not None:
        given["detector"] = record_of(detector)
    where_from = provenance(
        "score", command, settings=attributes["settings"], arguments=given, inputs=inputs, device=settings.device
    )
    attributes[Path(FILE).stem] = json.dumps(where_from)
    found = {**attributes, Path(FILE).stem: where_from, **summary(judged, outliers=settings.outliers)}
    with atomic_file(out, force=force) as temporary:
        _write(temporary, judged, attributes)
        save_json(Path(out).with_suffix(".json"), found)
    return found


def _rows(file: ShowerFile, model: ShowerModel, settings: ScoreSettings) -> NDArray[np.int64]:
    rows = np.arange(len(file))
    if settings.unseen:
        rows = np.flatnonzero(~np.isin(file.hashes(), np.concatenate([model.shots, model.base.seen])))
        if len(rows) == 0:
            raise ShowerFileError(f"{file.path}: the model has seen every shower; score others, or leave --unseen out")
    if settings.at_most is not None and settings.at_most < len(rows):
        rows = np.sort(np.random.default_rng(settings.seed).choice(rows, settings.at_most, replace=False))
    return rows


def summary(judged: list[Judged], *, outliers: int = 10) -> dict[str, Any]:
    """Mean, spread and quantiles of each score, by energy, the least likely showers, the AUC against a second sample.

    The AUC is of the deviations from the trend, so that spectra of energy do not count; 0.5 = alike, 1 = every shower
    of the second sample is less likely than all of the first. Its error is Hanley and McNeil's.
    """
    first = judged[0]
    edges = np.unique(np.geomspace(first.scores.energy.min(), first.scores.energy.max(), _BINS + 1))
    found: dict[str, Any] = {"energy_edges_MeV": edges.tolist(), "scores": {}}
    for name in first.scores.values:
        entry = _figures(first, name, edges) | {"outliers": _least_likely(first, name, outliers)}
        if len(judged) > 1:
            entry["against"] = _figures(judged[1], name, edges) | _separation(first, judged[1], name)
        found["scores"][name] = entry
    return found


def _figures(judged: Judged, name: str, edges: Array) -> dict[str, Any]:
    values, energy = judged.scores.values[name], judged.scores.energy
    # the outer bins take what lies beyond
    bins = np.clip(np.searchsorted(edges, energy, side="right") - 1, 0, max(len(edges) - 2, 0))
    errors = judged.scores.errors.get(name)
    return {
        **_moments(values),
        "quantiles": {str(level): float(np.quantile(values, level)) for level in _QUANTILES},
        "estimate_error": None if errors is None else float(errors.mean()),
        "mean_deviation": float(judged.deviations[name].mean()),
        "by_energy": [_moments(values[bins == i]) for i in range(max(len(edges) - 1, 1))],
    }


def _moments(values: Array) -> dict[str, Any]:
    enough = len(values) > 0
    return {
        "showers": len(values),
        "mean": float(values.mean()) if enough else None,
        "std": float(values.std()) if enough else None,
    }


def _least_likely(judged: Judged, name: str, outliers: int) -> list[dict[str, Any]]:
    scores = judged.scores
    order = np.argsort(judged.deviations[name], kind="stable")[:outliers]
    return [
        {
            "row": int(scores.rows[i]),
            "energy_MeV": float(scores.energy[i]),
            "theta": float(scores.theta[i]),
            "phi": float(scores.phi[i]),
            "response": float(scores.response[i]),
            "score": float(scores.values[name][i]),
            "deviations": {other: float(values[i]) for other, values in judged.deviations.items()},
        }
        for i in order
    ]


def _separation(first: Judged, second: Judged, name: str) -> dict[str, float]:
    likely, unlikely = first.deviations[name], second.deviations[name]
    is_second = np.repeat([False, True], [len(likely), len(unlikely)])
    auc = float(roc_auc_score(is_second, -np.concatenate([likely, unlikely])))
    return {"auc": auc, "auc_error": auc_error(auc, len(likely), len(unlikely))}


def _write(path: Path, judged: list[Judged], attributes: Mapping[str, Any]) -> None:
    with new_hdf5(path) as (file, _):
        for name, value in attributes.items():
            file.attrs[name] = str(value) if isinstance(value, dict | list) or value is None else value
        for place, each in zip((file, "against"), judged, strict=False):
            group = file.create_group(place) if isinstance(place, str) else place
            for name, (values, units) in _datasets(each).items():
                group[name] = values
                group[name].attrs["units"] = units


def _datasets(judged: Judged) -> dict[str, tuple[NDArray[Any], str]]:
    scores = judged.scores
    conditions = (scores.rows, scores.energy, scores.theta, scores.phi, scores.response)
    made: dict[str, tuple[NDArray[Any], str]] = {
        name: (values, unit) for (name, unit), values in zip(_UNITS.items(), conditions, strict=True)
    }
    made |= {name: (values, "nat") for name, values in scores.values.items()}
    made |= {f"{name}_error": (values, "nat") for name, values in scores.errors.items()}
    made |= {f"{name}_deviation": (values, "robust standard deviations") for name, values in judged.deviations.items()}
    return made | {f"{name}_percentile": (values, "%") for name, values in judged.percentiles.items()}
