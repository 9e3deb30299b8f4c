"""What every outer-loop algorithm is, and what they share: an episode's inner loop and its losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from metacalo.errors import ConfigError
from metacalo.generators.base import ShowerGenerator
from metacalo.meta.engines import Engine, FastModel, InnerLoop, InnerLoss
from metacalo.models.subspaces import SubspaceName
from metacalo.training_data.episodes import Episode

__all__ = ["Algorithm", "add_gradients", "query_loss", "support_loss"]


class Algorithm(ABC):
    """Meta-trains a generator: `step` turns a meta-batch of episodes into gradients, an outer optimizer does the rest.

    Attributes:
        default_subspace: what the inner loop moves by default; None where there is no inner loop.
        fixed_subspace: whether it is part of what the algorithm is.
        inner: the parameters that the inner loop moves, by name.
    """

    default_subspace: ClassVar[SubspaceName | None] = "adapters"
    fixed_subspace: ClassVar[bool] = False

    def __init__(
        self, model: ShowerGenerator, engine: Engine, *, rate: float, subspace: SubspaceName | None = None
    ) -> None:
        self.model, self.engine, self.rate = model, engine, rate
        moved = self.inner_subspace(subspace)
        self.inner = {} if moved is None else model.subspace(moved)

    @classmethod
    def inner_subspace(cls, wanted: SubspaceName | None = None) -> SubspaceName | None:
        """What the inner loop moves where `wanted` is asked for.

        Raises:
            ConfigError: the algorithm moves another subspace, or none.
        """
        if cls.fixed_subspace and wanted not in (None, cls.default_subspace):
            moved = "nothing" if cls.default_subspace is None else f"the subspace '{cls.default_subspace}'"
            raise ConfigError(f"the inner loop of this algorithm moves {moved}, not '{wanted}'; leave the subspace out")
        return wanted or cls.default_subspace

    def prepare(self) -> None:  # noqa: B027  most have nothing to do
        """Puts the model where outer training begins."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """What the outer loop moves, by name; `rates/...` are no part of the model."""
        return self.model.trainable()

    def rates(self) -> dict[str, Tensor]:
        """Learned step sizes of the inner parameters, by name; empty where they are not learned."""
        return {}

    @abstractmethod
    def step(self, episodes: list[Episode], noise: torch.Generator) -> Tensor:
        """The mean loss over the episodes, without its graph; adds gradients to `parameter.grad`.

        Args:
            episodes: the meta-batch.
            noise: generator of the losses' own noise.
        """

    def share_of_step(self, episodes: list[Episode], noises: Sequence[torch.Generator], of: int) -> Tensor:
        """What some episodes of a meta-batch of `of` add to its mean loss and to `parameter.grad`.

        Args:
            episodes: this process's; there may be none.
            noises: generator of the losses' own noise of each, so that it does not depend on the others.
            of: episodes of the meta-batch.
        """
        losses = [self.step([episode], noise) for episode, noise in zip(episodes, noises, strict=True)]
        for parameter in self.parameters().values():
            if parameter.grad is not None:
                parameter.grad /= of
        return torch.stack(losses).sum() / of if losses else next(iter(self.parameters().values())).new_zeros(())

    def _loop(
        self,
        episode: Episode,
        *,
        second_order: bool,
        start: Mapping[str, nn.Parameter] | None = None,
        rate: Mapping[str, Tensor] | None = None,
    ) -> InnerLoop:
        """One step for each support batch, from the model's own parameters at the common rate by default."""
        return InnerLoop(
            self.inner if start is None else start,
            self.rate if rate is None else rate,
            steps=len(episode.support),
            second_order=second_order,
        )


def support_loss(episode: Episode, noise: torch.Generator) -> InnerLoss:
    """(model, step) to the loss of the step's support batch."""
    return lambda fast, step: fast(episode.support[step], noise)


def query_loss(episode: Episode, noise: torch.Generator) -> Callable[[FastModel], Tensor]:
    """(model) to the loss of the query batch."""
    return lambda fast: fast(episode.query, noise)


def add_gradients(parameters: Mapping[str, nn.Parameter], gradients: Mapping[str, Tensor], weight: float = 1.0) -> None:
    """Adds `weight` times each gradient to the `.grad` of the parameter of its name; others are left out."""
    for name, parameter in parameters.items():
        if name in gradients:
            share = weight * gradients[name]
            parameter.grad = share if parameter.grad is None else parameter.grad + share
