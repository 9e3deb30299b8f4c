from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from metacalo.errors import MissingExtraError
from metacalo.meta.engines import ENGINES, Engine, resolve_engine
from metacalo.normaliser.fitting import fit_normaliser
from metacalo.normaliser.normaliser import Normaliser
from metacalo.showers import Showers, Task, data_folder, resolve_task
from metacalo.training_data.episodes import TaskStream
from metacalo.training_data.shower_pool import ShowerPool
from tests.small import draw_copula, draw_longitudinal

N_SHOWERS = 40


def first_showers(task: Task) -> Showers:
    with task.open() as file:
        return file.load(slice(0, N_SHOWERS))


@pytest.fixture(scope="session")
def two_tasks() -> dict[str, tuple[Task, Normaliser]]:
    """SiW and PbWO4 with the normalisers of their first 40 showers, correlations in common and of their layers."""
    copula, found = draw_copula((9, 16, 45)), {}
    for seed, name in enumerate(("siw", "pbwo4")):
        task = resolve_task(data_folder("tasks") / name)
        showers = first_showers(task)
        normaliser = fit_normaliser(showers.showers, showers.energy, showers.theta)
        found[task.name] = (task, replace(normaliser, copula=copula, longitudinal=draw_longitudinal((9, 16, 45), seed)))
    return found


@pytest.fixture(scope="session")
def pool(two_tasks: dict[str, tuple[Task, Normaliser]]) -> Callable[..., ShowerPool]:
    """(task, changes to its normaliser) to the pool of its 40 showers."""

    def make(name: str, **changes: object) -> ShowerPool:
        task, normaliser = two_tasks[name]
        return ShowerPool(first_showers(task), replace(normaliser, **changes), task.detector)

    return make


@pytest.fixture
def stream(two_tasks: dict[str, tuple[Task, Normaliser]]) -> Callable[..., TaskStream]:
    """(task, number of showers, capacity, more options) to a fresh stream of the task's first showers."""

    def make(name: str, n: int = 40, capacity: int = 4096, **options: Any) -> TaskStream:
        task, normaliser = two_tasks[name]
        return TaskStream(task, normaliser, np.arange(n), capacity, **options)

    return make


@pytest.fixture(scope="session", params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    """Every engine whose library is installed."""
    try:
        return resolve_engine(request.param)
    except MissingExtraError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """What reads ahead."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def double() -> Iterator[None]:
    """Double precision for all that is made and drawn."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
