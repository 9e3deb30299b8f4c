"""`metacalo pretrain`: tokenizer across tasks, then the outer loop over tasks for each generator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

from torch import Tensor

from metacalo.detectors.condition_range import ConditionRange
from metacalo.errors import ConfigError, OutputError
from metacalo.generators.distillation import distilled
from metacalo.meta.engines import resolve_engine
from metacalo.model_folders.base import Base, BaseConfig, load_half, resolve_base, save_base, sees_cells
from metacalo.normaliser.preprocessing import PREPROCESSING
from metacalo.pretraining.plan import base_config
from metacalo.pretraining.settings import MetaSettings, PretrainSettings, Stage
from metacalo.pretraining.stages import Run, is_finished, run_stage
from metacalo.runtime.distributed import Ranks, joined_ranks
from metacalo.runtime.run_log import require_tensorboard
from metacalo.runtime.signals import note_on_interrupt
from metacalo.showers.tasks import Task
from metacalo.storage.atomic import clear_leftovers, discard
from metacalo.storage.checkpoint import atomic_folder, load_json, save_json
from metacalo.storage.locking import sole_writer, writer_of
from metacalo.storage.provenance import FILE, file_record, provenance, shown_path
from metacalo.training_data.task_streams import pretraining_tasks, training_data

__all__ = ["MetaSettings", "PretrainSettings", "Stage", "pretrain"]


def pretrain(
    settings: PretrainSettings,
    out: str | Path,
    *,
    stages: Sequence[Stage] | None = None,
    force: bool = False,
    resume: bool = False,
    command: str = "",
    log_dir: str | Path | None = None,
) -> Path | None:
    """Trains a base and writes it to `out`.

    States and finished stages are kept in `<out>.work` until the base is written. Stages may be run one by one (by
    several processes, once those that they need are there); the base is written by the call that finds all of them
    finished. A stage is trained by one process at a time.

    Ctrl-C or SIGTERM ends the run after the step that it is at, and its state is kept.

    Args:
        settings: the recipe; `presets.resolve_recipe` makes it.
        out: folder to write.
        stages: those to run now; by default all of `settings.stages`.
        force: replace an existing `out`.
        resume: go on from the states of an unfinished run.
        command: recorded with the base.
        log_dir: folder of losses and costs, for TensorBoard and as JSON lines; see `tracking`.

    Returns:
        The folder of the base, or None where stages are still missing.

    Raises:
        UnknownNameError: a stage, holdout task or initial base is not known.
        MissingExtraError: the recipe's engine is not installed, or TensorBoard for `log_dir`.
        RankError: one of several processes has failed.
        OutputError: `out` exists and not `force`, an unfinished run is there and not `resume`, or another process
            trains a stage of it.
        ConfigError: the settings differ from those of the run to be resumed.
    """
    out = Path(out)
    work = out.with_name(out.name + ".work")
    chosen = settings.chosen_stages(stages)
    resolve_engine(settings.meta.engine)  # asked before long work
    if log_dir is not None:
        require_tensorboard()
    kept = f"what was trained is kept in {work}; go on with the same command and --resume"
    with joined_ranks() as ranks, note_on_interrupt(kept), ExitStack() as held:
        if ranks.first:  # the only one that writes
            clear_leftovers(work)
            clear_leftovers(out)
        ranks.wait()
        complete, exists = _is_complete(work, settings), out.exists()
        ranks.wait()  # all have seen it
        if exists and not force:
            if not (resume and complete):
                raise OutputError(f"{out}: exists already; give --force to replace it or another --out")
            if ranks.first:  # killed when only this was left to do
                discard(work)
            return out
        if ranks.first:
            held.enter_context(_sole_trainer(work, chosen))
            _open_work(work, settings, resume=resume, stages=chosen)
        ranks.wait()
        return _pretrain(settings, out, ranks, chosen, force, resume, command, log_dir)


def _pretrain(
    settings: PretrainSettings,
    out: Path,
    ranks: Ranks,
    chosen: Sequence[Stage],
    force: bool,
    resume: bool,
    command: str,
    log_dir: str | Path | None,
) -> Path | None:
    """What each process does."""
    work = out.with_name(out.name + ".work")
    initial = resolve_base(settings.initial) if settings.initial else None
    sizes = settings if initial is None else initial.config
    data = training_data(
        pretraining_tasks(settings.tasks, settings.holdout)[: settings.most_tasks],
        reserve_one_in=settings.reserve_one_in,
        capacity=settings.capacity,
        preprocessing=PREPROCESSING[sizes.preprocessing],
        few_shots=settings.meta.few_shots,
        cells=sees_cells(sizes.tokenizer, sizes.diffusion),
        seed=settings.seed,
        quiet=not ranks.first,
    )
    seen = reduce(ConditionRange.union, (_range(stream.task) for stream in data.streams))
    config = base_config(settings, data.grid, data.counts, initial, command, seen=seen)
    run = Run(settings, config, data, initial, work, ranks, None if log_dir is None else Path(log_dir))
    config = _with_shortcuts(run.config, settings)  # asked before long work
    for stage in settings.stages:
        if stage in chosen and not is_finished(work, stage):
            run_stage(stage, run, resume=resume)
    ranks.wait()  # all have seen it
    if ranks.first:
        with sole_writer(out, wait=True):
            # else another process was at the last stage when this one was, and has written the base
            if _is_complete(work, settings):
                _write_base(run, config, out, command, force=force)
    ranks.wait()
    return out if out.exists() and not work.exists() else None


def _range(task: Task) -> ConditionRange:
    with task.open() as file:
        return ConditionRange.of(file.energy, file.theta, file.phi)


def _write_base(run: Run, config: BaseConfig, out: Path, command: str, *, force: bool) -> None:
    settings, work, data = run.settings, run.work, run.data
    stems = [*settings.stages, *(f"{name}-rates" for name in config.learned_rates)]
    weights: dict[str, dict[str, Tensor]] = {stem: load_half(work / f"{stem}.safetensors") for stem in stems}
    if "distil" in weights:  # takes the place of what it was made from
        weights["diffusion"] = weights.pop("distil")
    with atomic_folder(out, force=force) as folder:
        save_base(folder, config, data.hyperprior, data.seen, weights)
        save_json(folder / FILE, _provenance(settings, [stream.task for stream in data.streams], run.initial, command))
        save_json(folder / "training.json", {stage: load_json(work / f"{stage}.json") for stage in settings.stages})
    discard(work)


def _is_complete(work: Path, settings: PretrainSettings) -> bool:
    return all(is_finished(work, stage) for stage in settings.stages)


@contextmanager
def _sole_trainer(work: Path, stages: Sequence[Stage]) -> Iterator[None]:
    """Keeps other processes from training these stages."""
    work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for stage in stages:
            stack.enter_context(sole_writer(work / stage))
        yield


def _provenance(
    settings: PretrainSettings, tasks: Sequence[Task], initial: Base | None, command: str
) -> dict[str, Any]:
    files = sorted({task.path for task in tasks})
    inputs: dict[str, dict[str, Any]] = {f"tasks {path.parent.name}": file_record(path) for path in files}
    if initial is not None:
        inputs["initial"] = {"name": initial.config.name, "hash": initial.hash}
    record = settings.model_dump(mode="json")
    record["tasks"] = [shown_path(folder) for folder in settings.tasks]
    return provenance("pretrain", command, settings=record, arguments={}, inputs=inputs, device=settings.device)


def _open_work(work: Path, settings: PretrainSettings, *, resume: bool, stages: Sequence[Stage]) -> None:
    record = work / "settings.json"
    begun = any((work / f"{stage}{end}").exists() for stage in settings.stages for end in (".state", ".json"))
    begun = begun or any(writer_of(work / stage) for stage in settings.stages if stage not in stages)
    if not record.exists() or not begun:  # a run that failed before its first state is not in the way
        save_json(record, settings.model_dump(mode="json"))
        return
    started = [stage for stage in stages if is_finished(work, stage) or (work / f"{stage}.state").exists()]
    if started and not resume:
        raise OutputError(f"{work}: an unfinished run is here; give --resume to go on, or remove the folder")
    if PretrainSettings.build(load_json(record), source=str(record)) != settings:
        raise ConfigError(f"{record}: the unfinished run had other settings; resume with the same ones")


def _with_shortcuts(config: BaseConfig, settings: PretrainSettings) -> BaseConfig:
    """The config of the base that is written."""
    if settings.distil.steps:
        made = distilled(config.diffusion, settings.distil.sampler_steps)
        return config.model_copy(update={"diffusion": made})
    if config.diffusion.dit.shortcuts and settings.train_diffusion.steps:
        message = (
            "diffusion.dit.shortcuts" if settings.initial is None else f"base '{settings.initial}' has shortcuts, which"
        )
        raise ConfigError(f"{message} would lead where old weights led; set distil.steps to train them again")
    return config
