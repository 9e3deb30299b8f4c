from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from metacalo.errors import ConfigError
from metacalo.models.transformer import Attention, Block, KeyValueCache, SwiGLU, _plain_attention
from tests.small import disturb, seeded

WIDTH, HEADS, LENGTH = 12, 3, 7


def tokens(n: int = 2, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randn(n, length, WIDTH, generator=seeded(seed))


def make(kind: type[torch.nn.Module], *args: int, **kwargs: object) -> torch.nn.Module:
    torch.manual_seed(0)
    module = kind(*args, **kwargs)
    disturb(module)
    return module


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * weight


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_the_textbook_formula(causal: bool) -> None:
    attention = make(Attention, WIDTH, HEADS, causal=causal)
    x = tokens()
    q, k, v = (attention.qkv.weight @ x.mT + attention.qkv.bias[:, None]).mT.chunk(3, -1)
    mixed = []
    for head in range(HEADS):
        cut = slice(4 * head, 4 * head + 4)
        query, key = rms(q[..., cut], attention.query_norm.weight), rms(k[..., cut], attention.key_norm.weight)
        scores = query @ key.mT / math.sqrt(4)
        if causal:
            scores = scores.masked_fill(torch.ones(LENGTH, LENGTH).triu(1).bool(), -math.inf)
        mixed.append(scores.softmax(-1) @ v[..., cut])
    expected = torch.cat(mixed, -1) @ attention.out.weight.T + attention.out.bias
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, LENGTH])
def test_plain_products_are_the_fused_attention(length: int, causal: bool) -> None:
    q, k, v = torch.randn(3, 2, HEADS, length, 5, generator=seeded()).requires_grad_()
    plain, fused = (attend(q, k, v, is_causal=causal) for attend in (_plain_attention, F.scaled_dot_product_attention))
    torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad(made.square().sum(), (q, k, v)) for made in (plain, fused)]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_training_in_bf16_is_that_in_single_precision(causal: bool) -> None:
    """Where the plain products stand in for the fused attention."""
    attention, x = make(Attention, WIDTH, HEADS, causal=causal), tokens()
    exact = attention(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(x)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.02)
    gradients = [torch.autograd.grad(y.float().square().sum(), attention.qkv.weight)[0] for y in (exact, rounded)]
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 0.02


@pytest.mark.parametrize("changed", range(LENGTH))
def test_a_causal_block_does_not_see_later_tokens(changed: int) -> None:
    block = make(Block, WIDTH, HEADS, causal=True)
    x = tokens()
    other = x.clone()
    other[:, changed] += 1
    before, after = block(x), block(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert ((before - after).abs().amax((0, 2))[changed:] > 1e-4).all()


def test_a_block_without_causality_sees_all_and_knows_no_order() -> None:
    block = make(Block, WIDTH, HEADS)
    x = tokens()
    other = x.clone()
    other[:, -1] += 1
    assert ((block(x) - block(other)).abs().amax((0, 2)) > 1e-4).all()
    order = torch.randperm(LENGTH, generator=seeded())
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_cache_gives_what_the_whole_sequence_gives() -> None:
    block = make(Block, WIDTH, HEADS, causal=True)
    x = tokens()
    cache = KeyValueCache(2, HEADS, LENGTH, WIDTH // HEADS, like=x)
    one_by_one = torch.cat([block(x[:, i : i + 1], cache=cache) for i in range(LENGTH)], dim=1)
    torch.testing.assert_close(one_by_one, block(x), atol=1e-5, rtol=1e-5)
    assert cache.length == LENGTH


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ConfigError, match="5 heads do not divide the width 12"):
        Attention(12, 5)


def test_swiglu_formula() -> None:
    layer = make(SwiGLU, WIDTH)
    assert layer.out.in_features == 32  # 8/3 of the width, rounded up to a multiple of 16
    x = tokens()
    hidden = x @ layer.gate_and_value.weight.T + layer.gate_and_value.bias
    gate, value = hidden[..., :32], hidden[..., 32:]
    expected = (gate * gate.sigmoid() * value) @ layer.out.weight.T + layer.out.bias
    torch.testing.assert_close(layer(x), expected)


def modulation(shift: float, scale: float, gate: float) -> tuple[Tensor, ...]:
    values = (shift, scale, gate, shift, scale, gate)
    return tuple(torch.full((2, 1, WIDTH), value) for value in values)


def test_modulation_of_nothing_is_no_modulation_and_gates_close() -> None:
    block = make(Block, WIDTH, HEADS)
    x = tokens()
    torch.testing.assert_close(block(x, modulation(0.0, 0.0, 1.0)), block(x))
    assert torch.equal(block(x, modulation(0.7, 0.3, 0.0)), x)


def test_modulation_scales_and_shifts_the_normed_tokens() -> None:
    block = make(Block, WIDTH, HEADS)
    x = tokens()
    attended = x + 0.5 * block.attention(rms(x, block.attention_norm.weight) * 1.3 + 0.7)
    expected = attended + 0.5 * block.feedforward(rms(attended, block.feedforward_norm.weight) * 1.3 + 0.7)
    torch.testing.assert_close(block(x, modulation(0.7, 0.3, 0.5)), expected, atol=1e-5, rtol=1e-5)


def test_queries_and_keys_are_normed() -> None:
    """Their lengths are bounded by QK-norm, so that larger inputs do not sharpen the attention."""
    attention = Attention(WIDTH, HEADS)
    torch.nn.init.zeros_(attention.qkv.bias)
    torch.nn.init.zeros_(attention.out.bias)
    x = tokens()
    torch.testing.assert_close(attention(1000 * x), 1000 * attention(x), atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_type_of_the_tokens_is_kept(dtype: torch.dtype) -> None:
    block = make(Block, WIDTH, HEADS).to(dtype)
    with torch.no_grad():
        assert block(tokens().to(dtype)).dtype == dtype


def test_double_precision_is_kept_with_gradients() -> None:
    block = make(Block, WIDTH, HEADS).double()
    x = tokens().double()
    result = block(x)
    assert result.dtype == torch.float64
    torch.testing.assert_close(result.float(), block.float()(x.float()), atol=1e-5, rtol=1e-5)
