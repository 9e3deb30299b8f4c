from __future__ import annotations

import torch
from torch import nn

from metacalo.models.adapters import LowRankLinear
from tests.small import seeded


def layer(rank: int = 3) -> LowRankLinear:
    torch.manual_seed(0)
    return LowRankLinear(8, 5, rank=rank)


def inputs() -> torch.Tensor:
    return torch.randn(2, 4, 8, generator=seeded(1))


def test_a_fresh_adapter_changes_nothing() -> None:
    module, x = layer(), inputs()
    assert torch.equal(module(x), nn.functional.linear(x, module.weight, module.bias))
    assert module.down.abs().min() > 0  # else its gradient would be zero for ever


def test_the_adapter_adds_up_times_down() -> None:
    module, x = layer(), inputs()
    nn.init.normal_(module.up)
    expected = x @ (module.weight + module.up @ module.down).T + module.bias
    torch.testing.assert_close(module(x), expected)


def test_merging_keeps_the_function_and_clears_the_adapter() -> None:
    module, x = layer(), inputs()
    nn.init.normal_(module.up)
    weight, expected = module.weight.clone(), module(x)
    adapter = module.up @ module.down
    module.merge()
    torch.testing.assert_close(module.weight, weight + adapter)
    assert (module.up == 0).all()
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
    module.merge()
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)


def test_rank_zero_is_a_plain_layer() -> None:
    module = layer(rank=0)
    assert [name for name, _ in module.named_parameters()] == ["weight", "bias"]
    before = module.weight.clone()
    module.merge()
    assert torch.equal(module.weight, before)


def test_the_first_gradient_reaches_up_and_not_down() -> None:
    module = layer()
    module(inputs()).square().sum().backward()
    assert module.up.grad.abs().max() > 0
    assert (module.down.grad == 0).all()
