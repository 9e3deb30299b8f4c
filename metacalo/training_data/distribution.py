"""What episodes are distributed over: tasks, windows of energy and angle within one, support and query sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Window", "draw_window", "split_rows", "task_probabilities"]


def task_probabilities(showers: Sequence[int], exponent: float) -> Float[Tensor, "task"]:
    """Probability of each task, proportional to its number of showers to the power of `exponent`; float64."""
    weights = torch.tensor(showers, dtype=torch.float64) ** exponent
    return weights / weights.sum()


@dataclass(frozen=True)
class Window:
    """Part of a detector's incident energies and angles.

    Attributes:
        width: share of the range of ln E, and of that of the angle to the normal of the layers, |theta - pi/2|. That
            angle is the same for a shower and its mirror images, so that a window does not break their symmetry.
        places: where the window lies along each of the two, 0 = at the low end, 1 = at the high end.
    """

    width: float
    places: tuple[float, float]

    def rows(self, energy: Float[np.ndarray, "n"], theta: Float[np.ndarray, "n"], at_least: int) -> Int[Tensor, "m"]:
        """The showers inside; the window is doubled until it holds `at_least` of them, or is all there is.

        Args:
            energy: incident energies in MeV.
            theta: polar angles in rad.
            at_least: how many showers are wanted.
        """
        coordinates = np.log(energy.astype(np.float64)), np.abs(theta.astype(np.float64) - np.pi / 2)
        width = self.width
        while width < 1:
            inside = np.ones(len(energy), bool)
            for values, place in zip(coordinates, self.places, strict=True):
                low = values.min() + place * (1 - width) * np.ptp(values)
                inside &= (values >= low) & (values <= low + width * np.ptp(values))
            if inside.sum() >= at_least:
                return torch.from_numpy(np.flatnonzero(inside))
            width *= 2
        return torch.arange(len(energy))


def draw_window(share: float, width: float, generator: torch.Generator) -> Window | None:
    """A window at random places, or None, which is all showers, in the rest of the cases.

    Args:
        share: of the cases with a window.
        width: see `Window`.
        generator: draws; untouched where `share` is 0.
    """
    if share == 0:
        return None
    drawn, *places = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    return Window(width, (places[0], places[1])) if drawn < share else None


def split_rows(rows: Tensor, support: int, query: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`support` and `query` of the row numbers (n,), at random and with none in both.

    Where there are enough, all are different. Fewer are dealt out to the two sides in proportion, and drawn from there
    with replacement. A single row is on both sides.
    """
    shuffled = rows[torch.randperm(len(rows), generator=generator)]
    if len(rows) >= support + query:
        return shuffled[:support], shuffled[support : support + query]
    n_query = min(max(1, round(len(rows) * query / (support + query))), len(rows) - 1)
    sides = (shuffled[n_query:], shuffled[:n_query] if n_query else shuffled)
    first, second = (
        side[torch.randint(len(side), (n,), generator=generator)]
        for side, n in zip(sides, (support, query), strict=True)
    )
    return first, second
