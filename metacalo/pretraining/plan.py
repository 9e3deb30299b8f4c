"""`metacalo pretrain --dry-run`: what a run would do, printed before anything is fitted, trained or written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.markup import escape
from rich.table import Table

import metacalo
from metacalo.detectors.condition_range import ConditionRange
from metacalo.detectors.detector import DESCRIPTORS
from metacalo.errors import ConfigError, UnknownNameError
from metacalo.meta.algorithms import MetaSGD, resolve_algorithm
from metacalo.meta.engines import resolve_engine
from metacalo.model_folders.base import Base, BaseConfig, build_generator, resolve_base
from metacalo.models.subspaces import SubspaceName
from metacalo.normaliser.condition_vector import condition_size
from metacalo.pretraining.settings import MetaSettings, PretrainSettings, Stage
from metacalo.showers.tasks import Task
from metacalo.training_data.distribution import task_probabilities
from metacalo.training_data.task_streams import pretraining_tasks

__all__ = ["GeneratorPlan", "PretrainPlan", "StagePlan", "TaskPlan", "base_config", "plan_pretraining", "plan_tables"]


@dataclass(frozen=True)
class StagePlan:
    """The steps of a stage.

    Attributes:
        name: of the stage.
        mixed_steps: steps on mixed batches.
        batch: showers of a mixed batch.
        meta_steps: outer steps, each on a meta-batch of episodes.
    """

    name: Stage
    mixed_steps: int
    batch: int
    meta_steps: int


@dataclass(frozen=True)
class GeneratorPlan:
    """What the inner loop moves of a generator.

    Attributes:
        name: of the generator.
        subspace: of its inner loop; None without one.
        inner: number of parameters in it.
        trainable: number of all that are not frozen.
    """

    name: str
    subspace: SubspaceName | None
    inner: int
    trainable: int


@dataclass(frozen=True)
class TaskPlan:
    """A task of the run.

    Attributes:
        name: of the task.
        showers: in its file, of which one in `PretrainSettings.reserve_one_in` is kept out.
        probability: of being drawn, for an episode or for one shower of a mixed batch.
        energy: lowest and highest incident energy in GeV.
        angle: least and largest angle to the normal of the layers, |theta - pi/2|, in rad.
    """

    name: str
    showers: int
    probability: float
    energy: tuple[float, float]
    angle: tuple[float, float]


@dataclass(frozen=True)
class PretrainPlan:
    """Everything that `plan_tables` shows."""

    settings: PretrainSettings
    stages: tuple[StagePlan, ...]
    generators: tuple[GeneratorPlan, ...]
    tasks: tuple[TaskPlan, ...]


def plan_pretraining(settings: PretrainSettings, stages: Sequence[Stage] | None = None) -> PretrainPlan:
    """What `pretrain` would do with these settings; it reads no shower, only their energies and angles.

    Raises:
        MetacaloError: as `pretrain` would, before its first step.
    """
    chosen = settings.chosen_stages(stages)
    tasks = pretraining_tasks(settings.tasks, settings.holdout)[: settings.most_tasks]
    initial = resolve_base(settings.initial) if settings.initial else None
    counts = {task.name: task.n_showers for task in tasks}
    config = base_config(settings, tasks[0].detector.grid.shape, counts, initial)
    probabilities = task_probabilities(list(counts.values()), settings.meta.task_exponent)
    return PretrainPlan(
        settings,
        tuple(_stage(name, settings) for name in chosen),
        tuple(_generator(name, config, settings.meta) for name in settings.generators if name in chosen),
        tuple(_task(task, share) for task, share in zip(tasks, probabilities.tolist(), strict=True)),
    )


def base_config(
    settings: PretrainSettings,
    grid: tuple[int, int, int],
    trained_on: Mapping[str, int],
    initial: Base | None,
    command: str = "",
    *,
    seen: ConditionRange | None = None,
) -> BaseConfig:
    """What the base of these settings will be, before it is distilled.

    Args:
        settings: the recipe.
        grid: cells of the mesh that all tasks share, (r, phi, z).
        trained_on: task to its number of showers.
        initial: base to go on from.
        command: recorded with the base.
        seen: energies and angles of the showers; by default those of the tasks that ship.

    Raises:
        ConfigError: `initial` is for another mesh.
        UnknownNameError: `initial` lacks a generator.
    """
    if initial is not None and (initial.config.grid, initial.config.descriptors) != (grid, DESCRIPTORS):
        raise ConfigError(
            f"base '{initial.config.name}' is for a grid of {initial.config.grid} cells and its own descriptors, the "
            f"tasks have {grid}; start without --initial"
        )
    for name in settings.generators:
        if initial is not None and name not in initial.config.generators:
            raise UnknownNameError(f"generator of base '{initial.config.name}'", name, initial.config.generators)
    sizes = settings if initial is None else initial.config
    seen = seen or ConditionRange.shipped()
    if initial is not None:
        seen = seen.union(initial.config.trained_range)
    learns_rates = issubclass(resolve_algorithm(settings.meta.algorithm), MetaSGD)
    return BaseConfig(
        name=settings.name,
        version=metacalo.__version__,
        grid=grid,
        condition_size=condition_size(len(DESCRIPTORS)),
        descriptors=DESCRIPTORS,
        energy_range_MeV=seen.energy_MeV,
        theta_range=seen.theta_rad,
        preprocessing=sizes.preprocessing,
        tokenizer=sizes.tokenizer,
        prior=sizes.prior,
        diffusion=sizes.diffusion,
        generators=settings.generators,
        learned_rates=settings.generators if learns_rates else (),
        trained_on=dict(trained_on),
        holdout=settings.holdout,
        pretrain=settings.model_dump(mode="json"),
        command=command,
    )


def _stage(name: Stage, settings: PretrainSettings) -> StagePlan:
    length = settings.stage_settings(name)
    mixed = settings.meta.mixed_steps(length.steps) if name in settings.generators else length.steps
    return StagePlan(name, mixed, length.batch, length.steps - mixed)


def _generator(name: str, config: BaseConfig, meta: MetaSettings) -> GeneratorPlan:
    model = build_generator(name, config)
    kind = resolve_algorithm(meta.algorithm)
    algorithm = kind(model, resolve_engine(meta.engine), rate=meta.inner_rate, subspace=meta.subspace)
    inner, trainable = (
        sum(parameter.numel() for parameter in each.values()) for each in (algorithm.inner, model.trainable())
    )
    return GeneratorPlan(name, kind.inner_subspace(meta.subspace), inner, trainable)


def _task(task: Task, probability: float) -> TaskPlan:
    with task.open() as file:
        energy, angle = file.energy / 1e3, np.abs(file.theta - np.pi / 2)
    ranges = ((float(values.min()), float(values.max())) for values in (energy, angle))
    return TaskPlan(task.name, task.n_showers, probability, *ranges)


def plan_tables(plan: PretrainPlan) -> list[Table]:
    """The plan as tables to print: stages, episodes, what their inner loops move, and tasks."""
    return [_stage_table(plan), _episode_table(plan.settings.meta), _generator_table(plan), _task_table(plan)]


def _stage_table(plan: PretrainPlan) -> Table:
    table = Table("stage", title="stages", title_justify="left")
    for column in ("steps", "on mixed batches", "showers of each", "on meta-batches"):
        table.add_column(column, justify="right")
    for stage in plan.stages:
        cells = (stage.mixed_steps + stage.meta_steps, stage.mixed_steps, stage.batch, stage.meta_steps)
        table.add_row(stage.name, *map(str, cells))
    return table


def _episode_table(meta: MetaSettings) -> Table:
    moves = resolve_algorithm(meta.algorithm).inner_subspace(meta.subspace) is not None
    table = Table("episodes", "", title="meta-batches", title_justify="left")
    table.add_row("algorithm", meta.algorithm)
    table.add_row("engine", meta.engine if moves else "-")
    table.add_row("episodes in a meta-batch", str(meta.tasks))
    table.add_row("inner steps", f"{meta.inner_steps} of rate {meta.inner_rate:g}" if moves else "-")
    table.add_row("support set", f"{meta.inner_steps} x {meta.support} showers")
    table.add_row("query set", f"{meta.query} other showers")
    few = meta.few_shots
    table.add_row(
        "normalisers",
        f"{few.draws} of each task, of {few.shots[0]} to {few.shots[1]} showers, the support set's; no query shower's"
        if few.draws
        else "of all showers of a task",
    )
    table.add_row(
        "windows",
        f"{meta.windows:.0%} of the episodes, {meta.window_width:.0%} of the range of ln E and of the angle"
        if meta.windows
        else "none: all energies and angles",
    )
    return table


def _generator_table(plan: PretrainPlan) -> Table:
    table = Table("generator", "subspace", title="what the inner loop moves", title_justify="left")
    for column in ("parameters", "of", "share"):
        table.add_column(column, justify="right")
    for each in plan.generators:
        share = f"{100 * each.inner / each.trainable:.2g}%"
        table.add_row(each.name, each.subspace or "-", f"{each.inner:,}", f"{each.trainable:,}", share)
    return table


def _task_table(plan: PretrainPlan) -> Table:
    one_in = plan.settings.reserve_one_in
    kept = f", of whose showers one in {one_in} is kept out of training" if one_in else ""
    table = Table("task", title=f"{len(plan.tasks)} tasks{kept}", title_justify="left")
    for column in ("showers", "probability", "energy GeV", "angle to the normal rad"):
        table.add_column(column, justify="right")
    for task in plan.tasks:
        energy, angle = f"{task.energy[0]:.3g} - {task.energy[1]:.3g}", f"{task.angle[0]:.2f} - {task.angle[1]:.2f}"
        table.add_row(escape(task.name), str(task.showers), f"{task.probability:.2%}", energy, angle)
    return table
