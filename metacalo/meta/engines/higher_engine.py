"""Inner loops with `higher` (arXiv:1910.01727): differentiable SGD on a functional copy."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from metacalo.meta.engines.inner_loop import FastModel, InnerLoop, InnerLoss, InnerModel

__all__ = ["HigherEngine"]


class HigherEngine:
    """`higher.innerloop_ctx`; the library, last released in 2020, is imported when this engine is chosen."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # higher 0.2.1 imports names that torch has deprecated
            import higher
        self._higher = higher

    def adapt(self, model: nn.Module, loop: InnerLoop, loss: InnerLoss) -> FastModel:
        """See `Engine`."""
        inner = InnerModel(model, loop)
        # a group for each parameter, so that each can have a rate of its own
        optimizer = torch.optim.SGD([{"params": [parameter]} for parameter in inner.parameters()], lr=1.0)
        with self._higher.innerloop_ctx(
            inner,
            optimizer,
            copy_initial_weights=False,
            override={"lr": list(loop.rates().values())},
            track_higher_grads=loop.second_order,
        ) as (fast, differentiable):
            for step in range(loop.steps):
                differentiable.step(loss(fast, step))
        return fast  # type: ignore[no-any-return]
