"""Autoregressive generator: a prior over the energies and the codes of the frozen tokenizer."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.generators.base import Batch, ShowerGenerator
from metacalo.models.prior import Prior, PriorSettings, Sampling
from metacalo.models.vqvae import VQVAE
from metacalo.normaliser.latents import Latents
from metacalo.typing import Codes, Conditions

__all__ = ["Autoregressive"]

_RANGE = 4.5  # latents of energies are binned in [-4.5, 4.5]


class Autoregressive(ShowerGenerator):
    """Tokenizer and prior.

    `loss` is the mean negative log-likelihood per position; the tokenizer only encodes and gets no gradient.
    """

    name = "ar"

    def __init__(self, tokenizer: VQVAE, settings: PriorSettings, condition_size: int) -> None:
        super().__init__()
        quantizer = tokenizer.settings.quantizer
        self.tokenizer = tokenizer.requires_grad_(False)
        self.prior = Prior(settings, tokenizer.patching, quantizer.depth, quantizer.size, condition_size)
        self.sampling = Sampling()

    def train(self, mode: bool = True) -> Autoregressive:
        """Training mode for the prior; the tokenizer stays in evaluation mode, so that its codebooks cannot move."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    def encode(self, latents: Latents) -> Codes:
        """The sequence (n, length) that stands for normalised showers."""
        energies = torch.cat([latents.total[:, None], latents.layers], dim=1)
        position = (energies + _RANGE) / (2 * _RANGE) * self.prior.bins
        bins = position.floor().clamp(0, self.prior.bins - 1).long()
        return torch.cat([bins, self.tokenizer.encode(latents).flatten(1)], dim=1)

    def decode(self, codes: Codes, generator: torch.Generator) -> Latents:
        """Normalised showers of sequences; energies are drawn within their bins, the rest from the decoder."""
        within = torch.rand(len(codes), self.prior.n_energies, generator=generator)
        noise = Latents.noise(len(codes), self.tokenizer.patching.grid, generator)
        return self.placed(codes, within.to(codes.device), noise.to(codes.device))

    def placed(self, codes: Codes, within: Float[Tensor, "n energy"], noise: Latents) -> Latents:
        """Normalised showers of sequences.

        Args:
            codes: from the prior.
            within: where in their bins the energies lie, in [0, 1).
            noise: standard normal, of the decoder's distribution and of the components that are not coded.
        """
        n_energies = self.prior.n_energies
        energies = (codes[:, :n_energies] + within) / self.prior.bins * 2 * _RANGE - _RANGE
        indices = codes[:, n_energies:].reshape(-1, self.prior.n_patches, self.prior.depth)
        return replace(self.tokenizer.place(indices, noise), total=energies[:, 0], layers=energies[:, 1:])

    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Mean negative log-likelihood per position, in nats."""
        return -self.prior.log_likelihood(self.encode(batch.latents), batch.conditions).mean() / self.prior.length

    def log_likelihood(self, batch: Batch) -> Float[Tensor, "n"]:
        """Log-likelihood of each shower's sequence, in nats."""
        return self.prior.log_likelihood(self.encode(batch.latents), batch.conditions)

    @property
    def bin_width(self) -> float:
        """Width of the bins of energy latents."""
        return 2 * _RANGE / self.prior.bins

    @property
    def sees_cells(self) -> bool:
        """See `ShowerGenerator.sees_cells`."""
        return "cells" in self.tokenizer.settings.weights

    @torch.no_grad()
    def sample(self, conditions: Conditions, generator: torch.Generator) -> Latents:
        """See `ShowerGenerator.sample`; `self.sampling` sets temperature, top-k and top-p."""
        return self.decode(self.prior.sample(conditions, generator, self.sampling), generator)

    def frozen(self) -> dict[str, Tensor]:
        """Everything in the tokenizer: parameters and codebook buffers."""
        return {f"tokenizer.{name}": tensor for name, tensor in self.tokenizer.state_dict().items()}
