"""The parts of a normaliser: one contract for all of them, and the list of what they are.

A part holds tables or parameters that are fitted to a detector, predicted from its descriptors, averaged with that
prediction, and kept by name. Its maps are called `forward` (towards normal latents) and `inverse`, as in a composition
of transforms; what they need beside values differs, so that they are no part of this contract. A new part is a module
of its own and an entry of `PARTS`: how many values its prediction is worth, and how strongly the regression that
predicts it is held back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.normaliser.energy_dependence import EnergyDependence
from metacalo.normaliser.gamma_profile import log_layer_fractions
from metacalo.normaliser.longitudinal import Longitudinal
from metacalo.normaliser.marginals import N_ATOMS, ConditionalMarginals
from metacalo.normaliser.response import CALIBRATED, Response
from metacalo.normaliser.rings import ring_of_rows
from metacalo.normaliser.spectrum import Spectrum

__all__ = ["PARTS", "Axes", "Part", "PartKind"]

Axes = Mapping[str, Tensor]
"""What a part has beside its columns, the same for all detectors of a base: knots and planes of tables."""


class Part(Protocol):
    """What a normaliser knows of one step from showers to latents."""

    def columns(self) -> Float[Tensor, "S K column"]:
        """All that is fitted, for regression over detectors."""
        ...

    def row_weight(self) -> Float[Tensor, "S K"]:
        """Values (showers or hits) behind each row of the columns."""
        ...

    def shrunk_towards(self, prior: Self, strength: float) -> Self:
        """Averaged with `prior`, which counts as `strength` values of each row."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a safetensors file."""
        ...


def _no_axes(_: Any) -> Axes:
    return {}


def _plain_columns(part: Part, _scale: float) -> Float[Tensor, "S K column"]:
    return part.columns()


def _nothing(_descriptors: Tensor, _axes: Axes, columns: Tensor) -> Tensor:
    return torch.zeros_like(columns)


def _shrunk(part: Any, prior: Any, strength: float, _n_z: int) -> Any:
    return part.shrunk_towards(prior, strength)


@dataclass(frozen=True)
class PartKind:
    """One of the parts.

    Attributes:
        name: of the attribute of `Normaliser`, and of its tensors.
        prior_strength: values that a prediction counts for in each row of a usual detector (`prior_weight` finds how
            usual it is). Least error on a held-out detector at 50 and 400 shots.
        ridge: strength of the ridge of the regression, in detectors. Least error on detectors left out.
        from_columns: the part of columns that were predicted, without a value behind them.
        from_tensors: inverse of `Part.tensors`.
        axes: what the part has beside its columns.
        target: columns for the regression, of a file whose mean E_total / E_inc is given.
        expected: what the target is compared with, from descriptors and axes, in the shape of the columns.
        worth: values that a prediction is worth on a usual detector; None where rows are too noisy to find it.
        shrink: `Part.shrunk_towards`, with the number of layers.
    """

    name: str
    prior_strength: float
    ridge: float
    from_columns: Callable[[Tensor, Axes], Any]
    from_tensors: Callable[[Mapping[str, Tensor]], Any]
    axes: Callable[[Any], Axes] = _no_axes
    target: Callable[[Any, float], Tensor] = _plain_columns
    expected: Callable[[Tensor, Axes, Tensor], Tensor] = _nothing
    worth: float | None = None
    shrink: Callable[[Any, Any, float, int], Any] = _shrunk

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of this part by their names in it.

        Raises:
            KeyError: there are none.
        """
        start = f"{self.name}."
        found = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
        if not found:
            raise KeyError(self.name)
        return found


def _table(
    name: str,
    prior_strength: float,
    ridge: float,
    *,
    extrapolate: bool = False,
    expected: Callable[[Tensor, Axes, Tensor], Tensor] = _nothing,
    worth: float | None = None,
    shrink: Callable[[Any, Any, float, int], Any] = _shrunk,
) -> PartKind:
    """A part that is tables of conditional quantiles."""

    def from_columns(columns: Tensor, axes: Axes) -> ConditionalMarginals:
        weight = torch.zeros(columns.shape[:2])
        knots, planes = axes["knots"], axes["planes"]
        return ConditionalMarginals.from_columns(knots, columns, weight, extrapolate=extrapolate, planes=planes)

    def from_tensors(tensors: Mapping[str, Tensor]) -> ConditionalMarginals:
        return ConditionalMarginals.from_tensors(tensors, extrapolate=extrapolate)

    def axes(table: ConditionalMarginals) -> Axes:
        return {"knots": table.knots, "planes": table.planes}

    return PartKind(
        name,
        prior_strength,
        ridge,
        from_columns,
        from_tensors,
        axes,
        expected=expected,
        worth=worth,
        shrink=shrink,
    )


def _calibrated(response: Response, scale: float) -> Float[Tensor, "1 1 parameter"]:
    columns = response.columns().clone()
    if scale > CALIBRATED:
        columns[..., 0] += math.log(scale)  # what the sampling fraction left of the response
    return columns


def _gamma_profile(descriptors: Float[Tensor, "d"], axes: Axes, columns: Tensor) -> Float[Tensor, "z K column"]:
    expected = torch.zeros_like(columns)
    expected[..., N_ATOMS:] = log_layer_fractions(descriptors, axes["knots"], len(columns))[..., None].to(columns)
    return expected


def _rings_shrunk(rings: ConditionalMarginals, prior: ConditionalMarginals, strength: float, n_z: int) -> Any:
    """An error of the prediction that a ring has at all depths is estimated from the shots of all depths together."""
    return rings.shrunk_towards(prior, strength, ring_of_rows(len(rings.t0), n_z).to(rings.t0.device))


PARTS: Final[tuple[PartKind, ...]] = (
    PartKind(
        "total",
        prior_strength=10.0,
        ridge=0.1,
        from_columns=lambda columns, _: Response.from_vector(columns[0, 0], 0.0),
        from_tensors=Response.from_tensors,
        target=_calibrated,
    ),
    _table("layers", 120.0, 10.0, extrapolate=True, expected=_gamma_profile),
    _table("rings", 30.0, 2.0, shrink=_rings_shrunk),
    _table("hits", 25.0, 1.0, worth=6.0),
    _table("shares", 200.0, 10.0, worth=200.0),
    PartKind(
        "spectrum",
        prior_strength=500.0,
        ridge=10.0,
        from_columns=lambda columns, _: Spectrum.from_columns(columns, torch.zeros(len(columns))),
        from_tensors=Spectrum.from_tensors,
    ),
    PartKind(
        "energy_dependence",
        prior_strength=10.0,
        ridge=50.0,
        from_columns=lambda columns, _: EnergyDependence.from_columns(columns, torch.zeros(columns.shape[1])),
        from_tensors=EnergyDependence.from_tensors,
    ),
    PartKind(
        "longitudinal",
        prior_strength=250.0,
        ridge=50.0,
        from_columns=lambda columns, _: Longitudinal.from_columns(columns, torch.zeros(columns.shape[1])),
        from_tensors=Longitudinal.from_tensors,
    ),
)
"""In the order in which showers pass them, from the coarse to the fine, and then what acts on all latents."""
