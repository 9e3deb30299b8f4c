"""Outer-loop algorithms: from a meta-batch of episodes to gradients of the initialisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from metacalo.errors import UnknownNameError
from metacalo.generators.base import ShowerGenerator
from metacalo.meta.engines import Engine
from metacalo.meta.episodes import Episode

__all__ = ["ALGORITHMS", "Algorithm", "AlgorithmName", "resolve_algorithm"]

AlgorithmName = Literal["maml", "fomaml"]
Algorithm = Callable[[ShowerGenerator, list[Episode], Engine, float, torch.Generator], Tensor]
"""(generator, episodes, engine, inner rate, noise) to the mean query loss; adds gradients to `parameter.grad`."""


def maml(
    model: ShowerGenerator, episodes: list[Episode], engine: Engine, rate: float, noise: torch.Generator
) -> Tensor:
    """Second-order model-agnostic meta-learning (arXiv:1703.03400)."""
    return _outer(model, episodes, engine, rate, noise, second_order=True)


def fomaml(
    model: ShowerGenerator, episodes: list[Episode], engine: Engine, rate: float, noise: torch.Generator
) -> Tensor:
    """First-order MAML: the gradient at the adapted point (arXiv:1703.03400, section 5.2; arXiv:1803.02999)."""
    return _outer(model, episodes, engine, rate, noise, second_order=False)


ALGORITHMS: dict[str, Algorithm] = {"maml": maml, "fomaml": fomaml}


def resolve_algorithm(name: str) -> Algorithm:
    """The algorithm of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in ALGORITHMS:
        raise UnknownNameError("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]


def _outer(
    model: ShowerGenerator,
    episodes: list[Episode],
    engine: Engine,
    rate: float,
    noise: torch.Generator,
    *,
    second_order: bool,
) -> Tensor:
    parameters = model.trainable()
    losses = []
    for episode in episodes:

        def inner_loss(fast: Any, step: int, episode: Episode = episode) -> Tensor:
            return fast(episode.support[step], noise)  # type: ignore[no-any-return]

        def query_loss(fast: Any, episode: Episode = episode) -> Tensor:
            return fast(episode.query, noise)  # type: ignore[no-any-return]

        loss, gradients = engine.query_gradients(
            model,
            list(model.adaptable()),
            inner_loss,
            query_loss,
            steps=len(episode.support),
            rate=rate,
            second_order=second_order,
        )
        losses.append(loss)
        for name, gradient in gradients.items():
            parameter = parameters[name]
            share = gradient / len(episodes)
            parameter.grad = share if parameter.grad is None else parameter.grad + share
    return torch.stack(losses).mean()
