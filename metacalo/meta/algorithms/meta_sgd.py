"""Meta-SGD: the inner loop's step sizes are learned with the initialisation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metacalo.generators.base import ShowerGenerator
from metacalo.meta.algorithms.base import Algorithm, add_gradients, query_loss, support_loss
from metacalo.meta.engines import Engine, meta_gradient
from metacalo.models.subspaces import SubspaceName
from metacalo.training_data.episodes import Episode

__all__ = ["MetaSGD"]


class MetaSGD(Algorithm):
    """MAML with a rate for each element of each inner parameter (arXiv:1707.09835), second order.

    Rates are `rate` exp(s), so that they stay positive; s begins at zero, where the outer loop's weight decay pulls it.
    """

    def __init__(
        self, model: ShowerGenerator, engine: Engine, *, rate: float, subspace: SubspaceName | None = None
    ) -> None:
        super().__init__(model, engine, rate=rate, subspace=subspace)
        self._log_scales = {name: nn.Parameter(torch.zeros_like(value)) for name, value in self.inner.items()}

    def parameters(self) -> dict[str, nn.Parameter]:
        """The model's trainable parameters, and `rates/<name>`, the s of each inner parameter."""
        return {**super().parameters(), **{f"rates/{name}": scale for name, scale in self._log_scales.items()}}

    def rates(self) -> dict[str, Tensor]:
        """Step sizes by parameter, of its shape, in units of parameter per gradient."""
        return {name: self.rate * scale.detach().exp() for name, scale in self._log_scales.items()}

    def step(self, episodes: list[Episode], noise: torch.Generator) -> Tensor:
        """See `Algorithm.step`."""
        parameters, losses = self.parameters(), []
        rates = {name: rate.requires_grad_() for name, rate in self.rates().items()}
        for episode in episodes:
            found = meta_gradient(
                self.engine,
                self.model,
                self._loop(episode, second_order=True, rate=rates),
                support_loss(episode, noise),
                query_loss(episode, noise),
            )
            add_gradients(parameters, found.parameters | _of_scales(found.rates, rates), 1 / len(episodes))
            losses.append(found.loss)
        return torch.stack(losses).mean()


def _of_scales(gradients: Mapping[str, Tensor], rates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of rates as those of s: d rate / d s = rate."""
    return {f"rates/{name}": gradient * rates[name].detach() for name, gradient in gradients.items()}
