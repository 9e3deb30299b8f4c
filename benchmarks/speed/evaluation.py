"""How long `metacalo evaluate` takes, and how much memory.

    python -m benchmarks.speed evaluation --showers 10000

A task's showers, cut into two halves and repeated turned in phi until there are as many as wanted, are written to two
files and compared with each other as `metacalo evaluate` does: first without classifiers, then with them, each in a
process of its own, whose memory is measured. Copies make the figures of the comparison itself meaningless.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import peak_memory, workers
from metacalo.errors import MetacaloError
from metacalo.evaluate import EvaluateSettings, evaluate_files
from metacalo.evaluate.observables import observables
from metacalo.showers import Showers, resolve_task, write_showers


def repeated(showers: Showers, rows: np.ndarray, n: int) -> Showers:
    """The rows again and again until there are n, turned by a cell in phi each time."""
    chosen = showers.select(np.resize(rows, n))
    for row in range(n):
        chosen.showers[row] = np.roll(chosen.showers[row], row // len(rows), axis=1)
    return chosen


def judged(paths: tuple[Path, Path], settings: EvaluateSettings) -> dict[str, float]:
    """Seconds and peak memory in GiB of one evaluation."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        evaluate_files(paths[0], paths[1], Path(folder) / "out", settings=settings)
    return {"seconds": time.perf_counter() - started, "memory_GiB": peak_memory()}


def _observables(showers: Showers) -> float:
    """Million voxels a second."""
    started = time.process_time()
    observables(showers.showers, showers.energy)
    return showers.showers.size / (time.process_time() - started) / 1e6


def run(task: str, n: int, threads: int) -> dict[str, Any]:
    """Rates, seconds and memory."""
    with resolve_task(task).open() as file:
        showers = file.load()
    rows = np.arange(len(showers))
    halves = [repeated(showers, rows[start::2], n) for start in (0, 1)]
    found: dict[str, Any] = {"observables": _observables(halves[0])}
    ways = {
        "without classifiers": EvaluateSettings(classifiers=False, max_showers=n),
        "without, CaloChallenge mode": EvaluateSettings(classifiers=False, calochallenge=True, max_showers=n),
        "with classifiers": EvaluateSettings(max_showers=n),
    }
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder) / "generated.h5", Path(folder) / "reference.h5"
        for path, half in zip(paths, halves, strict=True):
            write_showers(path, half)
        del halves
        for name, settings in ways.items():
            with workers(1, threads) as pool:  # a fresh process each
                found[name] = pool.submit(judged, paths, settings).result()
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="siw")
    parser.add_argument("--showers", type=int, default=10_000, help="of either file")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args(arguments)
    try:
        found = run(chosen.task, chosen.showers, chosen.threads)
    except MetacaloError as error:
        Console(stderr=True, soft_wrap=True).print(f"evaluation: {error}", markup=False)
        raise SystemExit(2) from None
    table = Table("evaluation", "seconds", "memory [GiB]", title=f"{chosen.showers:,} showers against as many")
    for name, figures in found.items():
        if name != "observables":
            table.add_row(name, f"{figures['seconds']:.0f}", f"{figures['memory_GiB']:.2f}")
    Console().print(table)
    Console().print(f"observables: {found['observables']:.0f} million voxels a second on one core")


if __name__ == "__main__":
    main()
