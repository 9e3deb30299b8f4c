"""What pretraining draws from: training rows, normalisers and streams of every task, and the hyperprior over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from metacalo.errors import ConfigError
from metacalo.normaliser.preprocessing import PREPROCESSING, DetectorPrior, Preprocessing
from metacalo.runtime.progress import Track, track
from metacalo.showers.sample_checks import warn_of_showers
from metacalo.showers.shower_file import ShowerFile, Showers
from metacalo.showers.tasks import Task, discover_tasks, training_tasks
from metacalo.training_data.episodes import TaskStream, is_reserved
from metacalo.training_data.few_shots import FewShotSettings, FewShotStream, draw_few_shots
from metacalo.training_data.portions import Portions
from metacalo.typing import PathLike

__all__ = ["TrainingData", "pretraining_tasks", "training_data"]

_NONE = FewShotSettings(draws=0)
_HASHED = 4096  # showers between two moves of the bar


@dataclass(frozen=True)
class TrainingData:
    """The tasks of a pretraining run.

    Attributes:
        streams: one for each task.
        hyperprior: fitted over the tasks.
        seen: content hashes of all training rows, int64.
        counts: task to its number of training rows.
        grid: cells of the mesh that all tasks share, (r, phi, z).
    """

    streams: list[TaskStream]
    hyperprior: DetectorPrior
    seen: np.ndarray
    counts: dict[str, int]
    grid: tuple[int, int, int]


def pretraining_tasks(folders: Sequence[PathLike], holdout: Sequence[str]) -> list[Task]:
    """The tasks of `folders` (by default: those that ship) but those held out; all have the same mesh.

    Raises:
        ConfigError: no task is left, or their meshes differ.
        UnknownNameError: a held-out task is not known.
        ShowerFileError, DetectorError: a task cannot be read.
    """
    tasks = training_tasks(discover_tasks(*folders), holdout)
    if not tasks:
        raise ConfigError("no task is left to train on; hold out fewer or give more by --tasks")
    grids = {task.detector.grid.shape for task in tasks}
    if len(grids) != 1:
        raise ConfigError(f"the tasks have different grids ({', '.join(map(str, sorted(grids)))}); train one base each")
    return tasks


def training_data(
    tasks: Sequence[Task],
    *,
    reserve_one_in: int,
    capacity: int,
    preprocessing: Preprocessing = PREPROCESSING["tables"],
    few_shots: FewShotSettings = _NONE,
    cells: bool = True,
    seed: int = 0,
    quiet: bool = False,
) -> TrainingData:
    """Reads tasks, see `pretraining_tasks`, and fits their normalisers.

    Args:
        tasks: of one mesh.
        reserve_one_in: one shower in so many, by content hash, is kept out of training; 0 = none.
        capacity: showers of a task that are held in memory (of a larger one the next as many as well), and that its
            normaliser is fitted on.
        preprocessing: the way from showers to latents.
        few_shots: with `draws`, episodes are those of `FewShotStream`.
        cells: whether the generators see the latents of cells.
        seed: of the portions that larger tasks are read in.
        quiet: draw no bars.

    Raises:
        ShowerFileError, DetectorError: a task cannot be read.
    """
    rows, seen = [], []

    def samples() -> Iterator[tuple[Showers, np.ndarray]]:
        with track("normalisers", sum(task.n_showers for task in tasks), quiet=quiet) as bar:
            for task in tasks:
                with task.open() as file:
                    hashes = _hashes(file, bar)
                    chosen = np.flatnonzero(~is_reserved(hashes, reserve_one_in))
                    showers = file.load(sample := Portions.of(file, chosen, capacity, seed).sample())
                warn_of_showers(showers, f"task '{task.name}' ({task.path})", sample)
                rows.append(chosen)
                seen.append(hashes[chosen])
                yield showers, task.detector.descriptors()

    normalisers, prior = preprocessing.fit_detectors(samples())
    thread = ThreadPoolExecutor(1, thread_name_prefix="showers")  # one for all tasks: never two portions read at a time
    streams = [
        TaskStream(task, normaliser, training_rows, capacity, cells=cells, seed=seed, thread=thread)
        for task, training_rows, normaliser in zip(tasks, rows, normalisers, strict=True)
    ]
    if few_shots.draws:
        rng, few = np.random.default_rng(0), []
        with track("normalisers of few showers", len(tasks), quiet=quiet) as bar:
            for task, training_rows, normaliser in zip(tasks, rows, normalisers, strict=True):
                with task.open() as file:
                    showers = file.load(Portions.of(file, training_rows, capacity, seed).sample())
                met = draw_few_shots(task, showers, prior, preprocessing, few_shots, rng, cells=cells)
                few.append(
                    FewShotStream(task, normaliser, training_rows, capacity, met, cells=cells, seed=seed, thread=thread)
                )
                bar.advance()
        streams = [*few]
    counts = {task.name: len(training_rows) for task, training_rows in zip(tasks, rows, strict=True)}
    return TrainingData(streams, prior, np.concatenate(seen), counts, tasks[0].detector.grid.shape)


def _hashes(file: ShowerFile, bar: Track) -> np.ndarray:
    """Content hashes of all showers of a file, of which few are in memory at a time."""
    found = []
    for start in range(0, len(file), _HASHED):
        found.append(file.hashes(slice(start, start + _HASHED)))
        bar.advance(len(found[-1]))
    return np.concatenate(found)
