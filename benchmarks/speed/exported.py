"""An exported generator against PyTorch: milliseconds of a shower, size, and whether the showers are the same.

    metacalo export --model out/pblar --out out/m.onnx && python -m benchmarks.speed exported --onnx out/m.onnx

Showers of both are drawn at the same energies, 1 to 100 GeV, and angles. Their distances stand beside those of two
halves of PyTorch's own; with the interface `named`, which takes a seed, showers of the same noise are compared one by
one too. Times are of one thread; beside the seconds of the wall, which other programs lengthen, are those of the CPU.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console

from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.errors import MetacaloError, ModelFolderError
from metacalo.evaluate import EvaluateSettings, compare
from metacalo.export.graph import ShowerGraph
from metacalo.export.interfaces import Named
from metacalo.generators.sampling_options import SamplingOptions
from metacalo.model_folders.adapted import ShowerModel, load_model
from metacalo.model_folders.base import resolve_base
from metacalo.runtime.progress import track
from metacalo.showers.shower_file import Showers
from metacalo.storage.checkpoint import load_json, save_json

__all__ = ["Exported", "agreement", "main", "timed"]

BATCH = 100
SAME_NOISE = 50  # showers that are compared one by one


class Exported:
    """An exported file with the PyTorch model that it was made of.

    Raises:
        MetacaloError: the file, its sidecar, or the model is not there.
    """

    def __init__(self, path: Path, model: str | None = None, *, threads: int = 1, optimised: bool = True) -> None:
        if not path.is_file():
            raise ModelFolderError(f"{path}: there is no such file; make it by 'metacalo export'")
        self.sidecar: dict[str, Any] = load_json(path.with_name(f"{path.name}.json"))
        self.generator = str(self.sidecar["generator"])
        grid = Grid(*(self.sidecar["mesh"][axis] for axis in ("n_r", "n_phi", "n_z")))
        detector = Detector.from_attributes(self.sidecar["detector"], grid, "detector")
        self.model = _model(model or self.sidecar["model"], detector)
        options = self.sidecar["settings"]
        chosen = SamplingOptions(**{name: options[name] for name in SamplingOptions.model_fields})
        chosen.choose(self.model.generators.get(self.generator))
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        levels = onnxruntime.GraphOptimizationLevel
        settings.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        self.session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    @property
    def named(self) -> bool:
        """Whether it takes a seed."""
        return bool(self.sidecar["interface"]["name"] == "named")

    def showers(self, energy: np.ndarray, theta: np.ndarray, phi: np.ndarray, first_seed: int = 0) -> np.ndarray:
        """Showers (n, R, PHI, Z) in MeV, of energies in MeV and angles in rad."""
        gev, theta, phi = (
            (values / scale).astype(np.float32) for values, scale in ((energy, 1e3), (theta, 1), (phi, 1))
        )
        if self.named:
            seed = first_seed + np.arange(len(gev))
            return np.asarray(self.session.run(None, {"energy": gev, "theta": theta, "phi": phi, "seed": seed})[0])
        conditions = np.zeros((len(gev), 8), np.float32)
        conditions[:, 0], conditions[:, 1], conditions[:, 2], conditions[:, 7] = gev, phi, theta, 1
        energies = np.asarray(self.session.run(None, {"conditions": conditions})[0])
        return 1e3 * energies.reshape(len(gev), *self.model.detector.grid.shape)


def _model(path: str, detector: Detector | None) -> ShowerModel:
    config = Path(path, "config.json")
    adapted = config.is_file() and load_json(config).get("kind") == "adapted"
    return load_model(path) if adapted else load_model(resolve_base(path).path, detector=detector)


def timed(run: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Milliseconds of the fastest run, of the wall and of the CPU, after one that is not timed."""
    run()
    walls: list[float] = []
    works: list[float] = []
    began = time.perf_counter()
    while len(walls) < 5 or (time.perf_counter() - began < seconds and len(walls) < 200):
        wall, work = time.perf_counter(), time.process_time()
        run()
        walls.append(time.perf_counter() - wall)
        works.append(time.process_time() - work)
    return 1e3 * min(walls), 1e3 * min(works)


def costs(file: Exported, seconds: float) -> dict[str, Any]:
    """Milliseconds of a shower of 50 GeV, in the file and in PyTorch, one by one and in a batch."""
    sample, noise = file.model.sampler(file.generator), torch.Generator().manual_seed(1)

    def of(batch: int) -> dict[str, Any]:
        at = np.full(batch, 5e4), np.full(batch, np.pi / 2), np.zeros(batch)
        with torch.no_grad():
            runs = {"exported": lambda: file.showers(*at), "PyTorch": lambda: sample(*at, noise)}
            measured = {name: timed(run, seconds) for name, run in runs.items()}
        return {name: {"wall": wall / batch, "cpu": cpu / batch} for name, (wall, cpu) in measured.items()}

    return {str(batch): of(batch) for batch in (1, BATCH)}


def agreement(file: Exported, n: int, seed: int = 1) -> dict[str, Any]:
    """Distances of `n` exported showers from as many of PyTorch, and of two halves of the latter."""
    rng = np.random.default_rng(seed)
    energy, theta = np.exp(rng.uniform(np.log(1e3), np.log(1e5), n)), rng.uniform(1.0, np.pi / 2, n)
    phi, parts = rng.uniform(-np.pi, np.pi, n), []
    with track("exported showers", n) as bar:
        for start in range(0, n, BATCH):
            rows = slice(start, start + BATCH)
            parts.append(file.showers(energy[rows], theta[rows], phi[rows], start))
            bar.advance(len(parts[-1]))
    detector = file.model.detector
    columns = [values.astype(np.float32) for values in (energy, theta, phi)]
    drawn = Showers(np.concatenate(parts), columns[0], columns[1], columns[2], detector)
    own = [part.showers for part in file.model.generate(file.generator, energy, theta, phi, seed=seed, autocast=False)]
    reference = Showers(np.concatenate(own), columns[0], columns[1], columns[2], detector)
    metrics = compare(drawn, reference, EvaluateSettings(classifiers=False))
    means = [showers.showers.mean(0, dtype=np.float64).ravel() for showers in (drawn, reference)]
    least = [float(showers.showers[showers.showers > 0].min()) for showers in (drawn, reference)]
    return {
        "showers": n,
        **{name: metrics[name] for name in ("mean_w1", "fpd", "response")},
        "mean_shower_cosine": float(means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])),
        "least_cell_MeV": {"exported": least[0], "PyTorch": least[1], "threshold": file.model.normaliser.threshold},
    }


def same_noise(file: Exported) -> dict[str, float] | None:
    """Differences from PyTorch shower by shower, in parts of their energies; None without seeds."""
    if not file.named:
        return None
    n, graph = SAME_NOISE, ShowerGraph(file.model, file.generator)
    energy, theta = torch.logspace(3, 5, n), torch.linspace(1.0, torch.pi / 2, n)
    seed = torch.arange(n)
    with torch.no_grad():
        expected = Named(graph)(energy / 1e3, theta, torch.zeros(n), seed).numpy()
    found = file.showers(energy.numpy(), theta.numpy(), np.zeros(n))
    difference = np.abs(found - expected).sum((1, 2, 3)) / expected.sum((1, 2, 3))
    return {
        "median": float(np.median(difference)),
        "largest": float(difference.max()),
        "within_1e-4": float((difference < 1e-4).mean()),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--onnx", type=Path, required=True, help="file that metacalo export wrote")
    made.add_argument("--model", help="what it was made of, if that is no longer where it was")
    made.add_argument("--showers", type=int, default=2000, help="of each kind; 0 = measure times only (2000)")
    made.add_argument("--seconds", type=float, default=5.0, help="of timing each row (5)")
    made.add_argument("--no-optimisation", action="store_true", help="as Par04 runs it by default")
    made.add_argument("--out", type=Path, help="JSON file for the figures")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses, runs and prints; an error that a user can cause is one sentence."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(soft_wrap=True, highlight=False)
    try:
        file = Exported(options.onnx, options.model, optimised=not options.no_optimisation)
        result: dict[str, Any] = {
            "command": shlex.join(["python", "-m", "benchmarks.speed", "exported", *arguments]),
            "megabytes": options.onnx.stat().st_size / 1e6,
            "milliseconds": costs(file, options.seconds),
            "same_noise": same_noise(file),
        }
        console.print(f"{options.onnx}: {file.generator}, {result['megabytes']:.1f} MB")
        for batch, ways in result["milliseconds"].items():
            for way, cost in ways.items():
                console.print(
                    f"batch {batch:>3}  {way:8}  {cost['wall']:8.2f} ms a shower, {cost['cpu']:.2f} of the CPU"
                )
        if result["same_noise"]:
            console.print("same noise: " + ", ".join(f"{k} {v:.2g}" for k, v in result["same_noise"].items()))
        if options.showers:
            result["agreement"] = found = agreement(file, options.showers)
            for name in ("mean_w1", "fpd"):
                one = found[name]
                console.print(f"{name}: {one['value']:.4f}, PyTorch against itself {one['floor']:.4f}")
            console.print(f"response: {found['response']}")
            console.print(
                f"cosine of mean showers: {found['mean_shower_cosine']:.6f}; least cell: {found['least_cell_MeV']}"
            )
        if options.out:
            save_json(options.out, result)
    except MetacaloError as error:
        sys.exit(f"exported: {error}")


if __name__ == "__main__":
    main()
