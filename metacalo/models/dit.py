"""The diffusion transformer (DiT, arXiv:2212.09748) on patches of a normalised shower."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from metacalo.config import Settings
from metacalo.errors import ConfigError
from metacalo.models.patches import COMPONENTS, Patching
from metacalo.models.positions import sincos_3d
from metacalo.models.transformer import Block, BlockStack, Modulation
from metacalo.normaliser.latents import Latents
from metacalo.typing import Conditions, Tokens

__all__ = ["DiT", "DiTSettings"]


class DiTSettings(Settings):
    """Size of the denoiser."""

    patch: tuple[int, int, int] = (9, 16, 1)
    width: int = Field(default=128, ge=12, le=4096)
    blocks: int = Field(default=4, ge=1, le=256)
    heads: int = Field(default=2, ge=1, le=256)
    rank: int = Field(default=4, ge=0, le=4096, description="rank of the low-rank adapters")
    embedding: int = Field(default=16, ge=0, le=4096, description="length of the detector embedding")
    modulation: Literal["shared", "per-block"] = Field(
        default="shared", description="one adaLN for all blocks, or one each"
    )
    shortcuts: bool = Field(
        default=False, description="takes the length of the sampler's step as well; the stage `distil` trains it"
    )


class DiT(nn.Module):
    """Denoiser F(x_t, t, condition), zero at initialisation (adaLN-Zero).

    Tokens carry the `components` of the latents that it denoises (`Patching.join`); of others its
    prediction is zero. The shared adaLN (PixArt-alpha, arXiv:2310.00426) makes one modulation from the
    condition, to which each block adds its own learned offsets; `per-block` is the original DiT.

    The detector embedding is zero for every detector known by its descriptors alone; adaptation moves it. With
    `shortcuts` the condition has a second time, the length of the sampler's step; a step of no length adds nothing.
    """

    def __init__(
        self,
        settings: DiTSettings,
        grid: tuple[int, int, int],
        condition_size: int,
        components: Collection[str] = COMPONENTS,
    ) -> None:
        super().__init__()
        self.patching = Patching(grid, settings.patch, components)
        width = settings.width
        self.embedding = nn.Parameter(torch.zeros(settings.embedding))
        self.read = nn.Linear(self.patching.token_size, width)
        self.register_buffer("positions", sincos_3d(self.patching.counts, width), persistent=False)
        self.condition = nn.Sequential(
            nn.Linear(condition_size + settings.embedding + _TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = BlockStack(Block(width, settings.heads, rank=settings.rank) for _ in range(settings.blocks))
        n_modulations = 1 if settings.modulation == "shared" else settings.blocks
        self.modulation = nn.Linear(width, 6 * width * n_modulations)
        self.offsets = nn.Parameter(torch.zeros(settings.blocks, 6 * width))
        self.norm = nn.RMSNorm(width)
        self.final_modulation = nn.Linear(width, 2 * width)
        self.write = nn.Linear(width, self.patching.token_size)
        for layer in (self.modulation, self.final_modulation, self.write):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.step = nn.Linear(_TIME_FEATURES, width, bias=False) if settings.shortcuts else None
        if self.step is not None:
            nn.init.zeros_(self.step.weight)

    def forward(
        self,
        latents: Latents,
        time: Float[Tensor, "n"],
        conditions: Conditions,
        step: Float[Tensor, "n"] | None = None,
    ) -> Latents:
        """Latents of the prediction.

        Args:
            latents: noisy ones.
            time: in [0, 1], 0 = pure noise.
            conditions: see `showers.conditions`.
            step: length of the sampler's step in units of `time`, for a network with `shortcuts`; by default 0.

        Raises:
            ConfigError: `step` is given to a network without `shortcuts`.
        """
        c = self._condition(time, conditions, step)
        x = self.read(self.patching.join(latents)) + self.positions
        x = self.blocks(x, self._modulations(c))
        shift, scale = self.final_modulation(torch.nn.functional.silu(c))[:, None].chunk(2, dim=-1)
        tokens: Tokens = self.write(self.norm(x) * (1 + scale) + shift)
        return self.patching.split(tokens.float(), latents.map(torch.zeros_like))

    def _condition(self, time: Tensor, conditions: Tensor, step: Tensor | None) -> Float[Tensor, "n width"]:
        embedding = self.embedding.expand(time.shape[0], -1)
        first, activation, last = self.condition
        hidden = first(torch.cat([conditions, embedding, time_features(time)], dim=1))
        if step is not None:
            if self.step is None:
                raise ConfigError("this denoiser knows no step sizes; train the stage 'distil' first")
            hidden = hidden + self.step(time_features(step) - time_features(torch.zeros_like(step)))
        return last(activation(hidden))  # type: ignore[no-any-return]

    def _modulations(self, c: Float[Tensor, "n width"]) -> list[Modulation]:
        made = self.modulation(torch.nn.functional.silu(c))
        shared = made.chunk(made.shape[-1] // self.offsets.shape[-1], dim=-1)
        per_block = shared * len(self.blocks) if len(shared) == 1 else shared
        return [
            (made + offsets)[:, None].chunk(6, dim=-1) for made, offsets in zip(per_block, self.offsets, strict=True)
        ]


_TIME_FEATURES = 32


def time_features(time: Float[Tensor, "n"]) -> Float[Tensor, "n 32"]:
    """Sine-cosine features of the time in [0, 1], frequencies 1 to 1,000 rad."""
    half = _TIME_FEATURES // 2
    frequency = torch.exp(torch.linspace(0, math.log(1000.0), half, device=time.device))
    phase = time[:, None] * frequency
    return torch.cat([phase.sin(), phase.cos()], dim=1)
