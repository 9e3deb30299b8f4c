"""A study with an objective that costs nothing, and workers of it in processes of their own."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import Trial

from metacalo.sweep.study import SeededTPE, join_study, pruner_of
from metacalo.sweep.trial_storage import close_storage, open_storage, storage_url
from metacalo.sweep.trial_worker import Worker

HEARTBEAT = 0.3
"""Seconds between two signs of life."""

IDENTITY = {"detector": "toy", "shots": 400, "seed": 1}

OPEN: list[BaseStorage] = []
"""Storages of this process, for a fixture to close."""

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.sweep.toy"])


def join(storage: str, *, name: str = "toy", **identity: object) -> Study:
    OPEN.append(open_storage(storage_url(storage)))
    return join_study(
        OPEN[-1],
        name,
        {**IDENTITY, **identity},
        {"x": 0.5},
        objectives=1,
        sampler=SeededTPE(seed=1, startup=3),
        pruner=pruner_of("median", 40, 3),
    )


def close() -> None:
    while OPEN:
        close_storage(OPEN.pop())


def square(trial: Trial) -> list[float]:
    return [(trial.suggest_float("x", -1, 1) - 0.2) ** 2]


def work(storage: str, trials: int, mark: Path, awaited: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: Trial) -> list[float]:
        found = square(trial)
        mark.touch()
        while not awaited.exists():
            time.sleep(0.02)
        return found

    Worker(join(storage), objective, trials).run()
    close()


def start(storage: str, trials: int, mark: Path, awaited: Path) -> multiprocessing.Process:
    """A worker whose trials make the file `mark` and end when the file `awaited` is there."""
    process = _CONTEXT.Process(target=work, args=(storage, trials, mark, awaited))
    process.start()
    return process
