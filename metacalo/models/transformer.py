"""The transformer block that the tokenizer, the prior and the diffusion transformer share.

Pre-norm with RMSNorm, query-key norm, SwiGLU: the parts that the best published calorimeter transformers use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from metacalo.errors import ConfigError
from metacalo.models.adapters import LowRankLinear
from metacalo.typing import Tokens

__all__ = ["Attention", "Block", "BlockStack", "KeyValueCache", "Modulation", "SwiGLU"]

Modulation = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""shift, scale and gate of the attention, then of the feed-forward; each (n, 1, width)."""


class KeyValueCache:
    """Keys and values of the positions a causal block has seen, in buffers of their final size.

    Attributes:
        seen: which of the keys that `append` returns count, (1, length); None = all of them.
    """

    seen: Tensor | None = None

    def __init__(self, n: int, heads: int, length: int, head_width: int, like: Tensor) -> None:
        self.keys = like.new_zeros(n, heads, length, head_width)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores (n, heads, new, head_width) and returns all so far."""
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class Attention(nn.Module):
    """Multi-head self-attention with RMS-normalised queries and keys (QK-norm).

    Raises:
        ConfigError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int, *, causal: bool = False, rank: int = 0) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"{heads} heads do not divide the width {width}; choose a multiple")
        self.heads, self.causal = heads, causal
        self.qkv = LowRankLinear(width, 3 * width, rank=rank)
        self.out = LowRankLinear(width, width, rank=rank)
        self.query_norm = nn.RMSNorm(width // heads)
        self.key_norm = nn.RMSNorm(width // heads)

    def forward(self, x: Tokens, cache: KeyValueCache | None = None) -> Tokens:
        """(n, token, width) to the same; with a `cache`, `x` holds only the new positions."""
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (n, h, t, w)
        q, k = _rms(q, self.query_norm), _rms(k, self.key_norm)
        if cache is not None:
            k, v = cache.append(k, v)
        # the CPU's fused kernel has a backward pass in bf16 that takes 3 times as long as plain products
        slow = q.dtype == torch.bfloat16 and q.requires_grad and x.device.type == "cpu"
        attend = _plain_attention if slow else F.scaled_dot_product_attention
        seen = None if cache is None else cache.seen
        mixed = attend(q, k, v, attn_mask=seen, is_causal=bool(self.causal and length > 1))
        return self.out(mixed.transpose(1, 2).reshape(n, length, width))  # type: ignore[no-any-return]


class SwiGLU(nn.Module):
    """Gated feed-forward, arXiv:2002.05202; its three matrices have the parameters of a plain one of ratio 4."""

    def __init__(self, width: int, *, rank: int = 0) -> None:
        super().__init__()
        hidden = (8 * width // 3 + 15) // 16 * 16
        self.gate_and_value = LowRankLinear(width, 2 * hidden, rank=rank)
        self.out = LowRankLinear(hidden, width, rank=rank)

    def forward(self, x: Tokens) -> Tokens:
        """(n, token, width) to the same."""
        gate, value = self.gate_and_value(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * value)  # type: ignore[no-any-return]


class Block(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x)); optionally modulated (adaLN-Zero, arXiv:2212.09748)."""

    def __init__(self, width: int, heads: int, *, causal: bool = False, rank: int = 0) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width)
        self.attention = Attention(width, heads, causal=causal, rank=rank)
        self.feedforward_norm = nn.RMSNorm(width)
        self.feedforward = SwiGLU(width, rank=rank)

    def forward(self, x: Tokens, modulation: Modulation | None = None, cache: KeyValueCache | None = None) -> Tokens:
        """(n, token, width) to the same."""
        if modulation is None:
            x = x + self.attention(_rms(x, self.attention_norm), cache)
            return x + self.feedforward(_rms(x, self.feedforward_norm))  # type: ignore[no-any-return]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation
        x = x + gate_a * self.attention(_modulate(_rms(x, self.attention_norm), shift_a, scale_a), cache)
        return x + gate_f * self.feedforward(_modulate(_rms(x, self.feedforward_norm), shift_f, scale_f))  # type: ignore[no-any-return]


class BlockStack(nn.ModuleList):
    """Blocks one after another.

    Attributes:
        checkpointing: keep only the input of each block in training and compute the rest again in the backward pass
            (arXiv:1604.06174): less memory for a third more time.
        compiled: run through `torch.compile`.
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        super().__init__(blocks)
        self.checkpointing = False
        self.compiled = False

    def forward(self, x: Tokens, modulations: Sequence[Modulation] | None = None) -> Tokens:
        """(n, token, width) to the same; `modulations` holds one for each block."""
        run = _compiled_run() if self.compiled else _run
        return run(self, x, modulations)


def _run(stack: BlockStack, x: Tokens, modulations: Sequence[Modulation] | None) -> Tokens:
    for index, block in enumerate(stack):
        modulation = None if modulations is None else modulations[index]
        if stack.checkpointing and torch.is_grad_enabled():
            x = checkpoint(block, x, modulation, use_reentrant=False)
        else:
            x = block(x, modulation)
    return x


@cache
def _compiled_run() -> Callable[[BlockStack, Tokens, Sequence[Modulation] | None], Tokens]:
    """`_run` compiled; made where it is wanted, since `torch.compile` alone takes seconds to import."""
    return torch.compile(_run)


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool) -> Tensor:
    """`scaled_dot_product_attention` of (..., t, w) as plain matrix products."""
    scores: Tensor = q * q.shape[-1] ** -0.5 @ k.mT
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    if is_causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    mixed: Tensor = scores.softmax(-1) @ v
    return mixed


def _rms(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    """`norm` in the dtype of `x`: autocast leaves the weight in float32, which would take the slow path."""
    return F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.eps)


def _modulate(x: Tokens, shift: Float[Tensor, "n 1 width"], scale: Float[Tensor, "n 1 width"]) -> Tokens:
    return x * (1 + scale) + shift
