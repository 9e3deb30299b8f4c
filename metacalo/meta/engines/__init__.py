"""Engines: libraries that take the steps of an inner loop and keep, or cut, the graph through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from metacalo.errors import UnknownNameError
from metacalo.meta.engines.higher_engine import HigherEngine
from metacalo.meta.engines.inner_loop import Engine, FastModel, InnerLoop, InnerLoss, MetaGradient, meta_gradient
from metacalo.meta.engines.learn2learn_engine import Learn2LearnEngine
from metacalo.meta.engines.torch_engine import TorchEngine

__all__ = [
    "ENGINES",
    "Engine",
    "EngineName",
    "FastModel",
    "HigherEngine",
    "InnerLoop",
    "InnerLoss",
    "Learn2LearnEngine",
    "MetaGradient",
    "TorchEngine",
    "meta_gradient",
    "resolve_engine",
]

EngineName = Literal["torch", "higher", "learn2learn"]
ENGINES: dict[str, Callable[[], Engine]] = {
    "torch": TorchEngine,
    "higher": HigherEngine,
    "learn2learn": Learn2LearnEngine,
}


def resolve_engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        UnknownNameError: there is none.
        MissingExtraError: its library is not installed.
    """
    if name not in ENGINES:
        raise UnknownNameError("engine", name, ENGINES)
    return ENGINES[name]()
