"""Bases of the meta-learning study: one start for each held-out detector, and one base of each algorithm from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from pydantic import Field, model_validator

from benchmarks.measuring import seconds_of_work
from metacalo.adapt import AdaptSettings
from metacalo.adaptation.methods import Method
from metacalo.config import Device, Settings
from metacalo.errors import ConfigError
from metacalo.evaluate.checks import FEWEST
from metacalo.generators.base import bf16
from metacalo.meta.algorithms import AlgorithmName, resolve_algorithm
from metacalo.meta.algorithms.base import query_loss, support_loss
from metacalo.meta.engines import EngineName, InnerLoop, resolve_engine
from metacalo.model_folders.base import Base, load_half, resolve_base, save_base, sees_cells
from metacalo.pretraining.plan import base_config
from metacalo.pretraining.settings import MetaSettings, PretrainSettings
from metacalo.pretraining.stages import Run, run_stage
from metacalo.storage.checkpoint import atomic_folder, load_json, save_json
from metacalo.training_data.episodes import Episode
from metacalo.training_data.few_shots import FewShotSettings
from metacalo.training_data.sampler import EpisodeSampler
from metacalo.training_data.task_streams import TrainingData, pretraining_tasks, training_data

__all__ = ["BASELINE", "StudySettings", "TrainedBase", "given_start", "trained_bases"]

BASELINE: AlgorithmName = "multitask"
"""The algorithm that the others must beat."""

RATES = (0.02, 0.1, 0.5, 2.0, 8.0)
"""Inner rates of which each algorithm gets the one whose inner loops lower the query loss most."""

_TRIALS = (2, 8)  # steps of the runs by which a step's time is measured
_SHORTEST = 0.2  # share of a trial that its steps take at least
_PROBED = 6  # episodes on which inner rates are judged


class StudySettings(Settings):
    """What decides the figures of the study; it can only be resumed with the same."""

    heldout: tuple[str, ...] = Field(default=("pblar", "pbwo4"), min_length=1)
    data: str | None = Field(default=None, description="folder of tasks in place of those that ship")
    detectors: int | None = Field(
        default=None, ge=2, description="to train on, those with most showers; by default all"
    )
    capacity: int = Field(default=4096, ge=1, description="showers of a detector, at most")
    start: Mapping[str, str] = Field(
        default={}, description="held-out task to a base to start from, in place of an own"
    )
    recipe: str | None = Field(default=None, description="TOML of `metacalo pretrain`, for the sizes of the networks")
    generator: Literal["ar", "diffusion"] = "diffusion"
    algorithms: tuple[AlgorithmName, ...] = (BASELINE, "fomaml", "maml", "anil", "meta-sgd", "cavia", "reptile")
    methods: tuple[Method, ...] = get_args(Method)
    best_method: Method = Field(
        default="conditioning+bias", description="with which bases of all algorithms are adapted"
    )
    shots: tuple[int, ...] = Field(default=(0, 10, 50, 100, 400, 1000), min_length=1)
    seeds: tuple[int, ...] = (1, 2, 3)
    showers: int = Field(default=1000, ge=FEWEST, description="generated, and of the reference, at most")
    start_seconds: float = Field(gt=0, description="training of each start on mixed batches")
    algorithm_seconds: float = Field(gt=0, description="training of each algorithm from there, on episodes")
    batch: int = Field(default=64, ge=1)
    engine: EngineName = "torch"
    few_shots: FewShotSettings = Field(
        default=FewShotSettings(), description="what normalisers the episodes are behind"
    )
    episodes: int = Field(default=4, ge=1, description="in a meta-batch")
    inner_steps: int = Field(default=2, ge=1)
    support: int = Field(default=8, ge=1, description="showers per inner step")
    query: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0, description="the highest of the algorithms")
    compile: bool = Field(default=True, description="torch.compile for the mixed batches of the starts")
    scratch_steps: int = Field(default=150, ge=1, description="of networks trained from scratch, at most")
    device: Device = "cpu"

    @model_validator(mode="after")
    def _can_be_studied(self) -> Self:
        message = None
        if BASELINE not in self.algorithms:
            message = f"algorithms leaves out '{BASELINE}', with which the others are compared; add it"
        elif min(self.shots) < 0 or 1 in self.shots:
            message = f"shots = {list(self.shots)}: 0, or 2 and more, are possible"
        elif stray := set(self.start) - set(self.heldout):
            message = f"start names '{min(stray)}', which is not held out; hold it out or leave it away"
        if message is not None:
            raise ValueError(message)
        return self

    def adaptation(self, method: Method, seed: int) -> AdaptSettings:
        """How a base is adapted."""
        return AdaptSettings(method=method, generator=self.generator, seed=seed, device=self.device)

    def training(self, heldout: str, **stage: Any) -> PretrainSettings:
        """A run that trains the study's generator alone; `stage` has its length and speed."""
        schedule = {"batch": self.batch, "warmup": 20, "average": 0.99, **stage}
        return PretrainSettings.resolve(
            self.recipe,
            name=f"no-{heldout}",
            tasks=() if self.data is None else (self.data,),
            holdout=(heldout,),
            device=self.device,
            generators=(self.generator,),
            capacity=self.capacity,
            distil={"steps": 0},
            minutes_between_states=1e6,
            train_tokenizer={
                "steps": max(1, schedule["steps"] // 3),
                "batch": self.batch,
                "learning_rate": 1.5e-3,
            },
            train_ar=schedule,
            train_diffusion=schedule,
        )


@dataclass(frozen=True)
class TrainedBase:
    """A base and how it came to be (`training.json` in its folder).

    Attributes:
        base: the base.
        steps: of the outer loop.
        seconds: that they took.
        inner_rate: None where there is no inner loop.
    """

    base: Base
    steps: int
    seconds: float
    inner_rate: float | None

    @classmethod
    def load(cls, folder: Path) -> TrainedBase:
        """Reads a folder that `trained_bases` left."""
        record = load_json(folder / "training.json")
        return cls(Base.load(folder), record["steps"], record["seconds"], record["inner_rate"])


def trained_bases(heldout: str, settings: StudySettings, out: Path) -> Iterator[tuple[str, TrainedBase]]:
    """(algorithm, base) of each algorithm; those that lie in `out` are read, others are trained and written there.

    All have the same start, and take steps on episodes for the same time; the baseline takes them on the same batches
    without an inner loop.
    """
    data: TrainingData | None = None
    for algorithm in settings.algorithms:
        folder = out / algorithm
        if not folder.exists():
            data = data or _data(heldout, settings)
            start = _start(heldout, settings, data, out / "start")
            _train(algorithm, heldout, settings, data, start, folder)
        yield algorithm, TrainedBase.load(folder)


def _data(heldout: str, settings: StudySettings) -> TrainingData:
    recipe = settings.training(heldout, steps=1)
    tasks = pretraining_tasks(recipe.tasks, recipe.holdout)
    if settings.detectors is not None:
        largest = sorted(tasks, key=lambda task: -task.n_showers)
        tasks = largest[: settings.detectors]
    data = training_data(
        tasks,
        reserve_one_in=recipe.reserve_one_in,
        capacity=recipe.capacity,
        few_shots=settings.few_shots,
        cells=sees_cells(recipe.tokenizer, recipe.diffusion),
    )
    for stream in data.streams:  # reads it into memory, or the first step that is timed would
        stream.draw_rows(1, torch.Generator())
        stream.drawn = 0
    return data


def given_start(heldout: str, settings: StudySettings) -> Base | None:
    """The base that the settings name as the start of a held-out task; None where they name none.

    Raises:
        ModelFolderError, UnknownNameError: there is no such base.
        ConfigError: it was trained on the task.
    """
    if heldout not in settings.start:
        return None
    base = resolve_base(settings.start[heldout])
    if heldout not in base.config.holdout:
        raise ConfigError(f"base '{base.config.name}' was not trained without '{heldout}'; start from another")
    return base


def _start(heldout: str, settings: StudySettings, data: TrainingData, folder: Path) -> Base:
    """The base from which all algorithms go on."""
    if (given := given_start(heldout, settings)) is not None:
        return given
    if not folder.exists():
        recipe = settings.training(heldout, steps=1, learning_rate=2e-3, last_rate=1.0)
        meta = MetaSettings(algorithm=BASELINE, start=1.0)
        recipe = recipe.model_copy(update={"meta": meta, "compile": settings.compile})
        steps = _steps_in(settings.start_seconds, recipe, data, None, folder)
        _run(_of_length(recipe, steps), data, None, folder, {"inner_rate": None})
    return Base.load(folder)


def _train(
    algorithm: AlgorithmName, heldout: str, settings: StudySettings, data: TrainingData, start: Base, folder: Path
) -> None:
    meta = MetaSettings(
        algorithm=algorithm,
        engine=settings.engine,
        start=0.0,
        tasks=settings.episodes,
        inner_steps=settings.inner_steps,
        support=settings.support,
        query=settings.query,
        few_shots=settings.few_shots,
    )
    rate = _inner_rate(meta, settings, data, start)
    meta = meta if rate is None else meta.model_copy(update={"inner_rate": rate})
    recipe = settings.training(heldout, steps=1, learning_rate=settings.learning_rate)
    recipe = recipe.model_copy(update={"meta": meta, "name": f"no-{heldout}-{algorithm}"})
    steps = _steps_in(settings.algorithm_seconds, recipe, data, start, folder)
    _run(_of_length(recipe, steps), data, start, folder, {"inner_rate": rate})


def _inner_rate(meta: MetaSettings, settings: StudySettings, data: TrainingData, start: Base) -> float | None:
    """Of `RATES`, that with the least query loss after the inner loops of the same episodes and noise."""
    kind = resolve_algorithm(meta.algorithm)
    subspace = kind.inner_subspace(meta.subspace)
    if subspace is None:
        return None
    sampler = EpisodeSampler(data.streams, torch.Generator().manual_seed(5), exponent=meta.task_exponent)
    episodes = sampler.episodes(_PROBED, inner_steps=meta.inner_steps, support=meta.support, query=meta.query)
    model, engine = start.generator(settings.generator).to(settings.device), resolve_engine(meta.engine)
    moved = model.subspace(subspace)

    def after(episode: Episode, rate: float) -> float:
        noise = torch.Generator().manual_seed(6)
        loop = InnerLoop(moved, rate, steps=meta.inner_steps, second_order=False)
        episode = episode.to(settings.device)
        with bf16(settings.device):
            fast = engine.adapt(model, loop, support_loss(episode, noise))
            with torch.no_grad():
                return float(query_loss(episode, noise)(fast))

    return min(RATES, key=lambda rate: sum(after(episode, rate) for episode in episodes))


def _of_length(recipe: PretrainSettings, steps: int) -> PretrainSettings:
    lengths = {"tokenizer": max(1, steps // 3), "ar": steps, "diffusion": steps}
    changed = {
        f"train_{s}": getattr(recipe, f"train_{s}").model_copy(update={"steps": lengths[s]}) for s in recipe.stages
    }
    return recipe.model_copy(update=changed)


def _steps_in(seconds: float, recipe: PretrainSettings, data: TrainingData, initial: Base | None, folder: Path) -> int:
    """Steps that take so many seconds, by the time that a longer trial needs more than a shorter one."""
    work = folder.with_name(folder.name + ".trial")
    if recipe.compile:  # not to be timed
        _stages(_of_length(recipe, _TRIALS[1]), data, initial, work)
    short, long = (_stages(_of_length(recipe, steps), data, initial, work) for steps in _TRIALS)
    shutil.rmtree(work)
    per_step = max(long - short, _SHORTEST * long) / (_TRIALS[1] - _TRIALS[0])
    return max(1, round(seconds / per_step))


def _stages(recipe: PretrainSettings, data: TrainingData, initial: Base | None, work: Path) -> float:
    """Runs the recipe's stages in a fresh folder; the seconds that it took."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    run = Run(recipe, base_config(recipe, data.grid, data.counts, initial), data, initial, work)
    started = seconds_of_work(recipe.device)
    for stage in recipe.stages:
        run_stage(stage, run, resume=False)
    return seconds_of_work(recipe.device) - started


def _run(
    recipe: PretrainSettings, data: TrainingData, initial: Base | None, folder: Path, record: Mapping[str, Any]
) -> None:
    """Trains and writes a base."""
    work = folder.with_name(folder.name + ".work")
    seconds = _stages(recipe, data, initial, work)
    config = base_config(recipe, data.grid, data.counts, initial)
    stems = [*recipe.stages, *(f"{name}-rates" for name in config.learned_rates)]
    weights = {stem: load_half(work / f"{stem}.safetensors") for stem in stems}
    steps = recipe.stage_settings(recipe.stages[-1]).steps
    with atomic_folder(folder) as made:
        save_base(made, config, data.hyperprior if initial is None else initial.hyperprior, data.seen, weights)
        save_json(made / "training.json", {"steps": steps, "seconds": seconds, **record})
    shutil.rmtree(work)
