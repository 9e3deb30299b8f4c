"""The tokenizer: a transformer VQ-VAE on 3-D patches of normalised showers, trained across detectors, then frozen."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from metacalo.config import Settings
from metacalo.models.patches import Patching
from metacalo.models.positions import sincos_3d
from metacalo.models.quantizer import QuantizerSettings, ResidualQuantizer
from metacalo.models.transformer import Block, BlockStack
from metacalo.normaliser.latents import Latents
from metacalo.typing import Tokens

__all__ = ["VQVAE", "VQVAESettings"]

_LOG_SIGMA_LIMITS = (-3.0, 1.0)


class VQVAESettings(Settings):
    """Size of the tokenizer."""

    patch: tuple[int, int, int] = (9, 16, 1)
    width: int = Field(default=80, ge=12, le=4096)
    blocks: int = Field(
        default=2, ge=1, le=256, description="transformer blocks in the encoder, and as many in the decoder"
    )
    heads: int = Field(default=2, ge=1, le=256)
    quantizer: QuantizerSettings = QuantizerSettings()
    hits_weight: float = Field(
        default=0.3, ge=0, description="loss weight of a ring's hits, its energy counts 1; 0 = hits are not coded"
    )
    cell_weight: float = Field(
        default=0.0, ge=0, description="loss weight of a cell; 0 = cells are not coded: nearly white, they eat up codes"
    )

    @property
    def weights(self) -> dict[str, float]:
        """Component of the latents to the loss weight of a value, for the components that are coded."""
        weights = {"rings": 1.0, "hits": self.hits_weight, "cells": self.cell_weight}
        return {component: weight for component, weight in weights.items() if weight}


class VQVAE(nn.Module):
    """Encoder, residual codebooks and a decoder that gives a distribution.

    It codes those of the rings, hits and cells of a patch that have a weight; the layer energies and the total the
    prior has beside the codes. The decoder returns mean and width of a normal per value: the codes carry what values
    share, the width what is left, so that decoded showers have the full spectrum and not its blurred mean. Trained by
    the weighted negative log-likelihood of the dequantised latents, plus the commitment loss.
    """

    value_weight: Tensor

    def __init__(self, settings: VQVAESettings, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.settings = settings
        self.patching = Patching(grid, settings.patch, tuple(settings.weights))
        width, size = settings.width, self.patching.token_size
        self.register_buffer("positions", sincos_3d(self.patching.counts, width), persistent=False)
        self.read = nn.Linear(size, width)
        self.encoder = BlockStack(Block(width, settings.heads) for _ in range(settings.blocks))
        self.to_code = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, settings.quantizer.code_width))
        self.quantizer = ResidualQuantizer(settings.quantizer)
        self.from_code = nn.Linear(settings.quantizer.code_width, width)
        self.decoder = BlockStack(Block(width, settings.heads) for _ in range(settings.blocks))
        self.write = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, 2 * size))
        weight = torch.cat(
            [torch.full((n,), settings.weights[component]) for component, n in self.patching.sizes.items()]
        )
        self.register_buffer("value_weight", weight / weight.mean(), persistent=False)

    def _encode(self, content: Tokens) -> Float[Tensor, "n token code_width"]:
        return self.to_code(self.encoder(self.read(content) + self.positions)).float()  # type: ignore[no-any-return]

    def _decode(self, vectors: Float[Tensor, "n token code_width"]) -> tuple[Tokens, Tokens]:
        x: Tokens = self.from_code(vectors) + self.positions
        mean, log_sigma = self.write(self.decoder(x)).float().chunk(2, dim=-1)
        return mean, log_sigma.clamp(*_LOG_SIGMA_LIMITS)

    def loss(self, latents: Latents) -> tuple[Tensor, Int[Tensor, "n token depth"]]:
        """Weighted negative log-likelihood per value plus commitment, and the codes used (for their perplexity)."""
        content = self.patching.join(latents)
        quantized, indices, commitment = self.quantizer(self._encode(content))
        mean, log_sigma = self._decode(quantized)
        cost = 0.5 * ((content - mean) * torch.exp(-log_sigma)) ** 2 + log_sigma
        return (self.value_weight * cost).mean() + 0.5 * math.log(2 * math.pi) + commitment, indices

    @torch.no_grad()
    def encode(self, latents: Latents) -> Int[Tensor, "n token depth"]:
        """Code indices of normalised showers."""
        return self.quantizer(self._encode(self.patching.join(latents)))[1]  # type: ignore[no-any-return]

    @torch.no_grad()
    def decode(self, indices: Int[Tensor, "n token depth"]) -> tuple[Tokens, Tokens]:
        """Mean and log width of the values of the tokens that code indices stand for (`Patching.join`)."""
        return self._decode(self.quantizer.codes_to_vectors(indices))

    def sample(self, indices: Int[Tensor, "n token depth"], generator: torch.Generator) -> Latents:
        """Latents drawn from the decoder's distribution; the components that are not coded are independent normals."""
        return self.place(indices, Latents.noise(len(indices), self.patching.grid, generator).to(indices.device))

    def place(self, indices: Int[Tensor, "n token depth"], noise: Latents) -> Latents:
        """The latents of the decoder's distribution that standard normal `noise` stands for."""
        mean, log_sigma = self.decode(indices)
        # patches in phi that share a ring share its noise too: their mean is as wide as one of them
        return self.patching.split(mean + torch.exp(log_sigma) * self.patching.join(noise), noise)
