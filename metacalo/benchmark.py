"""`metacalo benchmark`: what a shower of a model costs on this machine, beside full simulation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from pydantic import Field
from rich.table import Table

from metacalo.config import Seed, Settings
from metacalo.detectors.detector import Detector
from metacalo.errors import MetacaloError
from metacalo.export import ExportSettings, export
from metacalo.model_folders.adapted import ShowerModel, load_model
from metacalo.runtime.progress import track
from metacalo.typing import PathLike

__all__ = ["FULL_SIMULATION_MS_PER_GEV", "BenchmarkSettings", "Cost", "benchmark", "cost_table"]

FULL_SIMULATION_MS_PER_GEV = {
    ("W", "Si"): 22.0,
    ("Pb", "polystyrene"): 15.0,
    ("", "PbWO4"): 11.0,
    ("Pb", "lAr"): 22.0,
}
"""Geant4's milliseconds per GeV on one core for the detectors that ship, by absorber and active material.

Electrons at Par04's production thresholds, measured once on another machine: an order of magnitude, to compare with.
"""

_SECONDS = 20.0  # after which no further run of a row is begun
_BATCH = 100


class BenchmarkSettings(Settings):
    """What is timed."""

    energy: float = Field(default=50.0, gt=0, le=1e6, description="GeV, of all showers")
    showers: int = Field(default=_BATCH, ge=1, description="timed one by one, and as many in one batch")
    threads: int = Field(default=1, ge=1, description="threads of each run")
    seed: Seed = 1


@dataclass(frozen=True)
class Cost:
    """What a shower costs.

    Attributes:
        generator: of the model; empty for full simulation.
        way: what ran it.
        batch: showers at a time.
        milliseconds: of the wall, of the fastest run, per shower.
    """

    generator: str
    way: str
    batch: int
    milliseconds: float


def benchmark(
    model: PathLike,
    settings: BenchmarkSettings | None = None,
    *,
    base: PathLike | None = None,
    detector: Detector | None = None,
) -> list[Cost]:
    """Times every generator of a model in PyTorch, and in ONNX Runtime where that is installed.

    Args:
        model: folder of an adapted model; or a base, with `detector`.
        settings: see `BenchmarkSettings`.
        base: where the model's base lies, if not in `pretrained/`.
        detector: of a base at zero shots.

    Raises:
        MetacaloError: see `load_model`.
    """
    settings = settings or BenchmarkSettings()
    loaded = load_model(model, base=base, detector=detector)
    batches = sorted({1, settings.showers})
    costs = []
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with track("benchmark", 2 * len(loaded.generators) * len(batches)) as bar:
            for name in loaded.generators:
                runners = {"PyTorch": _in_torch(loaded, name, settings)}
                exported = _in_onnxruntime(model, name, settings, base, detector)
                runners |= {} if exported is None else {"ONNX Runtime": exported}
                for way, run in runners.items():
                    for batch in batches:
                        costs.append(Cost(name, way, batch, _fastest(run, batch, settings.showers)))
                        bar.advance()
    finally:
        torch.set_num_threads(threads)
    full = FULL_SIMULATION_MS_PER_GEV.get((loaded.detector.absorber, loaded.detector.active))
    return costs if full is None else [*costs, Cost("", "Geant4, measured once elsewhere", 1, full * settings.energy)]


def cost_table(costs: list[Cost], settings: BenchmarkSettings) -> Table:
    """The costs as a table."""
    slowest = max(costs, key=lambda cost: cost.milliseconds)
    full = next((cost for cost in costs if not cost.generator), None)
    table = Table(title=f"a shower of {settings.energy:g} GeV, threads: {settings.threads}")
    for column in ("generator", "run by", "showers at a time", "ms a shower", "speed-up over Geant4"):
        table.add_column(column, justify="left" if column in {"generator", "run by"} else "right")
    for cost in costs:
        ratio = "" if full is None or cost is full else f"{full.milliseconds / cost.milliseconds:.3g}"
        digits = 0 if slowest.milliseconds > 1e4 or cost is full else 1
        table.add_row(cost.generator, cost.way, str(cost.batch), f"{cost.milliseconds:.{digits}f}", ratio)
    return table


def _fastest(run: Callable[[int], None], batch: int, showers: int) -> float:
    """Milliseconds of a shower in the fastest of some runs, after one that is not timed."""
    run(batch)
    times: list[float] = []
    began = time.perf_counter()
    while not times or (len(times) < max(3, showers // batch) and time.perf_counter() - began < _SECONDS):
        started = time.perf_counter()
        run(batch)
        times.append(time.perf_counter() - started)
    return 1e3 * min(times) / batch


def _in_torch(model: ShowerModel, name: str, settings: BenchmarkSettings) -> Callable[[int], None]:
    sample, noise = model.sampler(name), torch.Generator().manual_seed(settings.seed)

    def run(batch: int) -> None:
        energy, theta = np.full(batch, 1e3 * settings.energy), np.full(batch, np.pi / 2)
        with torch.no_grad():
            sample(energy, theta, np.zeros(batch), noise)

    return run


def _in_onnxruntime(
    model: PathLike, name: str, settings: BenchmarkSettings, base: PathLike | None, detector: Detector | None
) -> Callable[[int], None] | None:
    """The exported generator with the interface of Par04's users or, of another mesh, by name; None where it cannot."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    with TemporaryDirectory() as folder:
        try:
            wanted = ExportSettings.build({"generator": name, "interface": "named"})
            file = export(model, Path(folder, "model.onnx"), wanted, base=base, detector=detector)
        except MetacaloError:
            return None
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def run(batch: int) -> None:
        values = {"energy": settings.energy, "theta": np.pi / 2, "phi": 0.0}
        given = {key: np.full(batch, value, np.float32) for key, value in values.items()}
        session.run(None, {**given, "seed": settings.seed + np.arange(batch)})

    return run
