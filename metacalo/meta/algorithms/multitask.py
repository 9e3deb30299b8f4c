"""Multi-task training: the baseline without an inner loop that meta-learning must beat."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from metacalo.meta.algorithms.base import Algorithm
from metacalo.models.subspaces import SubspaceName
from metacalo.training_data.episodes import Episode

__all__ = ["Multitask"]


class Multitask(Algorithm):
    """The plain gradient of the loss over all batches of the episodes, support and query, each shower counted once."""

    default_subspace: ClassVar[SubspaceName | None] = None
    fixed_subspace = True

    def step(self, episodes: list[Episode], noise: torch.Generator) -> Tensor:
        """See `Algorithm.step`."""
        batches = [batch for episode in episodes for batch in (*episode.support, episode.query)]
        showers = sum(map(len, batches))
        losses = []
        for batch in batches:
            loss = self.model(batch, noise) * (len(batch) / showers)
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()
