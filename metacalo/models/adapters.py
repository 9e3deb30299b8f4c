"""Low-rank adapters: the small subspace in which a generator moves to a new detector."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ADAPTER_SUFFIXES", "LowRankLinear"]

ADAPTER_SUFFIXES = (".down", ".up")


class LowRankLinear(nn.Linear):
    """A linear layer W x + b with a parallel path B A x of rank `rank` (LoRA, arXiv:2106.09685).

    `up` (B) starts at zero, so that a fresh adapter changes nothing; `down` (A) is random. With rank 0 it is
    `nn.Linear`.
    """

    def __init__(self, n_in: int, n_out: int, *, rank: int, bias: bool = True) -> None:
        super().__init__(n_in, n_out, bias=bias)
        self.rank = rank
        if rank:
            self.down = nn.Parameter(torch.randn(rank, n_in) / n_in**0.5)
            self.up = nn.Parameter(torch.zeros(n_out, rank))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """(..., n_in) to (..., n_out)."""
        return F.linear(input, self._merged(), self.bias)

    def _merged(self) -> Tensor:
        """W + B A: one product with many tokens in the place of three."""
        return self.weight + self.up @ self.down if self.rank else self.weight

    @torch.no_grad()
    def merge(self) -> None:
        """Adds B A to W and clears the adapter: the same function in one matrix."""
        if self.rank:
            self.weight.copy_(self._merged())
            self.up.zero_()
