"""The stages of pretraining: tokenizer, autoregressive prior, diffusion transformer, and its distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metacalo.base import Base, BaseConfig, build_generator, load_half, load_into, save_half
from metacalo.checkpoint import save_json
from metacalo.errors import ConfigError, ModelFolderError
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import ShowerGenerator, bf16
from metacalo.generators.diffusion import Diffusion
from metacalo.generators.distillation import distillation_loss, distilled
from metacalo.meta.algorithms import Algorithm, resolve_algorithm
from metacalo.meta.engines import resolve_engine
from metacalo.meta.episodes import EpisodeSampler
from metacalo.meta.outer_loop import OuterLoop, StageSettings
from metacalo.meta.training_data import TrainingData
from metacalo.models.quantizer import perplexity
from metacalo.models.transformer import BlockStack
from metacalo.models.vqvae import VQVAE
from metacalo.recipe import MetaSettings, PretrainSettings, Stage

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
    """

    settings: PretrainSettings
    config: BaseConfig
    data: TrainingData
    initial: Base | None
    work: Path


@dataclass(frozen=True)
class _Result:
    """What a stage leaves.

    Attributes:
        weights: of its network.
        record: what is told of its training.
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
    ) -> list[float]:
        """Runs the outer loop; see there."""
        state = self.run.work / f"{self.stage}.state"
        save_every = 60 * self.run.settings.minutes_between_states
        for module in model.modules():
            if isinstance(module, BlockStack):
                module.checkpointing = self.run.settings.gradient_checkpointing
                module.compiled = self.run.settings.compile
        loop = OuterLoop(
            self.stage, model, parameters, self.sampler, self.noise, gradient_step, settings, state, save_every
        )
        return loop.run(resume=self.resume)


def _train_tokenizer(training: _Training) -> _Result:
    run, settings = training.run, training.run.settings
    if run.initial is not None:
        return _Result(run.initial.weights["tokenizer"], {"taken from": run.initial.config.name})
    if settings.train_tokenizer.steps == 0:
        raise ConfigError("train_tokenizer.steps = 0 leaves the codebooks empty; train it or give --initial")
    model = VQVAE(run.config.tokenizer, run.config.grid).to(settings.device)
    used: list[Tensor] = []

    def gradient_step(_: int) -> Tensor:
        batch = training.sampler.mixed_batch(settings.train_tokenizer.batch).to(settings.device)
        with bf16(settings.device, settings.autocast):
            loss, indices = model.loss(batch.latents)
        loss.backward()  # type: ignore[no-untyped-call]
        used.append(indices.reshape(-1, indices.shape[-1]).cpu())
        del used[:-20]
        return loss

    losses = training.train(model, dict(model.named_parameters()), settings.train_tokenizer, gradient_step)
    size = run.config.tokenizer.quantizer.size
    usage = [perplexity(column, size) for column in torch.cat(used).unbind(1)] if used else []
    return _Result(model.state_dict(), {"losses": losses, "perplexity": usage, "codes": size})


def _train_prior(training: _Training) -> _Result:
    run = training.run
    tokenizer = training.needs("tokenizer")
    model = run.initial.generator("ar") if run.initial is not None else build_generator("ar", run.config)
    if isinstance(model, Autoregressive):
        model.tokenizer.load_state_dict(tokenizer)
    return _train_generator(training, model, run.settings.train_ar)


def _train_diffusion(training: _Training) -> _Result:
    run = training.run
    model = run.initial.generator("diffusion") if run.initial is not None else build_generator("diffusion", run.config)
    return _train_generator(training, model, run.settings.train_diffusion)


def _train_generator(training: _Training, model: ShowerGenerator, settings: StageSettings) -> _Result:
    """Plain steps on mixed batches until `meta.start`, outer steps over episodes after it."""
    recipe, sampler, noise = training.run.settings, training.sampler, training.noise
    meta, device = recipe.meta, recipe.device
    model = model.to(device)
    algorithm = _algorithm(model, meta)
    algorithm.prepare()
    mixed_steps = meta.mixed_steps(settings.steps)

    def gradient_step(step: int) -> Tensor:
        if step < mixed_steps:
            batch = sampler.mixed_batch(settings.batch).to(device)
            with bf16(device, recipe.autocast):
                loss = model.loss(batch, noise)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss
        episodes = sampler.episodes(meta.tasks, inner_steps=meta.inner_steps, support=meta.support, query=meta.query)
        with bf16(device, recipe.autocast):
            return algorithm.step([episode.to(device) for episode in episodes], noise)

    losses = training.train(model, algorithm.parameters(), settings, gradient_step)
    frozen = model.frozen()
    weights = {n: t for n, t in model.state_dict().items() if n not in frozen}
    return _Result(weights, {"losses": losses}, algorithm.rates())


def _algorithm(model: ShowerGenerator, meta: MetaSettings) -> Algorithm:
    kind = resolve_algorithm(meta.algorithm)
    return kind(model, resolve_engine(meta.engine), rate=meta.inner_rate, subspace=meta.subspace)


def _distil(training: _Training) -> _Result:
    """What the stage `diffusion` left is the teacher, and where the student starts."""
    run, settings, device = training.run, training.run.settings.distil, training.run.settings.device
    taught = training.needs("diffusion")
    made = distilled(run.config.diffusion, settings.sampler_steps)
    student, teacher = (Diffusion(made, run.config.grid, run.config.condition_size) for _ in range(2))
    for model in (student, teacher):
        load_into(model, {**model.state_dict(), **taught}, run.work / "diffusion.safetensors")
        model.to(device)
    teacher.eval().requires_grad_(False)

    def gradient_step(_: int) -> Tensor:
        batch = training.sampler.mixed_batch(settings.batch).to(device)
        with bf16(device, run.settings.autocast):
            loss = distillation_loss(student, teacher, batch, training.noise)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    outer = _algorithm(student, run.settings.meta).parameters()  # a context that was held at zero stays there
    moved = {name: parameter for name, parameter in student.trainable().items() if name in outer}
    losses = training.train(student, moved, settings, gradient_step)
    return _Result(student.state_dict(), {"losses": losses})


_STAGES: dict[Stage, Callable[[_Training], _Result]] = {
    "tokenizer": _train_tokenizer,
    "ar": _train_prior,
    "diffusion": _train_diffusion,
    "distil": _distil,
}
