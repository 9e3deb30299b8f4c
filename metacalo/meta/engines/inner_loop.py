"""What an inner loop is, what an engine makes of it, and the gradient of a query loss through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from metacalo.models.transformer import BlockStack

__all__ = ["Engine", "FastModel", "InnerLoop", "InnerLoss", "InnerModel", "MetaGradient", "call", "meta_gradient"]


@dataclass(frozen=True)
class InnerLoop:
    """Steps of gradient descent on some of a model's parameters; the others stay as they are.

    Attributes:
        start: where the steps begin, by the parameter's name in the model: the parameter itself (MAML), or another of
            its shape (CAVIA).
        rate: size of a step; by name, a tensor of the parameter's shape has one for each of its elements (Meta-SGD).
        steps: how many.
        second_order: keep the graph through the steps; without it they are constants.
    """

    start: Mapping[str, nn.Parameter]
    rate: float | Mapping[str, Tensor]
    steps: int
    second_order: bool

    def rates(self) -> dict[str, float | Tensor]:
        """The rate of each parameter."""
        if isinstance(self.rate, Mapping):
            return {name: self.rate[name] for name in self.start}
        return dict.fromkeys(self.start, self.rate)


class FastModel(Protocol):
    """A model with parameters that an inner loop has moved. The model itself is as it was."""

    def __call__(self, *arguments: Any) -> Tensor:
        """The model's forward pass, its loss, with the moved parameters."""
        ...

    def inner(self) -> dict[str, Tensor]:
        """The moved parameters, by their names in the model."""
        ...


InnerLoss = Callable[[FastModel, int], Tensor]
"""(model with fast weights, inner step) to the support loss of that step."""


class Engine(Protocol):
    """Takes the steps of an inner loop without changing the model.

    Second order: the graph of what it returns leads back to `loop.start` and to the rates. First order: gradients are
    taken at the moved parameters, `FastModel.inner`.
    """

    def adapt(self, model: nn.Module, loop: InnerLoop, loss: InnerLoss) -> FastModel:
        """The model after the loop's steps down `loss`."""
        ...


class InnerModel(nn.Module):
    """A model as a module of its inner parameters alone, which libraries of inner loops may copy, clone and patch.

    The model is no part of it: its other parameters are used where they are, and get their gradients there.
    """

    def __init__(self, model: nn.Module, loop: InnerLoop) -> None:
        super().__init__()
        self._keys = {name: name.replace(".", "/") for name in loop.start}
        for name, parameter in loop.start.items():
            self.register_parameter(self._keys[name], parameter)
        # within a function the model is not registered as a part
        self._call: Callable[..., Tensor] = lambda tensors, arguments: call(model, loop, tensors, arguments)

    def inner(self) -> dict[str, Tensor]:
        """See `FastModel`."""
        return {name: getattr(self, key) for name, key in self._keys.items()}

    def forward(self, *arguments: Any) -> Tensor:
        """See `FastModel`."""
        return self._call(self.inner(), arguments)


def call(model: nn.Module, loop: InnerLoop, tensors: Mapping[str, Tensor], arguments: tuple[Any, ...]) -> Tensor:
    """The model's forward pass with `tensors` in the place of its parameters of those names."""
    with _differentiable(model, second_order=loop.second_order):
        return functional_call(model, dict(tensors), arguments)  # type: ignore[no-any-return]


@contextmanager
def _differentiable(model: nn.Module, *, second_order: bool) -> Iterator[None]:
    """Runs the model in the way that can be differentiated as often as needed, with weights that are not its own.

    Blocks that are computed again in the backward pass would use the model's own weights, and compiled ones would be
    compiled for every episode. Fused attention kernels have no second derivative.
    """
    stacks = [module for module in model.modules() if isinstance(module, BlockStack)]
    before = [(stack.compiled, stack.checkpointing) for stack in stacks]
    for stack in stacks:
        stack.compiled = stack.checkpointing = False
    try:
        if second_order:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield
    finally:
        for stack, (compiled, checkpointing) in zip(stacks, before, strict=True):
            stack.compiled, stack.checkpointing = compiled, checkpointing


@dataclass(frozen=True)
class MetaGradient:
    """Query loss after an inner loop, and how it changes with what the loop began with.

    Attributes:
        loss: without its graph.
        parameters: gradient for each trainable parameter that the losses know, by name; for those of the inner loop,
            that of `InnerLoop.start`.
        rates: gradient for each learned rate, by name.
    """

    loss: Tensor
    parameters: dict[str, Tensor]
    rates: dict[str, Tensor]


def meta_gradient(
    engine: Engine, model: nn.Module, loop: InnerLoop, inner_loss: InnerLoss, query_loss: Callable[[FastModel], Tensor]
) -> MetaGradient:
    """The gradient of a query loss after an inner loop.

    Second order differentiates through the steps (MAML, arXiv:1703.03400); first order takes the gradient at the
    adapted point and stands it in for the one at the start (FOMAML, section 5.2 there), and rates have none.
    """
    fast = engine.adapt(model, loop, inner_loss)
    loss = query_loss(fast)
    own = {name: p for name, p in model.named_parameters() if p.requires_grad and name not in loop.start}
    at: dict[str, Tensor] = {**own, **(loop.start if loop.second_order else fast.inner())}
    rates = dict(loop.rate) if loop.second_order and isinstance(loop.rate, Mapping) else {}
    gradients = torch.autograd.grad(loss, [*at.values(), *rates.values()], allow_unused=True)

    def found(names: Mapping[str, Tensor], values: tuple[Tensor | None, ...]) -> dict[str, Tensor]:
        return {name: value for name, value in zip(names, values, strict=True) if value is not None}

    return MetaGradient(loss.detach(), found(at, gradients[: len(at)]), found(rates, gradients[len(at) :]))
