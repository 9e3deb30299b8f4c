"""How a generator is sampled: the options of `generate` and `export`, and what a model folder keeps of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from metacalo.config import Settings
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import ShowerGenerator
from metacalo.generators.diffusion import Diffusion
from metacalo.generators.samplers import SamplerName

__all__ = ["SamplingOptions"]


class SamplingOptions(Settings):
    """What is left open of a generator until showers are drawn; None leaves it as it is.

    A generator is, before anything is chosen, as its base has it, and one of an adapted model as the folder says.
    """

    temperature: float | None = Field(
        default=None, ge=0, description="ar: temperature of the prior; 1 = the model itself"
    )
    top_k: int | None = Field(default=None, ge=1, description="ar: draw among the likeliest indices only")
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="ar: draw among the likeliest indices of this share only"
    )
    steps: int | None = Field(default=None, ge=1, le=100_000, description="diffusion: sampler steps")
    sampler: SamplerName | None = Field(default=None, description="diffusion: how the path is integrated")

    def choose(self, generator: ShowerGenerator | None) -> None:
        """Sets these options on a generator; a library of showers has none.

        Raises:
            ConfigError: the generator cannot be sampled so.
        """
        if isinstance(generator, Autoregressive):
            options: dict[str, Any] = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p}
            given = {name: value for name, value in options.items() if value is not None}
            generator.sampling = replace(generator.sampling, **given)
        if isinstance(generator, Diffusion):
            generator.choose(self.sampler, self.steps)
