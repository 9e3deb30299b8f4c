"""Residual vector quantizer with an EMA codebook and dead-code revival."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from metacalo.config import Settings

__all__ = ["Gather", "QuantizerSettings", "ResidualQuantizer", "perplexity"]


class QuantizerSettings(Settings):
    """Size and upkeep of the codebooks."""

    size: int = Field(default=256, ge=2, le=65536, description="codes per codebook")
    depth: int = Field(default=4, ge=1, le=64, description="codebooks, each quantizing what the ones before left over")
    code_width: int = Field(default=24, ge=1, le=4096, description="length of a code vector")
    decay: float = Field(default=0.98, gt=0, lt=1, description="decay of the moving averages that make the codebook")
    dead_below: float = Field(
        default=1.0, ge=0, description="a code used less than this per batch is replaced by an input"
    )
    commitment: float = Field(default=0.25, ge=0)


Gather = Callable[[Tensor], tuple[Tensor, slice]]
"""Vectors of this process to those of all that train together, and which of those are its own."""


class ResidualQuantizer(nn.Module):
    """`depth` codebooks in a row (RQ-VAE, arXiv:2203.01941), on `vector-quantize-pytorch`.

    The codebooks move by exponential averages while the module trains (arXiv:1711.00937) and are constant in `eval()`.

    Attributes:
        gather: set where several processes share a batch. The averages, k-means and the revival of dead codes then are
            those of the whole batch, and so is the commitment loss, whose gradients flow to this process's vectors.
    """

    def __init__(self, settings: QuantizerSettings) -> None:
        super().__init__()
        # it loads torch's compiler and sympy: two seconds that commands without a tokenizer need not wait
        from vector_quantize_pytorch import ResidualVQ

        self.settings = settings
        self.codebooks = ResidualVQ(
            dim=settings.code_width,
            num_quantizers=settings.depth,
            codebook_size=settings.size,
            decay=settings.decay,
            threshold_ema_dead_code=settings.dead_below,
            commitment_weight=settings.commitment,
            kmeans_init=True,
            kmeans_iters=10,
            rotation_trick=False,
            sync_codebook=False,  # where several processes train, each sees the vectors of all (`gather`)
        )
        self.gather: Gather | None = None

    def forward(
        self, vectors: Float[Tensor, "n token code_width"]
    ) -> tuple[Float[Tensor, "n token code_width"], Int[Tensor, "n token depth"], Float[Tensor, ""]]:
        """Quantized vectors, their code indices, and the commitment loss.

        Gradients go straight through once for the whole row of codebooks. The library's go through each of them: the
        encoder is pulled `depth` times as hard as the decoder's error says, and its loss fell for 250 steps and then
        rose until the codes carried no information (docs/experiments/networks.md).
        """
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            whole, own = (vectors, slice(None)) if self.gather is None else self.gather(vectors)
            quantized, indices, commitment = self.codebooks(whole)
            commitment = commitment.sum()
        if self.gather is not None:
            # its gradients are those of a mean over the whole batch; the loss is one over these showers
            commitment = torch.lerp(commitment.detach(), commitment, len(whole) / len(vectors))
        quantized, indices = quantized[own], indices[own]
        return vectors + (quantized - vectors).detach(), indices, commitment

    def codes_to_vectors(self, indices: Int[Tensor, "n token depth"]) -> Float[Tensor, "n token code_width"]:
        """The vectors that code indices stand for."""
        tables = self.codebooks.codebooks
        return torch.stack([tables[slot][indices[..., slot]] for slot in range(self.settings.depth)]).sum(0)


def perplexity(indices: Int[Tensor, "*any"], size: int) -> float:
    """exp(entropy) of the code usage: `size` if all codes are used alike, 1 if a single one is."""
    share = torch.bincount(indices.reshape(-1), minlength=size).float()
    share = share / share.sum()
    return float(torch.exp(-(share * torch.log(share.clamp_min(1e-12))).sum()))
