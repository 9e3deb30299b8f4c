"""Ranges of energy and angle that a model has seen, and showers outside of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, ValidationError

from metacalo.config import Settings

__all__ = [
    "RANGE",
    "TRAINED_ENERGY_MEV",
    "TRAINED_THETA",
    "ConditionRange",
    "OutsideRangeWarning",
    "left_range",
    "range_of_attributes",
    "warn_outside",
]

TRAINED_ENERGY_MEV = (1e3, 1e5)
"""Energies of the shipped showers, 1 to 100 GeV: the range that ln(E) is mapped from to [-1, 1]."""

TRAINED_THETA = (0.87, 2.27)
"""Polar angles of the shipped showers, in rad."""

RANGE = "model_range"
"""Attribute of a file of generated showers: what its model was made from, as JSON."""

_TOLERANCE = 0.01  # of an energy, and of a radian
_LARGEST_GAP = 0.1  # over the width of the range
_GAPS = 3.0  # mean distances between neighbours: one sample in twenty ends as far before the end of its spectrum


class OutsideRangeWarning(UserWarning):
    """Showers have energies or angles that the model has not seen."""


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        message = "the lower end comes first"
        raise ValueError(message)
    return ends


_Energies = Annotated[tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ordered)]
_Angles = Annotated[tuple[float, float], AfterValidator(_ordered)]


class ConditionRange(Settings):
    """Lowest and highest energy and angles of a sample of showers.

    Attributes:
        showers: size of the sample.
        energy_MeV: incident energies in MeV.
        theta_rad: polar angles in rad.
        phi_rad: azimuths in rad, where they are known. Showers do not depend on them.
    """

    showers: int = Field(ge=1)
    energy_MeV: _Energies  # noqa: N815
    theta_rad: _Angles
    phi_rad: _Angles | None = None

    @classmethod
    def of(cls, energy: NDArray[np.floating], theta: NDArray[np.floating], phi: NDArray[np.floating] | None) -> Self:
        """The range of showers with energies in MeV and angles in rad, each (n,)."""
        ends = [None if x is None else (float(np.min(x)), float(np.max(x))) for x in (energy, theta, phi)]
        return cls(showers=len(energy), energy_MeV=ends[0], theta_rad=ends[1], phi_rad=ends[2])  # type: ignore[arg-type]

    @classmethod
    def shipped(cls) -> Self:
        """What the showers of the tasks that ship with metacalo have: 1 to 100 GeV, theta 0.87 to 2.27 rad."""
        return cls(showers=10_000, energy_MeV=TRAINED_ENERGY_MEV, theta_rad=TRAINED_THETA)

    def union(self, other: Self) -> Self:
        """What either sample has."""
        (low, high), (least, most) = (
            (min(one[0], two[0]), max(one[1], two[1]))
            for one, two in ((self.energy_MeV, other.energy_MeV), (self.theta_rad, other.theta_rad))
        )
        return type(self)(showers=self.showers + other.showers, energy_MeV=(low, high), theta_rad=(least, most))

    def outside(
        self, energy: NDArray[np.floating], theta: NDArray[np.floating]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which energies (n,) in MeV, and which polar angles (n,) in rad, lie outside.

        A sample does not reach the ends of the spectrum from which it was drawn: a range is left by more than 1 % (of
        the energy, or of a radian) and three mean distances between neighbours, at most a tenth of its width.
        theta and pi - theta are the same.
        """
        level, (low, high) = np.log(energy), np.log(self.energy_MeV)
        far_in_energy = self._beyond(level, float(low), float(high))
        far_in_angle = self._beyond(theta, *self.theta_rad) & self._beyond(math.pi - theta, *self.theta_rad)
        return far_in_energy, far_in_angle

    def _beyond(self, values: NDArray[np.floating], low: float, high: float) -> NDArray[np.bool_]:
        slack = _TOLERANCE + (high - low) * min(_GAPS / self.showers, _LARGEST_GAP)
        return np.asarray((values < low - slack) | (values > high + slack))

    @property
    def energies(self) -> str:
        """Energies in words, such as `1 to 100 GeV`."""
        low, high = (f"{energy / 1e3:.3g}" for energy in self.energy_MeV)
        return f"{low} GeV" if low == high else f"{low} to {high} GeV"

    @property
    def angles(self) -> str:
        """Polar angles in words, such as `theta 0.87 to 2.27 rad`."""
        low, high = (f"{theta:.3g}" for theta in self.theta_rad)
        return f"theta {low} rad" if low == high else f"theta {low} to {high} rad"

    def __str__(self) -> str:
        return f"{self.energies}, {self.angles}"


def range_of_attributes(attributes: Mapping[str, Any]) -> ConditionRange | None:
    """The range that a file of generated showers names; None where it names none that can be read."""
    try:
        return ConditionRange.model_validate_json(str(attributes.get(RANGE)))
    except ValidationError:
        return None


def left_range(
    seen: ConditionRange, whose: str, energy: NDArray[np.floating], theta: NDArray[np.floating], showers: str, mend: str
) -> list[str]:
    """Sentences on showers outside a range: none, or one each for energy and angle.

    Args:
        seen: the range.
        whose: its owner, such as `the shots`.
        energy: of the showers, (n,), in MeV.
        theta: of the showers, (n,), in rad.
        showers: their name, such as `showers`.
        mend: what can be done.
    """
    sentences = []
    for rows, values, unit, name, bounds in zip(
        seen.outside(energy, theta),
        (energy / 1e3, theta),
        ("GeV", "rad"),
        ("energies", "angles"),
        (seen.energies, seen.angles),
        strict=True,
    ):
        if rows.any():
            low, high = (f"{end:.3g}" for end in (values[rows].min(), values[rows].max()))
            found = low if low == high else f"{low} to {high}"
            sentences.append(
                f"{np.count_nonzero(rows)} of {len(rows)} {showers} have {name} outside {bounds}, the range of {whose} "
                f"({found} {unit}); {mend}"
            )
    return sentences


def warn_outside(sentences: Iterable[str], *, stacklevel: int = 3) -> None:
    """Warns with each of the sentences of `left_range`."""
    for sentence in sentences:
        warnings.warn(sentence, OutsideRangeWarning, stacklevel=stacklevel)
