"""Engines that take inner-loop steps and keep, or cut, the graph through them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metacalo.models.transformer import BlockStack

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # higher 0.2.1 imports names that torch has deprecated
    import higher

__all__ = ["Engine", "FastModel", "HigherEngine", "InnerLoss"]

FastModel = nn.Module
InnerLoss = Callable[[Any, int], Tensor]
"""(model with fast weights, inner step) to the support loss of that step."""


class Engine(Protocol):
    """Takes K gradient steps on the adaptable parameters of a model without changing the model itself."""

    def query_gradients(
        self,
        model: nn.Module,
        adaptable: Sequence[str],
        inner_loss: InnerLoss,
        query_loss: Callable[[Any], Tensor],
        *,
        steps: int,
        rate: float,
        second_order: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Query loss after the inner loop, and its gradient for every trainable parameter of `model`.

        Second order differentiates through the steps (MAML, arXiv:1703.03400); first order takes the gradient at the
        adapted point and stands it in for the one at the start (FOMAML, section 5.2 there).
        """
        ...


class HigherEngine:
    """Inner loops with `higher` (arXiv:1910.01727): differentiable SGD on a functional copy of the model."""

    def query_gradients(
        self,
        model: nn.Module,
        adaptable: Sequence[str],
        inner_loss: InnerLoss,
        query_loss: Callable[[Any], Tensor],
        *,
        steps: int,
        rate: float,
        second_order: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Engine.query_gradients`."""
        start = dict(model.named_parameters())
        names = [name for name, parameter in start.items() if parameter.requires_grad]
        optimizer = torch.optim.SGD([start[name] for name in adaptable], lr=rate)
        with (
            _attention(second_order),
            higher.innerloop_ctx(model, optimizer, copy_initial_weights=False, track_higher_grads=second_order) as (
                fast,
                differentiable,
            ),
        ):
            _simplify(fast, second_order=second_order)
            for step in range(steps):
                differentiable.step(inner_loss(fast, step))
            loss = query_loss(fast)
            # the functional copy lists its parameters in the model's order
            at = start if second_order else dict(zip(start, fast.parameters(), strict=True))
            gradients = torch.autograd.grad(loss, [at[name] for name in names], allow_unused=True)
        found = {name: gradient for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
        return loss.detach(), found


def _simplify(fast: nn.Module, *, second_order: bool) -> None:
    """Switches off in a functional copy what does not go with its changing weights.

    It would be compiled for every episode. And blocks that are computed again in a second-order backward pass would use
    the last fast weights, not those of their step.
    """
    for module in fast.modules():
        if isinstance(module, BlockStack):
            module.compiled = False
            module.checkpointing = module.checkpointing and not second_order


@contextmanager
def _attention(second_order: bool) -> Iterator[None]:
    """Fused attention kernels have no second derivative: the plain one is used where it is needed."""
    if not second_order:
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield
