"""`metacalo pretrain`: tokenizer across tasks, then the outer loop over tasks for each generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

import metacalo
from metacalo.base import Base, BaseConfig, build_generator, load_half, resolve_base, save_base, save_half
from metacalo.checkpoint import atomic_folder, load_json, save_json
from metacalo.config import Device, Seed, Settings
from metacalo.errors import ConfigError, ModelFolderError, OutputError, UnknownNameError
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import ShowerGenerator, bf16
from metacalo.generators.diffusion import DiffusionSettings
from metacalo.meta.algorithms import AlgorithmName, resolve_algorithm
from metacalo.meta.engines import HigherEngine
from metacalo.meta.episodes import EpisodeSampler
from metacalo.meta.outer_loop import OuterLoop, StageSettings
from metacalo.meta.training_data import TrainingData, training_data
from metacalo.models.prior import PriorSettings
from metacalo.models.quantizer import perplexity
from metacalo.models.transformer import BlockStack
from metacalo.models.vqvae import VQVAE, VQVAESettings
from metacalo.showers.conditions import TRAINED_ENERGY_MEV, condition_size
from metacalo.showers.detector import DESCRIPTORS

__all__ = ["MetaSettings", "PretrainSettings", "Stage", "pretrain"]

Stage = Literal["tokenizer", "ar", "diffusion"]


class MetaSettings(Settings):
    """The outer loop's algorithm and its episodes."""

    algorithm: AlgorithmName = "fomaml"
    start: float = Field(
        default=0.85, ge=0, le=1, description="share of the steps taken on mixed batches before episodes start"
    )
    tasks: int = Field(default=4, ge=1, description="episodes in a meta-batch")
    inner_steps: int = Field(default=2, ge=1)
    inner_rate: float = Field(default=0.02, gt=0)
    support: int = Field(default=16, ge=1, description="showers per inner step")
    query: int = Field(default=16, ge=1)


class PretrainSettings(Settings):
    """Everything that decides what a base becomes."""

    name: str = "base"
    tasks: tuple[str, ...] = Field(default=(), description="folders of tasks; by default those that ship")
    holdout: tuple[str, ...] = Field(default=(), description="tasks left out, with all of the same materials")
    initial: str | None = Field(
        default=None, description="base to go on from: its sizes and its tokenizer are taken over as they are"
    )
    seed: Seed = 1
    device: Device = "cpu"
    autocast: bool = Field(default=True, description="bfloat16 matrix products")
    gradient_checkpointing: bool = Field(
        default=False, description="less memory for a third more time: pays where a large grid or batch does not fit"
    )
    reserve_one_in: int = Field(default=10, ge=0, description="one shower in so many is never trained on; 0 = none")
    capacity: int = Field(default=4096, ge=1, description="showers of a task that are held in memory")
    minutes_between_states: float = Field(default=5.0, ge=0)
    tokenizer: VQVAESettings = VQVAESettings()
    prior: PriorSettings = PriorSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    train_tokenizer: StageSettings = StageSettings(steps=3000)
    train_ar: StageSettings = StageSettings(steps=6000)
    train_diffusion: StageSettings = StageSettings(steps=10000)
    meta: MetaSettings = MetaSettings()


def pretrain(
    settings: PretrainSettings,
    out: str | Path,
    *,
    stages: Sequence[Stage] = get_args(Stage),
    force: bool = False,
    resume: bool = False,
    command: str = "",
) -> Path | None:
    """Trains a base and writes it to `out`.

    States and finished stages are kept in `<out>.work` until the base is written. Stages may be run one by one (by
    several processes, once the tokenizer is there); the base is written by the call that finds all of them finished.

    Returns:
        The folder of the base, or None where stages are still missing.

    Raises:
        UnknownNameError: a stage, holdout task or initial base is not known.
        OutputError: `out` exists and not `force`, or an unfinished run is there and not `resume`.
        ConfigError: the settings differ from those of the run to be resumed.
    """
    out = Path(out)
    for stage in stages:
        if stage not in get_args(Stage):
            raise UnknownNameError("stage", stage, get_args(Stage))
    if out.exists() and not force:
        raise OutputError(f"{out}: exists already; give --force to replace it or another --out")
    work = out.with_name(out.name + ".work")
    _open_work(work, settings, resume=resume, stages=stages)
    data = training_data(
        settings.tasks, settings.holdout, reserve_one_in=settings.reserve_one_in, capacity=settings.capacity
    )
    initial = resolve_base(settings.initial) if settings.initial else None
    config = _config(settings, data, initial, command)
    for stage in get_args(Stage):
        if stage in stages and not _finished(work, stage):
            _run_stage(stage, settings, config, data, initial, work, resume=resume)
    if not all(_finished(work, stage) for stage in get_args(Stage)):
        return None
    weights = {stage: load_half(work / f"{stage}.safetensors") for stage in get_args(Stage)}
    with atomic_folder(out, force=force) as folder:
        save_base(folder, config, data.hyperprior, data.seen, weights)
        save_json(folder / "training.json", {s: load_json(work / f"{s}.json") for s in get_args(Stage)})
    for file in work.iterdir():
        file.unlink()
    work.rmdir()
    return out


def _open_work(work: Path, settings: PretrainSettings, *, resume: bool, stages: Sequence[Stage]) -> None:
    record = work / "settings.json"
    begun = any((work / f"{stage}{end}").exists() for stage in get_args(Stage) for end in (".state", ".json"))
    if not record.exists() or not begun:  # a run that failed before its first state is not in the way
        work.mkdir(parents=True, exist_ok=True)
        save_json(record, settings.model_dump(mode="json"))
        return
    started = [stage for stage in stages if _finished(work, stage) or (work / f"{stage}.state").exists()]
    if started and not resume:
        raise OutputError(f"{work}: an unfinished run is here; give --resume to go on, or remove the folder")
    if load_json(record) != settings.model_dump(mode="json"):
        raise ConfigError(f"{record}: the unfinished run had other settings; resume with the same ones")


def _finished(work: Path, stage: str) -> bool:
    return (work / f"{stage}.json").exists()


def _config(settings: PretrainSettings, data: TrainingData, initial: Base | None, command: str) -> BaseConfig:
    sizes = settings if initial is None else initial.config
    if initial is not None and (initial.config.grid, initial.config.descriptors) != (data.grid, DESCRIPTORS):
        raise ConfigError(
            f"base '{initial.config.name}' is for a grid of {initial.config.grid} cells and its own descriptors, the "
            f"tasks have {data.grid}; start without --initial"
        )
    return BaseConfig(
        name=settings.name,
        version=metacalo.__version__,
        grid=data.grid,
        condition_size=condition_size(len(DESCRIPTORS)),
        descriptors=DESCRIPTORS,
        energy_range_MeV=TRAINED_ENERGY_MEV,
        tokenizer=sizes.tokenizer,
        prior=sizes.prior,
        diffusion=sizes.diffusion,
        generators=("ar", "diffusion"),
        trained_on=data.counts,
        holdout=settings.holdout,
        pretrain=settings.model_dump(mode="json"),
        command=command,
    )


def _run_stage(
    stage: Stage,
    settings: PretrainSettings,
    config: BaseConfig,
    data: TrainingData,
    initial: Base | None,
    work: Path,
    *,
    resume: bool,
) -> None:
    torch.manual_seed(settings.seed)
    for stream in data.streams:
        stream.drawn = 0
    sampler = EpisodeSampler(data.streams, torch.Generator().manual_seed(settings.seed))
    noise = torch.Generator().manual_seed(settings.seed + 1)
    if stage == "tokenizer" and initial is not None:
        tensors: dict[str, Tensor] = dict(initial.weights["tokenizer"])
        record: dict[str, object] = {"taken from": initial.config.name}
    elif stage == "tokenizer":
        tensors, record = _train_tokenizer(settings, config, sampler, noise, work, resume=resume)
    else:
        tensors, record = _train_generator(stage, settings, config, initial, sampler, noise, work, resume=resume)
    save_half(work / f"{stage}.safetensors", tensors)
    save_json(work / f"{stage}.json", record)
    (work / f"{stage}.state").unlink(missing_ok=True)


def _train_tokenizer(
    settings: PretrainSettings,
    config: BaseConfig,
    sampler: EpisodeSampler,
    noise: torch.Generator,
    work: Path,
    *,
    resume: bool,
) -> tuple[dict[str, Tensor], dict[str, object]]:
    if settings.train_tokenizer.steps == 0:
        raise ConfigError("train_tokenizer.steps = 0 leaves the codebooks empty; train it or give --initial")
    model = VQVAE(config.tokenizer, config.grid).to(settings.device)
    _set_checkpointing(model, settings)
    used: list[Tensor] = []

    def gradient_step(step: int) -> Tensor:
        batch = sampler.mixed_batch(settings.train_tokenizer.batch).to(settings.device)
        with bf16(settings.device, settings.autocast):
            loss, indices = model.loss(batch.latents.voxels)
        loss.backward()  # type: ignore[no-untyped-call]
        used.append(indices.reshape(-1, indices.shape[-1]).cpu())
        del used[:-20]
        return loss

    loop = OuterLoop(
        "tokenizer",
        model,
        dict(model.named_parameters()),
        sampler,
        noise,
        gradient_step,
        settings.train_tokenizer,
        work / "tokenizer.state",
        60 * settings.minutes_between_states,
    )
    losses = loop.run(resume=resume)
    size = config.tokenizer.quantizer.size
    usage = [perplexity(column, size) for column in torch.cat(used).unbind(1)] if used else []
    return model.state_dict(), {"losses": losses, "perplexity": usage, "codes": size}


def _train_generator(
    stage: Literal["ar", "diffusion"],
    settings: PretrainSettings,
    config: BaseConfig,
    initial: Base | None,
    sampler: EpisodeSampler,
    noise: torch.Generator,
    work: Path,
    *,
    resume: bool,
) -> tuple[dict[str, Tensor], dict[str, object]]:
    model = initial.generator(stage) if initial is not None else build_generator(stage, config)
    if isinstance(model, Autoregressive):
        if not _finished(work, "tokenizer"):
            raise ModelFolderError(f"{work}: the stage 'ar' needs a finished 'tokenizer'; run that stage first")
        model.tokenizer.load_state_dict(load_half(work / "tokenizer.safetensors"))
    model = model.to(settings.device)
    _set_checkpointing(model, settings)
    stage_settings = settings.train_ar if stage == "ar" else settings.train_diffusion
    gradient_step = _GradientStep(model, settings, stage_settings, sampler, noise)
    trainable = model.trainable()
    loop = OuterLoop(
        stage,
        model,
        trainable,
        sampler,
        noise,
        gradient_step,
        stage_settings,
        work / f"{stage}.state",
        60 * settings.minutes_between_states,
    )
    losses = loop.run(resume=resume)
    frozen = model.frozen()
    return {n: t for n, t in model.state_dict().items() if n not in frozen}, {"losses": losses}


def _set_checkpointing(model: nn.Module, settings: PretrainSettings) -> None:
    for module in model.modules():
        if isinstance(module, BlockStack):
            module.checkpointing = settings.gradient_checkpointing


@dataclass(frozen=True)
class _GradientStep:
    """A plain step on a mixed batch until `meta.start`, an outer step over episodes after it."""

    model: ShowerGenerator
    settings: PretrainSettings
    stage: StageSettings
    sampler: EpisodeSampler
    noise: torch.Generator

    def __call__(self, step: int) -> Tensor:
        meta, device = self.settings.meta, self.settings.device
        if step < meta.start * self.stage.steps:
            batch = self.sampler.mixed_batch(self.stage.batch).to(device)
            with bf16(device, self.settings.autocast):
                loss = self.model.loss(batch, self.noise)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss
        episodes = self.sampler.episodes(
            meta.tasks, inner_steps=meta.inner_steps, support=meta.support, query=meta.query
        )
        with bf16(device, self.settings.autocast):
            return resolve_algorithm(meta.algorithm)(
                self.model, [episode.to(device) for episode in episodes], HigherEngine(), meta.inner_rate, self.noise
            )
