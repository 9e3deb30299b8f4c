"""Reptile: towards where the inner loop ends."""

from __future__ import annotations

import torch
from torch import Tensor

from metacalo.meta.algorithms.base import Algorithm, add_gradients, query_loss, support_loss
from metacalo.training_data.episodes import Episode

__all__ = ["Reptile"]


class Reptile(Algorithm):
    """The start minus what the inner loop leads to stands in for the gradient (arXiv:1803.02999), first order.

    Only the inner parameters get one. The query set does not enter; its loss is logged, as for the other algorithms.
    """

    def step(self, episodes: list[Episode], noise: torch.Generator) -> Tensor:
        """See `Algorithm.step`."""
        losses = []
        for episode in episodes:
            fast = self.engine.adapt(self.model, self._loop(episode, second_order=False), support_loss(episode, noise))
            with torch.no_grad():
                losses.append(query_loss(episode, noise)(fast))
                moved = {name: start - fast.inner()[name] for name, start in self.inner.items()}
            add_gradients(self.inner, moved, 1 / len(episodes))
        return torch.stack(losses).mean()
