"""Settings of a sweep, and what they say of a study: its name, and what all its trials must have in common."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from metacalo.adaptation.methods import MethodSettings
from metacalo.config import Device, Seed, Settings
from metacalo.model_folders.adapted import ShowerModel
from metacalo.showers.shower_file import Showers
from metacalo.sweep.objective import FIDELITIES, Objective, needs_showers
from metacalo.sweep.space import SearchSpace
from metacalo.sweep.study import PruneRule

__all__ = ["FEWEST_SHOTS", "SweepSettings", "identity_of", "study_name"]

FEWEST_SHOTS = 20
"""Below, distances of observables say nothing."""


class SweepSettings(Settings):
    """Everything that decides what a sweep finds."""

    base: str = Field(default="base", description="name or folder of the base")
    shots: int = Field(default=400, ge=FEWEST_SHOTS, description="showers to adapt to, and to be judged on")
    generator: Literal["diffusion", "ar"] = Field(default="diffusion", description="what is adapted")
    objectives: tuple[Objective, ...] = Field(
        default=("w1",), description="one of w1, fpd and loss; and seconds or shower_ms for a Pareto front"
    )
    trials: int = Field(default=50, ge=1, description="trials of the study, in all workers together")
    space: SearchSpace = Field(default_factory=SearchSpace.default)
    folds: int = Field(default=2, ge=2, description="parts of the shots, each held back in turn")
    showers_per_shot: int = Field(default=1, ge=1, description="showers generated for each held-back shot")
    prune: PruneRule = Field(default="median", description="when a trial that does badly is ended early")
    startup: int = Field(default=10, ge=1, description="trials at random before TPE and pruning begin")
    heartbeat: float = Field(default=5.0, gt=0, description="seconds between two signs of life of a worker")
    retries: int = Field(default=3, ge=0, description="how often a trial is run again whose worker was lost")
    study: str | None = Field(
        default=None, min_length=1, description="name of the study in the storage; by default made up"
    )
    compared_showers: int = Field(
        default=200, ge=0, description="showers of the before/after comparison of the best model"
    )
    seed: Seed = 1
    device: Device = "cpu"
    autocast: bool = Field(default=True, description="bfloat16 matrix products")

    @field_validator("objectives")
    @classmethod
    def _fidelity_first(cls, objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
        cost = [name for name in objectives if name not in FIDELITIES]
        if not objectives or objectives[0] not in FIDELITIES or len(objectives) > 2 or len(cost) < len(objectives) - 1:
            message = "give w1, fpd or loss, and with it at most one of seconds and shower_ms"
            raise ValueError(message)
        return objectives

    @model_validator(mode="after")
    def _space_is_seen(self) -> Self:
        self.effective_space  # noqa: B018  # raises where nothing is left
        if self.shots < 2 * self.folds:
            message = f"{self.folds} folds of {self.shots} shots are too small; take fewer folds"
            raise ValueError(message)
        return self

    def with_space(self, space: SearchSpace) -> Self:
        """The same settings with another space, validated again.

        Raises:
            ConfigError: nothing in it varies what the objective depends on.
        """
        return self.build({**self.model_dump(), "space": space.model_dump()}, source="--space")

    @property
    def effective_space(self) -> SearchSpace:
        """The part of the space that the objective depends on."""
        return self.space.of(self.generator, sampled=needs_showers(self.objectives))

    @property
    def several(self) -> bool:
        """Whether there is a front and not one best."""
        return len(self.objectives) > 1

    @property
    def pruned(self) -> PruneRule:
        """The rule in force: Optuna does not prune where there is more than one objective."""
        return "none" if self.several else self.prune

    @property
    def most_steps(self) -> int:
        """Of the optimiser in one adaptation."""
        steps = self.space.steps
        ends = () if steps is None else steps.ends()
        return max((int(end) for end in ends), default=MethodSettings().steps)


def study_name(settings: SweepSettings, detector: str) -> str:
    """The name given, else one of detector, shots, generator, objectives and space."""
    if settings.study is not None:
        return settings.study
    space = hashlib.sha256(json.dumps(_space_of(settings), sort_keys=True).encode()).hexdigest()[:8]
    return "-".join([detector, str(settings.shots), settings.generator, *settings.objectives, space])


def identity_of(settings: SweepSettings, model: ShowerModel, shots: Showers) -> dict[str, Any]:
    """What all trials of a study must have in common, or their values could not be compared."""
    found = {
        "detector": model.detector.name,
        "shots": settings.shots,
        "content of the shots": hashlib.sha256(np.sort(shots.hashes()).tobytes()).hexdigest(),
        "description of the detector": {key: _plain(value) for key, value in model.detector.to_attributes().items()},
        "base": model.base.config.name,
        "hash of the base": model.base.hash,
        "generator": settings.generator,
        "objectives": list(settings.objectives),
        "space": _space_of(settings),
        "folds": settings.folds,
        "showers per shot": settings.showers_per_shot,
        "pruning": settings.pruned,
        "startup": settings.startup,
        "heartbeat": settings.heartbeat,  # or one worker would take another's trials for lost
        "seed": settings.seed,
    }
    return dict(json.loads(json.dumps(found)))  # as it comes back from a storage


def _space_of(settings: SweepSettings) -> dict[str, Any]:
    return settings.effective_space.model_dump(mode="json", exclude_none=True)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
