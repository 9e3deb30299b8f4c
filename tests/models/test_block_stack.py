from __future__ import annotations

import pytest
import torch

from metacalo.models import transformer
from metacalo.models.transformer import Block, BlockStack


def gradients(stack: BlockStack, x: torch.Tensor, *, checkpointing: bool) -> list[torch.Tensor]:
    stack.checkpointing = checkpointing
    stack.zero_grad()
    stack(x).square().sum().backward()
    return [parameter.grad.clone() for parameter in stack.parameters() if parameter.grad is not None]


def test_checkpointing_changes_no_gradient() -> None:
    torch.manual_seed(0)
    stack = BlockStack(Block(24, 2, rank=2) for _ in range(3))
    x = torch.randn(2, 5, 24, requires_grad=True)
    plain, checkpointed = (gradients(stack, x, checkpointing=value) for value in (False, True))
    assert len(plain) > 20
    torch.testing.assert_close(checkpointed, plain)


def test_checkpointing_keeps_fewer_tensors_for_the_backward_pass() -> None:
    stack = BlockStack(Block(24, 2) for _ in range(3))
    x = torch.randn(2, 5, 24, requires_grad=True)
    kept = {}
    for checkpointing in (False, True):
        stack.checkpointing = checkpointing
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):  # noqa: B023
            stack(x)
        kept[checkpointing] = sum(sizes)
    assert kept[True] < 0.2 * kept[False]


def test_stack_is_its_blocks_in_order() -> None:
    stack = BlockStack(Block(12, 2) for _ in range(2))
    x = torch.randn(1, 3, 12)
    torch.testing.assert_close(stack(x), stack[1](stack[0](x)))


def test_compiling_changes_neither_values_nor_gradients_nor_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated by the compiler, and then run without its C++, which takes most of a minute to make."""
    traced = torch.compile(transformer._run, backend="aot_eager")
    monkeypatch.setattr(transformer, "_compiled_run", lambda: traced)
    torch.manual_seed(0)
    stack = BlockStack(Block(24, 2, rank=2) for _ in range(2))
    modulations = [tuple(torch.randn(2, 1, 24) for _ in range(6)) for _ in range(2)]
    x, names = torch.randn(2, 5, 24), set(stack.state_dict())
    found = []
    for compiled, checkpointing in ((False, False), (True, False), (True, True)):
        stack.compiled, stack.checkpointing = compiled, checkpointing
        y = stack(x, modulations)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(stack.parameters()))])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-4)
    assert set(stack.state_dict()) == names
