from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from metacalo.meta.episodes import TaskStream
from metacalo.showers import Task, data_folder, resolve_task
from metacalo.showers.normalise import Normaliser, fit_normaliser


def fit(task: Task, rows: np.ndarray) -> Normaliser:
    with task.open() as file:
        showers = file.load(rows)
    return fit_normaliser(showers.showers, showers.energy.astype(np.float64))


@pytest.fixture(scope="session")
def two_tasks() -> dict[str, tuple[Task, Normaliser]]:
    """SiW and PbWO4 with the normalisers of their first 40 showers."""
    tasks = [resolve_task(data_folder("tasks") / name) for name in ("siw", "pbwo4")]
    return {task.name: (task, fit(task, np.arange(40))) for task in tasks}


@pytest.fixture
def stream(two_tasks: dict[str, tuple[Task, Normaliser]]) -> Callable[..., TaskStream]:
    """(task, number of showers, capacity) to a fresh stream of the task's first showers."""

    def make(name: str, n: int = 40, capacity: int = 4096) -> TaskStream:
        task, normaliser = two_tasks[name]
        return TaskStream(task, normaliser, np.arange(n), capacity)

    return make


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision for all that is made and drawn."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
