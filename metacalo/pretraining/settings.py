"""Everything that decides what a base becomes: the settings of `metacalo pretrain`."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from metacalo.config import Device, Seed, Settings
from metacalo.errors import ConfigError, UnknownNameError
from metacalo.generators.diffusion import DiffusionSettings
from metacalo.generators.distillation import ShortcutSteps
from metacalo.meta.algorithms import AlgorithmName, resolve_algorithm
from metacalo.meta.engines import EngineName
from metacalo.meta.outer_loop import StageSettings
from metacalo.model_folders.base import PlainName
from metacalo.models.prior import PriorSettings
from metacalo.models.subspaces import SubspaceName
from metacalo.models.vqvae import VQVAESettings
from metacalo.normaliser.preprocessing import PreprocessingName
from metacalo.runtime.run_log import WATTS_PER_CORE
from metacalo.training_data.few_shots import FewShotSettings

__all__ = ["DistilSettings", "MetaSettings", "PretrainSettings", "Stage"]

Stage = Literal["tokenizer", "ar", "diffusion", "distil"]


class MetaSettings(Settings):
    """The outer loop's algorithm and its episodes."""

    algorithm: AlgorithmName = Field(default="fomaml", description="what the outer loop does")
    engine: EngineName = Field(default="torch", description="library that takes the inner steps")
    subspace: SubspaceName | None = Field(
        default=None,
        description="what the inner loop moves; by default head for anil, context for cavia, adapters for the others",
    )
    start: float = Field(
        default=0.85, ge=0, le=1, description="share of the steps taken on mixed batches before episodes start"
    )
    tasks: int = Field(default=4, ge=1, description="episodes in a meta-batch")
    inner_steps: int = Field(default=2, ge=1)
    inner_rate: float = Field(default=0.02, gt=0, description="size of an inner step; meta-sgd starts from it")
    support: int = Field(default=16, ge=1, description="showers per inner step")
    query: int = Field(default=16, ge=1, description="showers of the query set, none of them in the support set")
    task_exponent: float = Field(
        default=0.5, ge=0, description="tasks are drawn by their number of showers to this power, for all steps"
    )
    windows: float = Field(
        default=0.0, ge=0, le=1, description="share of the episodes within a random window of energy and angle"
    )
    window_width: float = Field(
        default=0.5, gt=0, le=1, description="width of a window, as a share of the range of ln E and of the angle"
    )
    few_shots: FewShotSettings = Field(
        default=FewShotSettings(draws=0),
        description="episodes behind normalisers of few showers, as adaptation has them",
    )

    @model_validator(mode="after")
    def _subspace_fits(self) -> Self:
        try:
            resolve_algorithm(self.algorithm).inner_subspace(self.subspace)
        except ConfigError as error:
            message = f"algorithm = '{self.algorithm}': {error}"
            raise ValueError(message) from None
        if self.few_shots.draws and self.windows:
            message = "few_shots has no windows of energy and angle; set windows or few_shots.draws to 0"
            raise ValueError(message)
        return self

    def mixed_steps(self, steps: int) -> int:
        """How many of a stage's first steps are taken on mixed batches."""
        return math.ceil(self.start * steps)


class DistilSettings(StageSettings):
    """How the diffusion transformer learns whole sampler steps (`generators.distillation`)."""

    steps: int = Field(default=0, ge=0, description="0 = the base is not distilled")
    learning_rate: float = Field(default=5e-4, gt=0)
    warmup: int = Field(default=50, ge=0, description="steps over which the learning rate rises")
    weight_decay: float = Field(default=0.0, ge=0)
    average: float = Field(
        default=0.99, ge=0, lt=1, description="decay of the averaged weights that are kept in the end"
    )
    sampler_steps: ShortcutSteps = Field(default=4, description="steps that `generate` then takes by default")


class PretrainSettings(Settings):
    """Everything that decides what a base becomes."""

    name: PlainName = Field(default="base", description="name of the base; by default that of the folder")
    tasks: tuple[str, ...] = Field(default=(), description="folders of tasks; by default those that ship")
    holdout: tuple[str, ...] = Field(default=(), description="tasks left out, with all of the same materials")
    initial: str | None = Field(
        default=None,
        description="base to go on from: its sizes, its preprocessing and its tokenizer are taken over as they are",
    )
    seed: Seed = 1
    device: Device = "cpu"
    autocast: bool = Field(default=True, description="bfloat16 matrix products")
    gradient_checkpointing: bool = Field(
        default=False, description="less memory for a third more time: pays where a large grid or batch does not fit"
    )
    compile: bool = Field(
        default=False, description="torch.compile the transformer blocks: faster training, needs a C++ compiler"
    )
    reserve_one_in: int = Field(default=10, ge=0, description="one shower in so many is never trained on; 0 = none")
    capacity: int = Field(
        default=4096,
        ge=1,
        description="showers of a task that are held in memory; of a larger one as many again",
    )
    most_tasks: int | None = Field(default=None, ge=1, description="train on the first so many tasks, by name")
    slices: int = Field(
        default=4,
        ge=1,
        description="parts of a mixed batch that several processes share; the result depends on their number alone, "
        "whatever that of the processes",
    )
    max_steps: int | None = Field(default=None, ge=1, description="steps of each stage, at most")
    watts_per_core: float = Field(
        default=WATTS_PER_CORE, ge=0, description="power of a core in W, for the estimate of the energy used"
    )
    minutes_between_states: float = Field(default=5.0, ge=0, description="how often the state of a run is kept")
    generators: tuple[Literal["ar", "diffusion"], ...] = Field(default=("ar", "diffusion"), min_length=1)
    preprocessing: PreprocessingName = Field(
        default="tables", description="tables = metacalo's normaliser; log = the usual logarithms, for diffusion alone"
    )
    tokenizer: VQVAESettings = VQVAESettings()
    prior: PriorSettings = PriorSettings()
    diffusion: DiffusionSettings = DiffusionSettings()
    train_tokenizer: StageSettings = StageSettings(steps=3000)
    train_ar: StageSettings = StageSettings(steps=6000)
    train_diffusion: StageSettings = StageSettings(steps=10000)
    distil: DistilSettings = DistilSettings()
    meta: MetaSettings = MetaSettings()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        message = None
        if self.preprocessing == "log" and "ar" in self.generators:
            message = "preprocessing = 'log' has no energies for the generator 'ar'; use generators = ['diffusion']"
        elif self.distil.steps and "diffusion" not in self.generators:
            message = "distil.steps is for the generator 'diffusion', which generators leaves out; set it to 0"
        elif self.compile and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
            message = "compile = true needs a C++ compiler, and none was found; install g++, or set it to false"
        if message is not None:
            raise ValueError(message)
        return self

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the run, in their order."""
        autoregressive: tuple[Stage, ...] = ("tokenizer", "ar") if "ar" in self.generators else ()
        diffusion: tuple[Stage, ...] = ("diffusion",) if "diffusion" in self.generators else ()
        return (*autoregressive, *diffusion, *(("distil",) if self.distil.steps else ()))

    def chosen_stages(self, wanted: Sequence[Stage] | None = None) -> tuple[Stage, ...]:
        """`wanted`, by default all stages.

        Raises:
            UnknownNameError: one of them is not among `stages`.
        """
        for stage in wanted or ():
            if stage not in self.stages:
                raise UnknownNameError("stage", stage, self.stages)
        return self.stages if wanted is None else tuple(wanted)

    def stage_settings(self, stage: Stage) -> StageSettings:
        """How long, within `max_steps`, and how fast that stage trains."""
        settings = {
            "tokenizer": self.train_tokenizer,
            "ar": self.train_ar,
            "diffusion": self.train_diffusion,
            "distil": self.distil,
        }[stage]
        if self.max_steps is None:
            return settings
        return settings.model_copy(update={"steps": min(settings.steps, self.max_steps)})
