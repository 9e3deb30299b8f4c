"""`metacalo adapt`: from a few hundred showers of a new detector to its generator."""

from __future__ import annotations

import hashlib
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Literal

import numpy as np
from pydantic import Field

import metacalo
from metacalo.adaptation.adapt_generator import adapt_generator
from metacalo.adaptation.before_after import GeantSample, compare_models, warn_if_far
from metacalo.adaptation.methods import MethodSettings
from metacalo.detectors.condition_range import ConditionRange, left_range, warn_outside
from metacalo.detectors.detector import Detector
from metacalo.detectors.json_record import record_of
from metacalo.errors import ShowerFileError, UnknownNameError
from metacalo.generators.frozen import FrozenLibrary
from metacalo.generators.sampling_options import SamplingOptions
from metacalo.model_folders.adapted import ShowerModel, save_model, zero_shot
from metacalo.model_folders.base import GENERATORS, Base, resolve_base
from metacalo.normaliser.response import convention_scale
from metacalo.runtime.callable_module import make_callable
from metacalo.runtime.progress import bars
from metacalo.runtime.run_log import Clock, RunLog, require_tensorboard
from metacalo.runtime.signals import note_on_interrupt
from metacalo.runtime.threads import side_by_side
from metacalo.showers.sample_checks import warn_of_showers
from metacalo.showers.shower_file import ShowerFile, Showers
from metacalo.showers.tasks import resolve_task
from metacalo.storage.checkpoint import atomic_folder, save_json
from metacalo.storage.locking import sole_writer
from metacalo.storage.provenance import FILE, file_record, provenance, shown_path
from metacalo.training_data.shower_pool import ShowerPool

__all__ = ["AdaptResult", "AdaptSettings", "adapt", "adapt_into", "adapted_model", "draw_shots"]


class AdaptSettings(MethodSettings):
    """Everything that decides what an adapted model becomes."""

    base: str = Field(default="base", description="name or folder of the base")
    shots: int = Field(default=400, ge=2, description="showers to adapt to, drawn at random")
    generator: Literal["ar", "diffusion", "both", "frozen"] = Field(
        default="both",
        description="what is adapted; both = ar and diffusion, frozen = a library of the shots, without a network",
    )
    compared_showers: int = Field(
        default=200, ge=0, description="generated for the before/after comparison; 0 = no comparison"
    )
    sampling: SamplingOptions = Field(
        default=SamplingOptions(), description="how the model is sampled where nothing else is asked for"
    )

    @property
    def generators(self) -> tuple[str, ...]:
        """Names of the generators that are adapted; none where the shots become a library."""
        return {"both": GENERATORS, "frozen": ()}.get(self.generator, (self.generator,))


@dataclass(frozen=True)
class AdaptResult:
    """The adapted model and the figures of its run (`metrics.json`)."""

    model: ShowerModel
    metrics: dict[str, Any]
    out: Path


def adapt(
    detector: str | Path,
    out: str | Path,
    settings: AdaptSettings | None = None,
    *,
    described: Detector | None = None,
    force: bool = False,
    quiet: bool = False,
    command: str = "",
    log_dir: str | Path | None = None,
) -> AdaptResult:
    """Adapts a base to the showers of a detector and writes the model folder `out`.

    Args:
        detector: a shower file, a task folder or the name of a task.
        out: folder to write: what moved or the library, normaliser, config.json, metrics.json, provenance.json,
            profiles.png, profiles.pdf.
        settings: see `AdaptSettings`.
        described: takes the place of what the file says about its detector.
        force: replace an existing `out`.
        quiet: draw no bars.
        command: recorded with the result.
        log_dir: folder of losses and costs, for TensorBoard and as JSON lines; see `tracking`.

    Raises:
        ShowerFileError: the file cannot be read, or has fewer showers than shots.
        DetectorError: the detector is unknown, or its mesh is not the base's.
        UnknownNameError: no such base, task or generator.
        ConfigError: a generator has no parameters that the method moves.
        OutputError: `out` exists and not `force`, or cannot be written.
        MetacaloError: a frozen tensor changed, which would be a defect of metacalo.
    """
    if log_dir is not None:
        require_tensorboard()
    out, settings = Path(out), settings or AdaptSettings()
    with sole_writer(out, force=force), note_on_interrupt(f"{out} was not written; give the same command again"):
        place = atomic_folder(out, force=force)
        model, metrics = adapt_into(
            place, detector, settings, described=described, quiet=quiet, command=command, log_dir=log_dir
        )
    return AdaptResult(model, metrics, out)


def adapt_into(
    place: AbstractContextManager[Path],
    detector: str | Path,
    settings: AdaptSettings,
    *,
    described: Detector | None = None,
    quiet: bool = False,
    command: str = "",
    log_dir: str | Path | None = None,
) -> tuple[ShowerModel, dict[str, Any]]:
    """`adapt`, into a folder that may hold more than the model; returns the model and the figures of its run.

    Args:
        place: yields the folder; entered when there is something to write.
        detector: a shower file, a task folder or the name of a task.
        settings: see `AdaptSettings`.
        described: takes the place of what the file says about its detector.
        quiet: draw no bars.
        command: recorded with the result.
        log_dir: folder of losses and costs.

    Raises:
        MetacaloError: see `adapt`.
    """
    started = time.perf_counter()
    clock = Clock(settings.watts_per_core, settings.device)
    base = resolve_base(settings.base)
    for name in settings.generators:
        if name not in base.config.generators:
            raise UnknownNameError("generator", name, base.config.generators)
    task = resolve_task(detector, detector=described)
    with task.open() as file:
        rows = draw_shots(file, settings.shots, settings.seed)
        shots = file.load(rows)
        if len(np.unique(shots.hashes())) < 2:
            raise ShowerFileError(
                f"{file.path}: its {len(rows)} shots are copies of one shower; give showers that differ"
            )
        warn_of_showers(shots, task.path, rows)
        geant4 = GeantSample.draw(file, rows, settings.compared_showers, settings.seed + 1)
    whose = f"training of base '{base.config.name}'"
    warn_outside(left_range(base.trained_range, whose, shots.energy, shots.theta, "shots", "compare with Geant4 there"))
    before = zero_shot(base, task.detector, scale=convention_scale(shots.showers, shots.energy))
    model, runs = adapted_model(before, shots, settings, quiet=quiet, log_dir=log_dir)
    metrics: dict[str, Any] = {
        "base": {"name": base.config.name, "hash": base.hash},
        "detector": task.detector.name,
        "shots": {
            "file": Path(task.path).name,
            "group": task.group,
            "number": len(rows),
            "rows": rows.tolist(),
            "hash": hashlib.sha256(np.sort(model.shots).tobytes()).hexdigest(),
            "seen_in_pretraining": int(np.isin(model.shots, base.seen).sum()),
        },
        "generators": runs,
    }
    with place as folder:
        if geant4 is not None:
            metrics["fidelity"] = compare_models(
                before,
                model,
                geant4,
                folder / "profiles.png",
                seed=settings.seed,
                device=settings.device,
                autocast=settings.autocast,
            )
            warn_if_far(metrics["fidelity"], task.path)
        metrics["seconds"] = {"total": time.perf_counter() - started}
        metrics["cost"] = clock.read()
        metrics["settings"] = settings.model_dump(mode="json")
        metrics["command"] = command
        save_model(folder, model, metrics["settings"], metacalo.__version__, command)
        save_json(folder / "metrics.json", metrics)
        save_json(folder / FILE, _provenance(detector, task.path, base, settings, described, command))
    return model, metrics


def adapted_model(
    before: ShowerModel,
    shots: Showers,
    settings: AdaptSettings,
    *,
    quiet: bool = False,
    log_dir: str | Path | None = None,
) -> tuple[ShowerModel, dict[str, dict[str, Any]]]:
    """Normaliser and generators of `before` fitted to `shots`, or a library of them; with the record of each run.

    `quiet` draws no bars, for work in several processes whose bars would overwrite each other. Each generator has its
    log in a folder of `log_dir`.

    Raises:
        ConfigError, MetacaloError: see `adapt_generator`.
    """
    if settings.generator == "frozen":
        return _with_library(before, shots)
    normaliser = before.base.preprocessing.fit(shots, prior=before.normaliser)
    generators = {name: before.base.generator(name) for name in settings.generators}
    for generator in generators.values():
        settings.sampling.choose(generator)
    cells = any(generator.sees_cells for generator in generators.values())
    pool = ShowerPool(shots, normaliser, before.detector, cells=cells)
    stop = Event()
    with bars(quiet=quiet) as add:
        records = side_by_side(
            [
                partial(
                    adapt_generator,
                    generator,
                    pool,
                    settings,
                    bar=add(f"adapt {name}", settings.steps),
                    rates=before.base.rates(name),
                    log=RunLog(None if log_dir is None else Path(log_dir) / name, every=1),
                    stop=stop,
                )
                for name, generator in generators.items()
            ],
            settings.device,
            stop=stop,
        )
    runs = dict(zip(generators, records, strict=True))
    model = ShowerModel(
        before.base,
        before.detector,
        normaliser,
        generators,
        shots.hashes(),
        method=settings.method,
        sampling=settings.sampling,
        shots_range=_range(shots),
    )
    return model, runs


def _range(shots: Showers) -> ConditionRange:
    return ConditionRange.of(shots.energy, shots.theta, shots.phi)


def _with_library(before: ShowerModel, shots: Showers) -> tuple[ShowerModel, dict[str, dict[str, Any]]]:
    started = time.perf_counter()
    library = FrozenLibrary.from_shots(shots)
    model = replace(
        before, generators={}, shots=shots.hashes(), libraries={"frozen": library}, shots_range=_range(shots)
    )
    record = {"showers": len(library), "threshold_MeV": library.threshold}
    return model, {"frozen": {"seconds": time.perf_counter() - started, **record}}


def _provenance(
    detector: str | Path, file: Path, base: Base, settings: AdaptSettings, described: Detector | None, command: str
) -> dict[str, Any]:
    return provenance(
        "adapt",
        command,
        settings={**settings.model_dump(mode="json"), "base": shown_path(settings.base)},
        arguments={"detector": shown_path(detector), "described": record_of(described)},
        inputs={"detector": file_record(file), "base": {"name": base.config.name, "hash": base.hash}},
        device=settings.device,
    )


def draw_shots(file: ShowerFile, shots: int, seed: int) -> np.ndarray:
    """Row numbers of as many showers of a file, drawn without replacement, in order.

    Raises:
        ShowerFileError: the file has fewer showers.
    """
    if len(file) < 2:
        raise ShowerFileError(
            f"{file.path}: holds {len(file) or 'no'} shower; a detector is adapted to with 2 at least"
        )
    if len(file) < shots:
        raise ShowerFileError(
            f"{file.path}: holds {len(file)} showers, --shots {shots} wants more; ask for at most {len(file)}"
        )
    return np.sort(np.random.default_rng(seed).choice(len(file), shots, replace=False))


make_callable(__name__, adapt)
