"""How a generator is sampled: the options that `generate`, `export` and `benchmark` share."""

from __future__ import annotations

from pydantic import Field

from metacalo.config import Settings
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.diffusion import Diffusion
from metacalo.generators.samplers import SamplerName
from metacalo.model import ShowerModel
from metacalo.models.prior import Sampling

__all__ = ["SamplingOptions"]


class SamplingOptions(Settings):
    """What is left open of a generator until showers are drawn."""

    temperature: float = Field(default=1.0, ge=0, description="of the ar prior; 1 = the model itself")
    top_k: int | None = Field(default=None, ge=1, description="ar: draw among the likeliest indices only")
    top_p: float = Field(default=1.0, gt=0, le=1, description="ar: draw among the likeliest indices of this share only")
    steps: int | None = Field(
        default=None, ge=1, le=100_000, description="diffusion: sampler steps; by default the base's"
    )
    sampler: SamplerName | None = Field(default=None, description="diffusion: by default the base's")

    def choose(self, model: ShowerModel, name: str) -> None:
        """Makes the generator of that name draw so; nothing is done where there is none.

        Raises:
            ConfigError: the generator cannot be sampled so.
        """
        generator = model.generators.get(name)
        if isinstance(generator, Autoregressive):
            generator.sampling = Sampling(self.temperature, self.top_k, self.top_p)
        if isinstance(generator, Diffusion):
            generator.choose(self.sampler, self.steps)
