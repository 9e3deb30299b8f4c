"""Model-agnostic meta-learning and its kin: the gradient of the query loss after the inner loop."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from metacalo.meta.algorithms.base import Algorithm, add_gradients, query_loss, support_loss
from metacalo.meta.engines import InnerLoop, meta_gradient
from metacalo.models.subspaces import SubspaceName
from metacalo.training_data.episodes import Episode

__all__ = ["ANIL", "CAVIA", "FOMAML", "MAML"]


class MAML(Algorithm):
    """Second order: the gradient goes through the inner steps (arXiv:1703.03400)."""

    second_order: ClassVar[bool] = True

    def step(self, episodes: list[Episode], noise: torch.Generator) -> Tensor:
        """See `Algorithm.step`."""
        parameters, losses = self.parameters(), []
        for episode in episodes:
            found = meta_gradient(
                self.engine, self.model, self.loop(episode), support_loss(episode, noise), query_loss(episode, noise)
            )
            add_gradients(parameters, found.parameters, 1 / len(episodes))
            losses.append(found.loss)
        return torch.stack(losses).mean()

    def loop(self, episode: Episode) -> InnerLoop:
        """The inner loop of an episode."""
        return self._loop(episode, second_order=self.second_order)


class FOMAML(MAML):
    """First order: the gradient at the adapted point (arXiv:1703.03400, section 5.2; arXiv:1803.02999)."""

    second_order = False


class ANIL(MAML):
    """Almost no inner loop: MAML whose inner loop moves the output layers only (arXiv:1909.09157)."""

    default_subspace: ClassVar[SubspaceName | None] = "head"
    fixed_subspace = True


class CAVIA(MAML):
    """Fast context adaptation: the inner loop moves the context only, from zero in each episode (arXiv:1810.03642).

    The outer loop moves all but the context, which is zero in the base as well: it says nothing of any one detector.
    """

    default_subspace: ClassVar[SubspaceName | None] = "context"
    fixed_subspace = True

    def prepare(self) -> None:
        """Sets the context to zero, where it stays."""
        with torch.no_grad():
            for parameter in self.inner.values():
                parameter.zero_()

    def parameters(self) -> dict[str, nn.Parameter]:
        """All but the context."""
        return {name: parameter for name, parameter in self.model.trainable().items() if name not in self.inner}

    def loop(self, episode: Episode) -> InnerLoop:
        """The inner loop of an episode, from zero."""
        zero = {name: nn.Parameter(torch.zeros_like(parameter)) for name, parameter in self.inner.items()}
        return self._loop(episode, second_order=True, start=zero)
