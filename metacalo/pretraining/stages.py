"""The stages of pretraining: tokenizer, autoregressive prior, diffusion transformer, and its distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metacalo.errors import ConfigError, ModelFolderError
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import ShowerGenerator, bf16
from metacalo.generators.diffusion import Diffusion
from metacalo.generators.distillation import distillation_loss, distilled
from metacalo.meta.algorithms import Algorithm, resolve_algorithm
from metacalo.meta.engines import resolve_engine
from metacalo.meta.outer_loop import OuterLoop, StageSettings
from metacalo.model_folders.base import Base, BaseConfig, build_generator, load_half, load_into, save_half
from metacalo.models.quantizer import perplexity
from metacalo.models.transformer import BlockStack
from metacalo.models.vqvae import VQVAE
from metacalo.pretraining.settings import MetaSettings, PretrainSettings, Stage
from metacalo.runtime.distributed import Ranks
from metacalo.runtime.run_log import Clock, RunLog
from metacalo.storage.checkpoint import save_json
from metacalo.training_data.sampler import EpisodeSampler, draw_generators
from metacalo.training_data.task_streams import TrainingData

__all__ = ["Run", "is_finished", "run_stage"]


@dataclass(frozen=True)
class Run:
    """A pretraining run as its stages see it.

    Attributes:
        settings: the recipe.
        config: of the base, before it is distilled.
        data: the showers.
        initial: base to go on from.
        work: folder of states and of what finished stages left.
        ranks: the processes that share each step.
        log_dir: each stage has its log in a folder there; None = none is written.
    """

    settings: PretrainSettings
    config: BaseConfig
    data: TrainingData
    initial: Base | None
    work: Path
    ranks: Ranks = field(default_factory=Ranks)
    log_dir: Path | None = None

    @property
    def device(self) -> str:
        """Where this process computes."""
        return self.ranks.device(self.settings.device)


@dataclass(frozen=True)
class _Result:
    """What a stage leaves.

    Attributes:
        weights: of its network.
        record: losses, seconds and settings of its training.
        rates: learned step sizes of the inner loop, by parameter; empty where they were not learned.
    """

    weights: Mapping[str, Tensor]
    record: dict[str, Any]
    rates: Mapping[str, Tensor] = field(default_factory=dict)


def is_finished(work: Path, stage: Stage) -> bool:
    """Whether the stage has left its weights in the folder."""
    return (work / f"{stage}.json").exists()


def run_stage(stage: Stage, run: Run, *, resume: bool) -> None:
    """Trains a stage to its end, from its state if `resume`, and leaves `<stage>.safetensors` and `<stage>.json`.

    Rates that were learned are left in `<stage>-rates.safetensors`.

    Raises:
        ConfigError: the settings train nothing that could be used.
        ModelFolderError: a stage that it needs is not finished.
        MissingExtraError: the recipe's engine is not installed.
    """
    try:
        result = _STAGES[stage](_Training.begun(stage, run, resume=resume))
    finally:  # nothing is read behind the back of what comes next, Ctrl-C included
        for stream in run.data.streams:
            stream.close()
    if run.ranks.first:
        _leave(stage, run, result)
    run.ranks.wait()  # the next stage reads it


def _leave(stage: Stage, run: Run, result: _Result) -> None:
    save_half(run.work / f"{stage}.safetensors", result.weights)
    if result.rates:
        save_half(run.work / f"{stage}-rates.safetensors", result.rates)
    save_json(run.work / f"{stage}.json", result.record)
    (run.work / f"{stage}.state").unlink(missing_ok=True)


@dataclass(frozen=True)
class _Training:
    """One stage at its start; what is drawn depends on the seed alone and not on the stages before it."""

    stage: Stage
    run: Run
    resume: bool
    sampler: EpisodeSampler
    noise: torch.Generator

    @classmethod
    def begun(cls, stage: Stage, run: Run, *, resume: bool) -> _Training:
        seed = run.settings.seed
        torch.manual_seed(seed)
        for stream in run.data.streams:
            stream.drawn = 0
        meta = run.settings.meta
        sampler = EpisodeSampler(
            run.data.streams,
            torch.Generator().manual_seed(seed),
            exponent=meta.task_exponent,
            windows=meta.windows,
            window_width=meta.window_width,
            slices=run.settings.slices,
            ranks=run.ranks,
        )
        return cls(stage, run, resume, sampler, torch.Generator().manual_seed(seed + 1))

    def needs(self, stage: Stage) -> dict[str, Tensor]:
        """The weights of a stage before this one."""
        work = self.run.work
        if not is_finished(work, stage):
            raise ModelFolderError(f"{work}: the stage '{self.stage}' needs a finished '{stage}'; run that stage first")
        return load_half(work / f"{stage}.safetensors")

    def train(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        settings: StageSettings,
        gradient_step: Callable[[int], Tensor],
    ) -> dict[str, Any]:
        """Runs the outer loop, see there; returns its losses and its cost."""
        run, recipe = self.run, self.run.settings
        state = run.work / f"{self.stage}.state"
        save_every = 60 * recipe.minutes_between_states
        log = RunLog(run.log_dir / self.stage if run.log_dir is not None and run.ranks.first else None)
        for module in model.modules():
            if isinstance(module, BlockStack):
                module.checkpointing = recipe.gradient_checkpointing
                module.compiled = recipe.compile
        loop = OuterLoop(
            self.stage,
            model,
            parameters,
            self.sampler,
            self.noise,
            gradient_step,
            settings,
            state,
            save_every,
            run.ranks,
            log,
            Clock(recipe.watts_per_core, run.device, run.ranks),
        )
        return {"losses": loop.run(resume=self.resume), "cost": loop.cost}


def _train_tokenizer(training: _Training) -> _Result:
    run, settings = training.run, training.run.settings
    if run.initial is not None:
        return _Result(run.initial.weights["tokenizer"], {"taken from": run.initial.config.name})
    if settings.train_tokenizer.steps == 0:
        raise ConfigError("train_tokenizer.steps = 0 leaves the codebooks empty; train it or give --initial")
    model = VQVAE(run.config.tokenizer, run.config.grid).to(run.device)
    stage, ranks = settings.stage_settings("tokenizer"), run.ranks
    if ranks.world > 1:
        model.quantizer.gather = ranks.gather
    used: list[Tensor] = []

    def gradient_step(_: int) -> Tensor:
        batch = training.sampler.mixed_batch(stage.batch).to(run.device)
        with bf16(run.device, settings.autocast):
            loss, indices = model.loss(batch.latents)
        loss = loss * batch.share
        loss.backward()  # type: ignore[no-untyped-call]
        ranks.align(model.quantizer.buffers())  # sums on GPUs differ in their last bits
        used.append(ranks.gather(indices.reshape(-1, indices.shape[-1]))[0].cpu())
        del used[:-20]
        return loss

    record = training.train(model, dict(model.named_parameters()), stage, gradient_step)
    size = run.config.tokenizer.quantizer.size
    usage = [perplexity(column, size) for column in torch.cat(used).unbind(1)] if used else []
    return _Result(model.state_dict(), {**record, "perplexity": usage, "codes": size})


def _train_prior(training: _Training) -> _Result:
    run = training.run
    tokenizer = training.needs("tokenizer")
    model = run.initial.generator("ar") if run.initial is not None else build_generator("ar", run.config)
    if isinstance(model, Autoregressive):
        model.tokenizer.load_state_dict(tokenizer)
    return _train_generator(training, model, run.settings.stage_settings("ar"))


def _train_diffusion(training: _Training) -> _Result:
    run = training.run
    model = run.initial.generator("diffusion") if run.initial is not None else build_generator("diffusion", run.config)
    return _train_generator(training, model, run.settings.stage_settings("diffusion"))


def _train_generator(training: _Training, model: ShowerGenerator, settings: StageSettings) -> _Result:
    """Plain steps on mixed batches until `meta.start`, outer steps over episodes after it."""
    recipe, sampler, noise = training.run.settings, training.sampler, training.noise
    meta, device, ranks = recipe.meta, training.run.device, training.run.ranks
    model = model.to(device)
    algorithm = _algorithm(model, meta)
    algorithm.prepare()
    mixed_steps = meta.mixed_steps(settings.steps)

    def gradient_step(step: int) -> Tensor:
        if step < mixed_steps:
            batch = sampler.mixed_batch(settings.batch).to(device)
            with bf16(device, recipe.autocast):
                loss = model.loss(batch, noise) * batch.share
            loss.backward()  # type: ignore[no-untyped-call]
            return loss
        episodes = sampler.episodes(meta.tasks, inner_steps=meta.inner_steps, support=meta.support, query=meta.query)
        noises = draw_generators(meta.tasks, noise)
        with bf16(device, recipe.autocast):
            own = [noises[i] for i in ranks.share(meta.tasks)]
            return algorithm.share_of_step([episode.to(device) for episode in episodes], own, meta.tasks)

    record = training.train(model, algorithm.parameters(), settings, gradient_step)
    frozen = model.frozen()
    weights = {n: t for n, t in model.state_dict().items() if n not in frozen}
    return _Result(weights, record, algorithm.rates())


def _algorithm(model: ShowerGenerator, meta: MetaSettings) -> Algorithm:
    kind = resolve_algorithm(meta.algorithm)
    return kind(model, resolve_engine(meta.engine), rate=meta.inner_rate, subspace=meta.subspace)


def _distil(training: _Training) -> _Result:
    """What the stage `diffusion` left is the teacher, and where the student starts."""
    run, recipe, device = training.run, training.run.settings, training.run.device
    settings = recipe.stage_settings("distil")
    taught = training.needs("diffusion")
    made = distilled(run.config.diffusion, recipe.distil.sampler_steps)
    student, teacher = (Diffusion(made, run.config.grid, run.config.condition_size) for _ in range(2))
    for model in (student, teacher):
        load_into(model, {**model.state_dict(), **taught}, run.work / "diffusion.safetensors")
        model.to(device)
    teacher.eval().requires_grad_(False)

    def gradient_step(_: int) -> Tensor:
        batch = training.sampler.mixed_batch(settings.batch).to(device)
        with bf16(device, recipe.autocast):
            loss = distillation_loss(student, teacher, batch, training.noise) * batch.share
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    outer = _algorithm(student, recipe.meta).parameters()  # a context that was held at zero stays there
    moved = {name: parameter for name, parameter in student.trainable().items() if name in outer}
    record = training.train(student, moved, settings, gradient_step)
    return _Result(student.state_dict(), record)


_STAGES: dict[Stage, Callable[[_Training], _Result]] = {
    "tokenizer": _train_tokenizer,
    "ar": _train_prior,
    "diffusion": _train_diffusion,
    "distil": _distil,
}
