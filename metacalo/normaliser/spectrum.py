"""The cell energies of a detector's own spectrum: what its edges and peaks are, in MeV.

Shares of a ring are tabulated relative to its mean hit, which blurs features of the absolute energy, such as the
deposit of a particle that crosses a cell. One monotone map of ln(E_cell) for each ring puts them back: fitted so that
decoded cells of true rings have the quantiles of the shots, and applied before the cells of a ring are made to add up.
The energy of a cell is here what it has above the threshold (`threshold`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metacalo.typing import ShowerTensor

__all__ = ["LOG_CELL_KNOTS", "Spectrum", "fit_spectrum"]

LOG_CELL_KNOTS = np.linspace(np.log(2e-3), np.log(4e3), 72)
"""Knots in ln(E / MeV) of a cell's energy above the threshold, 2 keV to 4 GeV; beyond them that of the end holds."""

_LEVELS = (np.arange(2000) + 0.5) / 2000
_ROUNDS = 3  # of fit and decoding: rings must add up, so that one cell's correction moves the others
_LEAST_STEP = 0.05  # of the knots' distance: keeps the map invertible
_FAR = 50.0  # in ln(energy): beyond any cell
_APART = 1e-3  # in ln(energy), of the ends of the search for c from its bounds
_NEARLY_ZERO = 1e-7  # of ln(sum of a ring): below single precision, which is what energies have
_MOST_STEPS = 60  # of that search; 4 for maps as they are fitted, 30 for the wildest


@dataclass(frozen=True)
class Spectrum:
    """Corrections of ln(E_cell) by ring.

    Attributes:
        offset: what is added to ln(E_cell) at `LOG_CELL_KNOTS`, shape (r, K).
        weight: cells behind each ring's row, shape (r,).
    """

    offset: Float[Tensor, "r K"]
    weight: Float[Tensor, "r"]

    @classmethod
    def none(cls, n_r: int) -> Spectrum:
        """One that changes nothing."""
        return cls(torch.zeros(n_r, len(LOG_CELL_KNOTS)), torch.zeros(n_r))

    def inverse(self, cells: ShowerTensor) -> ShowerTensor:
        """Cells in MeV (over the scale of the file) with the corrected spectrum and the same sums of rings."""
        shared = _Shared.of(cells)
        return shared.put(shared.add_up(self._mapped(shared.value, shared.row, inverse=False)), cells)

    def forward(self, cells: ShowerTensor) -> ShowerTensor:
        """Inverse of `inverse`.

        Those cells had the corrected energies c e with one c for each ring: the only one with which the ring adds up.
        """
        shared = _Shared.of(cells)

        def undone(log_c: Float[Tensor, "ring"]) -> Float[Tensor, "hit"]:
            return self._mapped(shared.value + log_c[shared.ring], shared.row, inverse=True)

        def excess(log_c: Float[Tensor, "ring"]) -> Float[Tensor, "ring"]:
            return torch.log(shared.sums(undone(log_c)) / shared.total)

        correction = self.corrections()
        row = torch.zeros_like(shared.total, dtype=torch.long).index_copy(0, shared.ring, shared.row)
        log_c = _root(excess, correction.amin(1)[row] - _APART, correction.amax(1)[row] + _APART)
        return shared.put(shared.add_up(undone(log_c)), cells)

    def _mapped(self, value: Float[Tensor, "hit"], row: Int[Tensor, "hit"], *, inverse: bool) -> Float[Tensor, "hit"]:
        """ln(E / MeV) through the map of their ring `row`, or its inverse."""
        image = self._image()
        sides = [_with_ends(side) for side in (_knots(image).expand_as(image), image)]
        start, end = reversed(sides) if inverse else sides
        # one search for all rings: each has a range of its own
        shift = 4 * _FAR * torch.arange(len(start), device=value.device).double()
        index = torch.searchsorted((start + shift[:, None]).flatten(), value + shift[row])
        index = (index - row * start.shape[1]).clamp(1, start.shape[1] - 1) + row * start.shape[1]
        (x0, x1), (y0, y1) = ((side.flatten()[index - 1], side.flatten()[index]) for side in (start, end))
        return torch.lerp(y0, y1, (value - x0) / (x1 - x0))

    def _image(self) -> Float[Tensor, "r K"]:
        """Corrected ln(E_cell) of the knots, made to ascend; double precision."""
        knots = _knots(self.offset)
        least = _LEAST_STEP * (knots - knots[0])
        return torch.cummax(knots + self.offset - least, dim=1).values + least

    def corrections(self) -> Float[Tensor, "r K"]:
        """What is added to ln(E / MeV) at the knots so that energies keep their order; double precision."""
        return self._image() - _knots(self.offset)

    def shrunk_towards(self, prior: Spectrum, strength: float) -> Spectrum:
        """Corrections averaged with `prior`'s, which count as `strength` cells of each ring."""
        share = (self.weight / (self.weight + strength))[:, None]
        return Spectrum(torch.lerp(prior.offset, self.offset, share), self.weight)

    def columns(self) -> Float[Tensor, "r K 1"]:
        """The corrections, for regression over detectors."""
        return self.offset[..., None]

    def row_weight(self) -> Float[Tensor, "r K"]:
        """Cells behind each correction."""
        return self.weight[:, None].expand(self.offset.shape)

    @classmethod
    def from_columns(cls, columns: Float[Tensor, "r K 1"], weight: Float[Tensor, "r"]) -> Spectrum:
        """Inverse of `columns`."""
        return cls(columns[..., 0], weight)

    def tensors(self) -> dict[str, Tensor]:
        """All parts by name, for a safetensors file."""
        return {"offset": self.offset, "weight": self.weight}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Spectrum:
        """Inverse of `tensors`."""
        return cls(tensors["offset"].float(), tensors["weight"].float())


def _knots(like: Tensor) -> Float[Tensor, "K"]:
    return torch.from_numpy(LOG_CELL_KNOTS).to(like.device)


def _root(
    function: Callable[[Float[Tensor, "ring"]], Float[Tensor, "ring"]],
    low: Float[Tensor, "ring"],
    high: Float[Tensor, "ring"],
) -> Float[Tensor, "ring"]:
    """Where increasing functions, below 0 at `low` and above it at `high`, are 0.

    By false position, which is safe where slopes jump; an end that stays twice counts half (Illinois), which is fast.
    """
    f_low, f_high = function(low), function(high)
    at, before = low, torch.zeros_like(low)
    for _ in range(_MOST_STEPS):
        at = (low * f_high - high * f_low) / (f_high - f_low)
        f_at = function(at)
        if not (f_at.abs() > _NEARLY_ZERO).any():
            break
        side = torch.where(f_at > 0, 1.0, -1.0)
        kept = torch.where(side == before, 0.5, 1.0)
        above, before = side > 0, side
        low, f_low = torch.where(above, low, at), torch.where(above, kept * f_low, f_at)
        high, f_high = torch.where(above, at, high), torch.where(above, f_at, kept * f_high)
    return at


def _with_ends(side: Float[Tensor, "r K"]) -> Float[Tensor, "r K+2"]:
    """Knots with one far out on either side, so that the corrections of the ends hold beyond them."""
    return torch.cat([side[:, :1] - _FAR, side, side[:, -1:] + _FAR], dim=1)


@dataclass(frozen=True)
class _Shared:
    """Hits that share their ring with others, one after another; double precision, where maps are steep.

    Attributes:
        index: places in the flat mesh.
        value: ln(E / MeV).
        row: ring of the mesh, 0 to r - 1.
        ring: number among the rings of `total`.
        total: energies of the rings in MeV.
    """

    index: Int[Tensor, "hit"]
    value: Float[Tensor, "hit"]
    row: Int[Tensor, "hit"]
    ring: Int[Tensor, "hit"]
    total: Float[Tensor, "ring"]

    @classmethod
    def of(cls, cells: ShowerTensor) -> _Shared:
        _, n_r, n_phi, n_z = cells.shape
        index = torch.nonzero(shared_hits(cells).flatten())[:, 0]
        z, r, n = index % n_z, index // (n_z * n_phi) % n_r, index // (n_z * n_phi * n_r)
        _, ring = torch.unique((n * n_r + r) * n_z + z, return_inverse=True)
        energy = cells.flatten()[index].double()
        nothing = energy.new_zeros(int(ring.max()) + 1 if len(ring) else 0)
        return cls(index, torch.log(energy), r, ring, nothing.index_add(0, ring, energy))

    def sums(self, value: Float[Tensor, "hit"]) -> Float[Tensor, "ring"]:
        """Ring energies of hits of ln(E / MeV) `value`."""
        return torch.zeros_like(self.total).index_add(0, self.ring, torch.exp(value))

    def add_up(self, value: Float[Tensor, "hit"]) -> Float[Tensor, "hit"]:
        """Energies in the ratios of exp(value) that add up to `total`."""
        return torch.exp(value) * (self.total / self.sums(value))[self.ring]

    def put(self, energy: Float[Tensor, "hit"], cells: ShowerTensor) -> ShowerTensor:
        """`cells` with these energies in the places of the hits."""
        return cells.flatten().index_copy(0, self.index, energy.to(cells)).reshape(cells.shape)


def shared_hits(cells: ShowerTensor) -> Bool[Tensor, "n r phi z"]:
    """Hits that share their ring with others."""
    hit = cells > 0
    return hit & (hit.sum(2, keepdim=True) > 1)


def fit_spectrum(
    cells: ShowerTensor, decode: Callable[[Spectrum], ShowerTensor], prior: Spectrum, strength: float
) -> Spectrum:
    """The corrections with which decoded cells have the spectrum of true ones, ring by ring.

    Args:
        cells: true ones in MeV (over the scale of the file), shape (n, r, phi, z).
        decode: cells of the same rings and hits drawn with a spectrum.
        prior: what the corrections start from and are shrunk towards.
        strength: see `Spectrum.shrunk_towards`.
    """
    counted = shared_hits(cells)
    weight = counted.sum((0, 2, 3)).to(prior.offset)
    found = Spectrum(prior.offset, weight)
    for _ in range(_ROUNDS):
        decoded = decode(found)
        offset = found.offset.clone()
        for ring in range(cells.shape[1]):
            true, drawn = (
                torch.log(x[:, ring][which[:, ring]]).numpy()
                for x, which in ((cells, counted), (decoded, shared_hits(decoded)))
            )
            if len(true) and len(drawn):
                offset[ring] = _corrected(offset[ring], true, drawn)
        found = Spectrum(offset, weight).shrunk_towards(prior, strength)
    return found


def _corrected(offset: Float[Tensor, "K"], true: np.ndarray, drawn: np.ndarray) -> Float[Tensor, "K"]:
    """Offsets of a ring that take `drawn`, made with `offset`, to the quantiles of `true`; both ln(E / MeV)."""
    at, wanted = np.quantile(drawn, _LEVELS), np.quantile(true, _LEVELS)
    more = np.interp(LOG_CELL_KNOTS + offset.numpy(), at, wanted - at)
    return offset + torch.from_numpy(more).to(offset)
