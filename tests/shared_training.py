"""Short stages of pretraining on one process or several: `torchrun tests/shared_training.py FOLDER` runs them all."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metacalo.model_folders.base import BaseConfig
from metacalo.normaliser.fitting import fit_normaliser
from metacalo.pretraining.plan import base_config
from metacalo.pretraining.settings import PretrainSettings, Stage
from metacalo.pretraining.stages import _STAGES, Run, _Training, run_stage
from metacalo.runtime.distributed import Ranks, joined_ranks
from metacalo.showers import Task, data_folder, resolve_task
from metacalo.storage.checkpoint import save_json, save_tensors
from metacalo.training_data.episodes import TaskStream
from metacalo.training_data.task_streams import TrainingData
from tests.small import draw_copula, draw_longitudinal

ALGORITHMS = ("maml", "fomaml", "anil", "meta-sgd", "cavia", "reptile", "multitask")
RESUMED = "resumed"
CASES: dict[str, tuple[Stage, dict[str, Any]]] = {
    "tokenizer": ("tokenizer", {}),
    "ar": ("ar", {}),
    **{algorithm: ("diffusion", {"meta": algorithm}) for algorithm in ALGORITHMS},
    "distil": ("distil", {}),
    RESUMED: ("diffusion", {"meta": "meta-sgd", "steps": 52, "start": 0.9}),
}
"""What is run, by name: the stage, and what is not as in `settings_of`. `resumed` keeps a state after 50 steps."""


def settings_of(meta: str = "fomaml", steps: int = 4, start: float = 0.5) -> PretrainSettings:
    stage = {"steps": steps, "batch": 6, "warmup": 2, "weight_decay": 0.1}
    network = {"width": 12, "blocks": 1, "heads": 2}
    adapted = {**network, "rank": 1, "embedding": 2}
    return PretrainSettings.build(
        {
            "autocast": False,
            "slices": 3,
            "minutes_between_states": 0.0,
            "tokenizer": {
                "patch": (9, 16, 15),
                **network,
                # so many codes for 18 vectors that dead ones are revived at random
                "quantizer": {"size": 12, "depth": 2, "code_width": 4},
            },
            "prior": {**adapted, "bins": 8},
            "diffusion": {"dit": {"patch": (9, 16, 15), **adapted}},
            "train_tokenizer": stage,
            "train_ar": stage,
            "train_diffusion": stage,
            "distil": stage,
            "meta": {"algorithm": meta, "start": start, "tasks": 3, "inner_steps": 2, "support": 2, "query": 2},
        }
    )


@cache
def data() -> TrainingData:
    """Two tasks of SiW's first showers, behind one normaliser, read in parts of 13."""
    task = resolve_task(data_folder("tasks") / "siw")
    with task.open() as file:
        showers = file.load(slice(0, 40))
    fitted = fit_normaliser(showers.showers, showers.energy, showers.theta)
    grid = task.detector.grid.shape
    normaliser = replace(fitted, copula=draw_copula(grid), longitudinal=draw_longitudinal(grid))
    names = ("first", "second")
    streams = [
        TaskStream(Task(name, task.detector, task.path, task.group, 40), normaliser, rows, capacity=13)
        for name, rows in zip(names, np.split(np.arange(40), 2), strict=True)
    ]
    return TrainingData(streams, None, np.zeros(0, np.int64), dict.fromkeys(names, 20), grid)  # type: ignore[arg-type]


def train(case: str, work: Path, ranks: Ranks, *, resume: bool = False) -> dict[str, Tensor]:
    """The weights of a stage, its learned rates among them, after the last step and without rounding."""
    stage, changes = CASES[case]
    settings = settings_of(**changes)
    config: BaseConfig = base_config(settings, data().grid, data().counts, None, "")
    run = Run(settings, config, data(), None, work, ranks)
    if ranks.first:
        work.mkdir(parents=True, exist_ok=True)
    ranks.wait()
    if stage == "ar":
        run_stage("tokenizer", run, resume=False)
    if stage == "distil":
        run_stage("diffusion", run, resume=False)
    result = _STAGES[stage](_Training.begun(stage, run, resume=resume))
    return {**result.weights, **{f"rates/{name}": rate for name, rate in result.rates.items()}}


def main(folder: Path) -> None:
    """All cases, and the last steps of `resumed` from the state that one process has left in `one/resumed`."""
    torch.set_num_threads(1)
    with joined_ranks() as ranks:
        for case in CASES:
            weights = train(case, folder / "two" / case, ranks)
            save_tensors(folder / f"{case}-{ranks.rank}.safetensors", weights)
        ranks.wait()
        weights = train(RESUMED, folder / "one" / RESUMED, ranks, resume=True)
        save_tensors(folder / f"one-to-two-{ranks.rank}.safetensors", weights)
        save_json(folder / f"ranks-{ranks.rank}.json", {"world": ranks.world})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
