"""What a sweep varies: hyperparameters of adaptation and sampling, and the range of each."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, Final, Self

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import BaseTrial
from pydantic import Field, model_validator

from metacalo.adaptation.methods import LEARNING_RATES, Method
from metacalo.config import Settings
from metacalo.errors import ConfigError
from metacalo.generators.base import ShowerGenerator
from metacalo.generators.diffusion import Diffusion
from metacalo.generators.samplers import SamplerName
from metacalo.generators.sampling_options import SamplingOptions

__all__ = ["SAMPLING", "Dimension", "Hyperparameters", "SearchSpace"]

SAMPLING: Final = {"diffusion": ("sampler", "sampler_steps"), "ar": ("temperature", "top_p")}
"""Generator to those hyperparameters that only its sampling depends on, and not its loss."""

_DEFAULT: Final = Path(__file__).with_name("space.toml")
_INTEGERS: Final = frozenset({"steps", "batch", "rank", "sampler_steps"})

Value = bool | int | float | str


class Hyperparameters(Settings):
    """What a trial tries; the defaults are those of `metacalo adapt` and `metacalo generate`."""

    method: Method = "conditioning+bias"
    rate: float = Field(default=1.0, gt=0, description="highest learning rate in units of the method's own")
    learning_rate: float | None = Field(default=None, gt=0, description="the rate itself, in the place of `rate`")
    steps: int = Field(default=20, ge=1)
    batch: int = Field(default=32, ge=1)
    rank: int | None = Field(default=None, ge=1, description="components of low-rank matrices that move")
    decay: float = Field(default=0.0, ge=0, description="pull towards the base")
    average: float = Field(default=0.8, ge=0, lt=1)
    sampler: SamplerName | None = None
    sampler_steps: int | None = Field(default=None, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)

    def adaptation(self) -> dict[str, Any]:
        """The fields of `MethodSettings` that it decides."""
        named = self.model_dump(include={"method", "steps", "batch", "rank", "decay", "average", "learning_rate"})
        if self.learning_rate is None and self.rate != 1:
            named["learning_rate"] = self.rate * LEARNING_RATES[self.method]
        return named

    def sampling(self) -> SamplingOptions:
        """How showers are drawn; what is as usual is left out."""
        varied = self.model_dump(include={"sampler", "temperature", "top_p"}, exclude_defaults=True)
        return SamplingOptions(steps=self.sampler_steps, **varied)


class Dimension(Settings):
    """The values of one hyperparameter: `choices`, or a range."""

    choices: tuple[Value, ...] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        message = None
        ranged = self.low is not None and self.high is not None
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                message = "choices and a range exclude each other; give choices alone, or low and high"
            elif not self.choices or len(set(self.choices)) < len(self.choices):
                message = "choices must be at least one value, each but once"
        elif not ranged:
            message = "give choices, or both low and high"
        elif self.low > self.high:  # type: ignore[operator]  # checked above
            message = f"low = {self.low} lies above high = {self.high}; exchange them"
        elif self.log and self.low <= 0:  # type: ignore[operator]
            message = f"log = true needs low above 0, not {self.low}"
        elif self.log and self.step is not None:
            message = "log = true and step exclude each other; leave one out"
        if message is not None:
            raise ValueError(message)
        return self

    def ends(self) -> tuple[Value, ...]:
        """The choices, or both ends of the range."""
        if self.choices is not None:
            return self.choices
        assert self.low is not None
        assert self.high is not None
        return (self.low, self.high)

    def distribution(self, name: str) -> BaseDistribution:
        """As Optuna wants it."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        low, high = self.ends()
        if name in _INTEGERS:
            return IntDistribution(int(low), int(high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(low), float(high), log=self.log, step=self.step)

    def holds(self, value: Value) -> bool:
        """Whether a value is one of its own (steps of a range aside)."""
        if self.choices is not None:
            return value in self.choices
        return not isinstance(value, str) and self.low <= value <= self.high  # type: ignore[operator]


class SearchSpace(Settings):
    """The hyperparameters that vary, each with its `Dimension`; the others keep their defaults."""

    method: Dimension | None = None
    rate: Dimension | None = None
    learning_rate: Dimension | None = None
    steps: Dimension | None = None
    batch: Dimension | None = None
    rank: Dimension | None = None
    decay: Dimension | None = None
    average: Dimension | None = None
    sampler: Dimension | None = None
    sampler_steps: Dimension | None = None
    temperature: Dimension | None = None
    top_p: Dimension | None = None

    @model_validator(mode="after")
    def _values_are_allowed(self) -> Self:
        if self.rate is not None and self.learning_rate is not None:
            message = "rate and learning_rate exclude each other; leave one out"
            raise ValueError(message)
        for name, dimension in self.dimensions().items():
            whole = [*dimension.ends(), *([] if dimension.step is None else [dimension.step])]
            if name in _INTEGERS and not all(isinstance(value, int) for value in whole):
                message = f"{name} takes whole numbers only"
                raise ValueError(message)
            for value in dimension.ends():
                try:
                    Hyperparameters.build({name: value}, source="value")
                except ConfigError as error:
                    raise ValueError(str(error).removeprefix("value: ")) from None
        return self

    @classmethod
    def default(cls) -> Self:
        """The space that ships, `space.toml` beside this module."""
        return cls.from_toml(_DEFAULT)

    def dimensions(self) -> dict[str, Dimension]:
        """Those that vary, by name."""
        return {name: dimension for name, dimension in self if dimension is not None}

    def of(self, generator: str, *, sampled: bool) -> SearchSpace:
        """The space without what the generator does not see, and, where nothing is `sampled`, without its sampling.

        Raises:
            ConfigError: nothing is left to vary.
        """
        unseen = {name for other, names in SAMPLING.items() if other != generator or not sampled for name in names}
        left = {name: dimension for name, dimension in self if name not in unseen and dimension is not None}
        if not left:
            why = f"of generator '{generator}'" if sampled else f"that the loss of generator '{generator}' depends on"
            raise ConfigError(f"the space varies nothing {why}; give it a table such as [rate]")
        return SearchSpace(**left)

    def require_samplers(self, generator: ShowerGenerator) -> None:
        """Raises `ConfigError` where a combination of sampler and steps cannot be sampled: before hours of trials."""
        values: list[list[Any]] = []
        for dimension in (self.sampler, self.sampler_steps):
            if dimension is None:
                values.append([None])
            elif dimension.choices is not None:
                values.append(list(dimension.choices))
            else:
                low, high = dimension.ends()
                values.append(list(range(int(low), int(high) + 1, int(dimension.step or 1))))
        for sampler, steps in product(*values):
            Hyperparameters.build({"sampler": sampler, "sampler_steps": steps}).sampling().choose(generator)
        Hyperparameters().sampling().choose(generator)

    def draw(self, trial: BaseTrial) -> Hyperparameters:
        """The hyperparameters of a trial: its own where the space varies them."""
        drawn: dict[str, Any] = {}
        for name, dimension in self.dimensions().items():
            kind = dimension.distribution(name)
            if isinstance(kind, CategoricalDistribution):
                drawn[name] = trial.suggest_categorical(name, kind.choices)
            elif isinstance(kind, IntDistribution):
                drawn[name] = trial.suggest_int(name, kind.low, kind.high, step=kind.step, log=kind.log)
            elif isinstance(kind, FloatDistribution):
                drawn[name] = trial.suggest_float(name, kind.low, kind.high, step=kind.step, log=kind.log)
        return Hyperparameters(**drawn)

    def defaults(self, generator: ShowerGenerator) -> dict[str, Value]:
        """What `metacalo adapt` does without a sweep, as far as it lies in the space: a first trial to be beaten."""
        usual: dict[str, Any] = Hyperparameters().model_dump()
        usual["learning_rate"] = LEARNING_RATES[Hyperparameters().method]
        usual["rank"] = self.rank.ends()[-1] if self.rank is not None else None  # all, or as many as may be
        if isinstance(generator, Diffusion):
            usual |= {"sampler": generator.sampler, "sampler_steps": generator.steps}
        return {name: usual[name] for name, dimension in self.dimensions().items() if dimension.holds(usual[name])}
