"""Inner loops with torch alone: functional calls, and autograd with a graph of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metacalo.meta.engines.inner_loop import FastModel, InnerLoop, InnerLoss, call

__all__ = ["TorchEngine"]


@dataclass(frozen=True)
class _Fast:
    """See `FastModel`."""

    model: nn.Module
    loop: InnerLoop
    tensors: Mapping[str, Tensor]

    def __call__(self, *arguments: Any) -> Tensor:
        return call(self.model, self.loop, self.tensors, arguments)

    def inner(self) -> dict[str, Tensor]:
        return dict(self.tensors)


class TorchEngine:
    """The default engine: `torch.func.functional_call` and `torch.autograd.grad`, no other library."""

    def adapt(self, model: nn.Module, loop: InnerLoop, loss: InnerLoss) -> FastModel:
        """See `Engine`."""
        tensors: dict[str, Tensor] = dict(loop.start)
        rates = loop.rates()
        for step in range(loop.steps):
            support = loss(_Fast(model, loop, tensors), step)
            found = torch.autograd.grad(
                support, list(tensors.values()), create_graph=loop.second_order, allow_unused=True
            )
            gradients = dict(zip(tensors, found, strict=True))
            tensors = {
                name: tensor if (gradient := gradients[name]) is None else tensor - rates[name] * gradient
                for name, tensor in tensors.items()
            }
            if not loop.second_order:
                tensors = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
        return _Fast(model, loop, tensors)
