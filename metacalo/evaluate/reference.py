"""The reference that samples are compared with, and how."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from metacalo.config import Settings
from metacalo.evaluate.calochallenge import CHALLENGE_THRESHOLD, challenge_features
from metacalo.evaluate.checks import FEWEST
from metacalo.evaluate.classifier import ClassifierTest, classify_observables, classify_voxels
from metacalo.evaluate.metrics import Cut
from metacalo.evaluate.observables import Observables, observables
from metacalo.evaluate.signatures import Signatures, signatures
from metacalo.showers.shower_file import Showers

__all__ = ["EvaluateSettings", "Reference", "classified", "features_of_challenge"]

Array = NDArray[np.float64]


class EvaluateSettings(Settings):
    """How two samples are compared."""

    seed: int = Field(default=0, ge=0, description="seed of everything random")
    max_showers: int = Field(
        default=10_000, ge=FEWEST, description="showers read of each file, at most, drawn at random"
    )
    classifiers: bool = Field(default=True, description="train the two classifiers, which take most of the time")
    rotations: int = Field(
        default=5, ge=1, le=5, description="fifths of the sample that the classifiers are tested on; 5 = every shower"
    )
    splits: int = Field(
        default=5,
        ge=1,
        description="random halvings of the reference, over which figures that depend on the number of showers are "
        "averaged",
    )
    threshold: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="set deposits below it to 0 in all samples before anything is computed, MeV",
    )
    calochallenge: bool | None = Field(
        default=None,
        description="add FPD and KPD by the CaloChallenge's definitions; by default where a file keeps its layout",
    )
    pages: bool = Field(default=True, description="write the report: HTML, PDF and single figures")

    def draw(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """`rows`, or `max_showers` of them drawn at random, in their order."""
        if len(rows) <= self.max_showers:
            return rows
        order = np.random.default_rng(self.seed).permutation(len(rows))
        return np.sort(rows[order[: self.max_showers]])

    def subset(self, showers: Showers) -> Showers:
        """`showers`, or `max_showers` of them drawn at random, without the deposits below the threshold."""
        chosen = showers if len(showers) <= self.max_showers else showers.select(self.draw(np.arange(len(showers))))
        return self.cut(chosen)

    def cut(self, showers: Showers) -> Showers:
        """The showers with 0 in the place of deposits below the threshold."""
        if self.threshold == 0:
            return showers
        low = (showers.showers >= 0) & (showers.showers < np.float32(self.threshold))  # negative ones stay an error
        return replace(showers, showers=np.where(low, np.float32(0), showers.showers)) if low.any() else showers


class Reference:
    """Geant4 showers that samples are compared with; what does not depend on these is worked out once.

    Attributes:
        showers: at most `max_showers` of those given, above the threshold.
        settings: see `EvaluateSettings`.
    """

    def __init__(self, showers: Showers, settings: EvaluateSettings) -> None:
        self.showers, self.settings = settings.subset(showers), settings
        self._floors: dict[tuple[int, int], dict[str, ClassifierTest]] = {}

    def __len__(self) -> int:
        return len(self.showers)

    @cached_property
    def observables(self) -> Observables:
        """Those of all its showers."""
        return observables(self.showers.showers, self.showers.energy)

    @cached_property
    def features(self) -> Array:
        """See `Observables.features`."""
        return self.observables.features()[0]

    @cached_property
    def signatures(self) -> Signatures:
        """Those of all its showers."""
        return signatures(self.showers)

    @cached_property
    def challenge_features(self) -> Array:
        """See `challenge_features`."""
        return features_of_challenge(self.showers)

    def classifier_floors(self, cut: Cut) -> dict[str, ClassifierTest]:
        """Of the first half of a cut against the second."""
        key = len(cut.first), len(cut.second)
        if key not in self._floors:
            halves = [(self.showers.select(rows), self.features[rows]) for rows in (cut.first, cut.second)]
            self._floors[key] = classified(*halves[0], *halves[1], self.settings)
        return self._floors[key]

    def alike(self, energies: Showers) -> Reference:
        """Itself, or where a part of its showers was left out, that part."""
        return self if len(energies) == len(self.showers) else Reference(energies, self.settings)


def features_of_challenge(showers: Showers) -> Array:
    """The CaloChallenge's features of showers, cut at its threshold first, (N, 2 + 8 Z)."""
    return challenge_features(observables(showers.showers, showers.energy, threshold=CHALLENGE_THRESHOLD))


def classified(
    first: Showers, first_features: Array, second: Showers, second_features: Array, settings: EvaluateSettings
) -> dict[str, ClassifierTest]:
    """Both classifiers on two samples and their observables (N, F) and (M, F): `low_level` and `high_level`."""
    options = {"seed": settings.seed, "rotations": settings.rotations}
    return {
        "low_level": classify_voxels(first, second, **options),
        "high_level": classify_observables(first, first_features, second, second_features, **options),
    }
