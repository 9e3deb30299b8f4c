from __future__ import annotations

import torch

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
