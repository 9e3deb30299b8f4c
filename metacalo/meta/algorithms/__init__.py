"""Outer-loop algorithms: from a meta-batch of episodes to gradients of what is meta-trained."""

from __future__ import annotations

from typing import Literal

from metacalo.errors import UnknownNameError
from metacalo.meta.algorithms.base import Algorithm
from metacalo.meta.algorithms.maml import ANIL, CAVIA, FOMAML, MAML
from metacalo.meta.algorithms.meta_sgd import MetaSGD
from metacalo.meta.algorithms.multitask import Multitask
from metacalo.meta.algorithms.reptile import Reptile

__all__ = ["ALGORITHMS", "Algorithm", "AlgorithmName", "MetaSGD", "resolve_algorithm"]

AlgorithmName = Literal["maml", "fomaml", "anil", "meta-sgd", "cavia", "reptile", "multitask"]
ALGORITHMS: dict[str, type[Algorithm]] = {
    "maml": MAML,
    "fomaml": FOMAML,
    "anil": ANIL,
    "meta-sgd": MetaSGD,
    "cavia": CAVIA,
    "reptile": Reptile,
    "multitask": Multitask,
}


def resolve_algorithm(name: str) -> type[Algorithm]:
    """The algorithm of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in ALGORITHMS:
        raise UnknownNameError("algorithm", name, ALGORITHMS)
    return ALGORITHMS[name]
