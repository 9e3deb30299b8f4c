"""Adaptation methods: which parameters of a generator move to the shots, how fast, and the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from metacalo.config import Device, Seed, Settings
from metacalo.models.subspaces import SubspaceName, in_subspace
from metacalo.runtime.run_log import WATTS_PER_CORE

__all__ = ["LEARNING_RATES", "RATE_SHARES", "Method", "MethodSettings", "rate_share"]

Method = Literal["conditioning", "bias", "low-rank", "modulation", "conditioning+bias", "adapters", "full"]
"""The subspace of `models.subspaces.SUBSPACES` that adaptation moves."""

LEARNING_RATES: Mapping[Method, float] = {
    "conditioning": 3e-3,
    "bias": 6e-3,
    "low-rank": 3e-3,
    "modulation": 1e-2,
    "conditioning+bias": 5e-3,
    "adapters": 1e-2,
    "full": 5e-4,
}
"""Highest learning rate of each method: the fewer parameters move, the farther each.

Measured in docs/experiments/adaptation-methods.md.
"""

RATE_SHARES: Mapping[Method, Mapping[SubspaceName, float]] = {
    "conditioning+bias": {"context": 1.0, "conditioning": 0.3, "modulation": 1.0, "bias": 0.6},
    "adapters": {"context": 1.0, "low-rank": 0.3, "bias": 0.6},
}
"""Subspaces of methods that move several, to their shares of the learning rate, in the ratios of their own rates;
a parameter belongs to the first that holds it, and one in none (the offsets of adaLN) has the whole rate."""


class MethodSettings(Settings):
    """How a generator moves to the shots."""

    method: Method = Field(
        default="conditioning+bias", description="which parameters move; the tokenizer is frozen in all"
    )
    steps: int = Field(default=20, ge=0, le=10_000_000, description="optimiser steps per generator, at most")
    batch: int = Field(default=32, ge=1, le=65536, description="showers of an optimiser step")
    learning_rate: float | None = Field(
        default=None, gt=0, description="highest learning rate; by default that of the method"
    )
    rank: int | None = Field(
        default=None, ge=1, description="components of each low-rank matrix that move, at most; by default all"
    )
    decay: float = Field(
        default=0.0, ge=0, description="pull towards the base: share of the way back in a step, over the learning rate"
    )
    average: float = Field(
        default=0.8, ge=0, lt=1, description="decay of the average of the parameters over the steps; 0 = none"
    )
    held_back: float = Field(default=0.15, gt=0, lt=1, description="share of the shots that early stopping watches")
    patience: int = Field(default=2, ge=1, description="checks without progress after which adaptation stops")
    check_every: int = Field(default=5, ge=1, description="steps between two checks")
    seed: Seed = 1
    device: Device = "cpu"
    autocast: bool = Field(default=True, description="bfloat16 matrix products")
    watts_per_core: float = Field(
        default=WATTS_PER_CORE, ge=0, description="power of a core in W, for the estimate of the energy used"
    )

    @property
    def highest_rate(self) -> float:
        """The learning rate after warm-up: the one given, else the method's of `LEARNING_RATES`."""
        return LEARNING_RATES[self.method] if self.learning_rate is None else self.learning_rate


def rate_share(name: str, method: Method) -> float:
    """Share of the method's learning rate with which the parameter of that name moves.

    Example:
        >>> rate_share("dit.blocks.0.attention.qkv.up", "adapters"), rate_share("dit.blocks.0.attention.qkv.up", "full")
        (0.3, 1.0)
    """
    return next((share for subspace, share in RATE_SHARES.get(method, {}).items() if in_subspace(name, subspace)), 1.0)
