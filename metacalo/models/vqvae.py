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
from metacalo.typing import ShowerTensor, Tokens

__all__ = ["VQVAE", "VQVAESettings"]

_LOG_SIGMA_LIMITS = (-3.0, 1.0)


class VQVAESettings(Settings):
    """Size of the tokenizer."""

    patch: tuple[int, int, int] = (9, 16, 1)
    width: int = Field(default=96, ge=12)
    blocks: int = Field(default=2, ge=1, description="transformer blocks in the encoder, and as many in the decoder")
    heads: int = Field(default=2, ge=1)
    quantizer: QuantizerSettings = QuantizerSettings()


class VQVAE(nn.Module):
    """Encoder, residual codebooks and a decoder that gives a distribution.

    The decoder returns mean and width of a normal per cell: the codes carry what cells share, the width what is left,
    so that decoded showers have the full cell spectrum and not its blurred mean. Trained by the negative log-likelihood
    of the dequantised latents plus the commitment loss.
    """

    def __init__(self, settings: VQVAESettings, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.settings = settings
        self.patching = Patching(grid, settings.patch)
        width, n_cells = settings.width, self.patching.n_cells
        self.register_buffer("positions", sincos_3d(self.patching.counts, width), persistent=False)
        self.read = nn.Linear(n_cells, width)
        self.encoder = BlockStack(Block(width, settings.heads) for _ in range(settings.blocks))
        self.to_code = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, settings.quantizer.code_width))
        self.quantizer = ResidualQuantizer(settings.quantizer)
        self.from_code = nn.Linear(settings.quantizer.code_width, width)
        self.decoder = BlockStack(Block(width, settings.heads) for _ in range(settings.blocks))
        self.write = nn.Sequential(nn.RMSNorm(width), nn.Linear(width, 2 * n_cells))

    def _encode(self, voxels: ShowerTensor) -> Float[Tensor, "n token code_width"]:
        x: Tokens = self.read(self.patching.split_cells(voxels)) + self.positions
        return self.to_code(self.encoder(x)).float()  # type: ignore[no-any-return]

    def _decode(self, vectors: Float[Tensor, "n token code_width"]) -> tuple[ShowerTensor, ShowerTensor]:
        x: Tokens = self.from_code(vectors) + self.positions
        mean, log_sigma = self.write(self.decoder(x)).float().chunk(2, dim=-1)
        return self.patching.merge_cells(mean), self.patching.merge_cells(log_sigma).clamp(*_LOG_SIGMA_LIMITS)

    def loss(self, voxels: ShowerTensor) -> tuple[Tensor, Int[Tensor, "n token depth"]]:
        """Negative log-likelihood per cell plus commitment, and the codes used (for their perplexity)."""
        quantized, indices, commitment = self.quantizer(self._encode(voxels))
        mean, log_sigma = self._decode(quantized)
        squared = ((voxels - mean) * torch.exp(-log_sigma)) ** 2
        return (0.5 * squared + log_sigma).mean() + 0.5 * math.log(2 * math.pi) + commitment, indices

    @torch.no_grad()
    def encode(self, voxels: ShowerTensor) -> Int[Tensor, "n token depth"]:
        """Code indices of latent voxels (n, r, phi, z)."""
        return self.quantizer(self._encode(voxels))[1]  # type: ignore[no-any-return]

    @torch.no_grad()
    def decode(self, indices: Int[Tensor, "n token depth"]) -> tuple[ShowerTensor, ShowerTensor]:
        """Mean and log width of the latent voxels that code indices stand for."""
        return self._decode(self.quantizer.codes_to_vectors(indices))

    def sample(self, indices: Int[Tensor, "n token depth"], generator: torch.Generator) -> ShowerTensor:
        """Latent voxels drawn from the decoder's distribution."""
        mean, log_sigma = self.decode(indices)
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        return mean + torch.exp(log_sigma) * noise
