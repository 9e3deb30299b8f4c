"""High-level shower observables: what a physicist compares before trusting a fast simulation.

Lengths are in cells (layers along z, r cells across) and fractions are of the shower's own energy, so that
nothing here depends on the detector's cell size or on whether a file divides by the sampling fraction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metacalo.errors import ShowerFileError
from metacalo.typing import FloatArray

__all__ = ["RELATIVE_EDGES", "SPECTRUM_EDGES", "Observables", "observables"]

Array = NDArray[np.float64]

SPECTRUM_EDGES: Final[Array] = np.linspace(-2.0, 4.0, 61)
"""Edges of the voxel-energy spectrum in log10(voxel / MeV): 0.01 MeV to 10 GeV, ten bins a decade."""

RELATIVE_EDGES: Final[Array] = np.linspace(-6.0, -1.5, 16)
"""Edges of the relative spectrum in log10(voxel / incident energy); fifteen bins that real showers fill."""

_CHUNK_VOXELS = 1 << 21  # about 8 MB of float32 at a time
_LEADING = 0.1
_MOMENTS = (
    "longitudinal_mean",
    "longitudinal_width",
    "lateral_mean",
    "lateral_width",
    "centre_x",
    "centre_y",
    "width_x",
    "width_y",
)


@dataclass(frozen=True, eq=False)
class Observables:
    """Observables of N showers on an R x PHI x Z mesh, float64.

    An empty shower has zeros everywhere but in `layer_centre_x` to `layer_width_r`.

    Attributes:
        energy: incident energy, (N,), MeV.
        response: total deposited energy over incident energy, (N,).
        layer_energy: energy per layer, (N, Z), MeV.
        layer_fraction: energy per layer over the shower's energy, (N, Z).
        ring_fraction: energy per r ring over the shower's energy, (N, R).
        longitudinal_mean, longitudinal_width: energy-weighted mean and standard deviation of depth, (N,), layers.
        lateral_mean, lateral_width: the same of the distance from the axis, (N,), r cells.
        centre_x, centre_y, width_x, width_y: the same of the two transverse coordinates, (N,), r cells.
        occupancy: fraction of voxels with energy, (N,).
        layer_occupancy: fraction of a layer's voxels with energy, (N, Z).
        layer_centre_x, layer_centre_y, layer_width_x, layer_width_y: energy-weighted mean and standard deviation of the
            transverse coordinates within each layer, (N, Z), r cells; NaN in a layer without energy.
        layer_mean_r, layer_width_r: the same of the distance from the axis.
        spectrum: voxels with energy per bin of `SPECTRUM_EDGES`, (N, 60); the outer bins take what lies beyond.
        relative_spectrum: the same per bin of `RELATIVE_EDGES`, (N, 15).
        max_fraction: most energetic voxel over incident energy, (N,).
        leading_fraction: fraction of the energy in the most energetic tenth of the voxels with energy, (N,).
    """

    energy: Array
    response: Array
    layer_energy: Array
    layer_fraction: Array
    ring_fraction: Array
    longitudinal_mean: Array
    longitudinal_width: Array
    lateral_mean: Array
    lateral_width: Array
    centre_x: Array
    centre_y: Array
    width_x: Array
    width_y: Array
    occupancy: Array
    layer_occupancy: Array
    layer_centre_x: Array
    layer_centre_y: Array
    layer_width_x: Array
    layer_width_y: Array
    layer_mean_r: Array
    layer_width_r: Array
    spectrum: Array
    relative_spectrum: Array
    max_fraction: Array
    leading_fraction: Array

    def __len__(self) -> int:
        return len(self.energy)

    def select(self, rows: ArrayLike | slice) -> Observables:
        """The observables of some showers; `rows` is any numpy index along the first axis."""
        index = rows if isinstance(rows, slice) else np.asarray(rows)
        return Observables(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def groups(self) -> dict[str, tuple[Array, list[str]]]:
        """Feature columns and their names, by the physics that they describe."""
        hits = np.maximum(self.relative_spectrum.sum(axis=1, keepdims=True), 1.0)
        log_max = np.log(np.maximum(self.max_fraction, 10.0 ** RELATIVE_EDGES[0]))
        return {
            "response": _columns(response=self.response),
            "layer_energies": _numbered("layer_response", self.layer_energy / self.energy[:, None]),
            "longitudinal_profile": _numbered("layer_fraction", self.layer_fraction),
            "lateral_profile": _numbered("ring_fraction", self.ring_fraction),
            "moments": _columns(**{name: getattr(self, name) for name in _MOMENTS}),
            "voxel_spectrum": _join(
                _columns(log_max_voxel=log_max, leading_fraction=self.leading_fraction),
                _numbered("spectrum", self.relative_spectrum / hits),
            ),
            "occupancy": _columns(occupancy=self.occupancy),
        }

    def features(self) -> tuple[Array, list[str]]:
        """The table of high-level features, (N, F), and its F names: 81 on the 9 x 16 x 45 mesh.

        All groups but the layer energies, which are the response times the longitudinal profile.
        """
        return _join(*(columns for name, columns in self.groups().items() if name != "layer_energies"))


def observables(showers: FloatArray, energy: ArrayLike, *, threshold: float = 0.0) -> Observables:
    """All observables of a sample, in chunks, so that memory stays bounded.

    Args:
        showers: voxel energies (N, R, PHI, Z), MeV.
        energy: incident energies (N,), MeV.
        threshold: deposits below it count as 0, MeV.

    Raises:
        ShowerFileError: the shapes do not fit, or a voxel is negative or not finite.

    Example:
        >>> point = np.zeros((1, 3, 4, 5), dtype=np.float32)
        >>> point[0, 0, 2, 3] = 800.0
        >>> seen = observables(point, [1000.0])
        >>> float(seen.response[0]), float(seen.longitudinal_mean[0]), float(seen.occupancy[0])
        (0.8, 3.5, 0.016666666666666666)
    """
    incident = np.asarray(energy, dtype=np.float64).reshape(-1)
    if showers.ndim != 4 or len(showers) != len(incident):
        raise ShowerFileError(
            f"showers of shape {showers.shape} do not fit {len(incident)} energies; (N, R, PHI, Z) and N are needed"
        )
    if not np.all(np.isfinite(incident) & (incident > 0)):
        raise ShowerFileError("incident energies must be positive; check the file's energies (MeV)")
    parts = [_chunk(_above(showers[rows], threshold), incident[rows]) for rows in _chunks(showers)]
    return Observables(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Observables)}
    )


def _chunks(showers: FloatArray) -> Iterator[slice]:
    step = max(1, _CHUNK_VOXELS // max(1, int(np.prod(showers.shape[1:]))))
    for start in range(0, max(len(showers), 1), step):
        yield slice(start, start + step)


def _above(showers: FloatArray, threshold: float) -> FloatArray:
    below = (showers >= 0) & (showers < np.float32(threshold))  # negative ones are an error that _chunk finds
    return np.where(below, np.float32(0), showers) if threshold > 0 else showers


def _chunk(showers: FloatArray, incident: Array) -> Observables:
    n, n_r, n_phi, n_z = showers.shape
    voxels = np.ascontiguousarray(showers, dtype=np.float32)
    flat = voxels.reshape(n, n_r * n_phi * n_z)
    layer_energy = np.einsum("nrpz->nz", voxels, dtype=np.float64)
    columns = voxels.sum(axis=3, dtype=np.float64)  # (n, r, phi)
    total = layer_energy.sum(axis=1)
    if not np.all(np.isfinite(total)) or (flat.size and flat.min() < 0):
        raise ShowerFileError("a voxel energy is negative or not finite; showers hold deposited energies >= 0 in MeV")
    scale = _inverse(total)[:, None]
    radii: Array = np.arange(n_r, dtype=np.float64) + 0.5
    angles = -np.pi + 2 * np.pi * (np.arange(n_phi) + 0.5) / n_phi
    cells = columns.reshape(n, n_r * n_phi) * scale
    layer_fraction, ring_fraction = layer_energy * scale, columns.sum(axis=2) * scale
    longitudinal = _moments(layer_fraction, np.arange(n_z, dtype=np.float64) + 0.5)
    lateral = _moments(ring_fraction, radii)
    positions = (radii[:, None] * np.cos(angles)).reshape(-1), (radii[:, None] * np.sin(angles)).reshape(-1)
    x, y = (_moments(cells, position) for position in positions)
    within = _layer_moments(voxels, (*positions, np.repeat(radii, n_phi)))
    layer_hits = np.count_nonzero(voxels.reshape(n, n_r * n_phi, n_z), axis=1).astype(np.float64)
    hits = layer_hits.sum(axis=1)
    spectrum, relative = _spectra(flat, incident)
    leading, largest = _leading(flat, hits)
    return Observables(
        energy=incident,
        response=total / incident,
        layer_energy=layer_energy,
        layer_fraction=layer_fraction,
        ring_fraction=ring_fraction,
        longitudinal_mean=longitudinal[0],
        longitudinal_width=longitudinal[1],
        lateral_mean=lateral[0],
        lateral_width=lateral[1],
        centre_x=x[0],
        centre_y=y[0],
        width_x=x[1],
        width_y=y[1],
        occupancy=hits / (n_r * n_phi * n_z),
        layer_occupancy=layer_hits / (n_r * n_phi),
        layer_centre_x=within[0][0],
        layer_centre_y=within[1][0],
        layer_width_x=within[0][1],
        layer_width_y=within[1][1],
        layer_mean_r=within[2][0],
        layer_width_r=within[2][1],
        spectrum=spectrum,
        relative_spectrum=relative,
        max_fraction=largest / incident,
        leading_fraction=leading * scale[:, 0],
    )


def _inverse(total: Array) -> Array:
    return np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)


def _moments(weights: Array, position: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of `position` (K,) under `weights` (N, K) that sum to one, or to zero."""
    mean = weights @ position
    centred = position - mean[:, None]
    return mean, np.sqrt(np.einsum("nk,nk->n", weights, centred**2))


def _layer_moments(voxels: FloatArray, positions: tuple[Array, ...]) -> list[tuple[Array, Array]]:
    """Mean and standard deviation within each layer, (n, Z), of each position (R * PHI,); NaN in empty layers."""
    n, n_r, n_phi, n_z = voxels.shape
    powers = np.stack([np.ones(n_r * n_phi), *positions, *(position**2 for position in positions)])
    # double precision, or widths of narrow layers would drown in the difference of two large numbers
    sums = powers @ voxels.reshape(n, n_r * n_phi, n_z).astype(np.float64)
    energy = sums[:, :1]
    moments = np.divide(sums[:, 1:], energy, out=np.full_like(sums[:, 1:], np.nan), where=energy > 0)
    means, squares = np.split(moments.transpose(1, 0, 2), 2)
    return [(mean, np.sqrt(np.maximum(square - mean**2, 0.0))) for mean, square in zip(means, squares, strict=True)]


def _spectra(flat: FloatArray, incident: Array) -> tuple[Array, Array]:
    row, column = np.nonzero(flat)
    logarithm = np.log10(flat[row, column])
    relative = logarithm - np.log10(incident).astype(np.float32)[row]
    return (
        _histogram(row, logarithm, SPECTRUM_EDGES, len(flat)),
        _histogram(row, relative, RELATIVE_EDGES, len(flat)),
    )


def _histogram(row: NDArray[np.intp], value: FloatArray, edges: Array, n: int) -> Array:
    """Counts per row and per bin of equal width, (n, bins); values beyond the edges go into the outer bins."""
    bins = len(edges) - 1
    index = ((value - edges[0].astype(np.float32)) * np.float32(bins / (edges[-1] - edges[0]))).astype(np.intp)
    np.clip(index, 0, bins - 1, out=index)
    return np.bincount(row * bins + index, minlength=n * bins).reshape(n, bins).astype(np.float64)


def _leading(flat: FloatArray, hits: Array) -> tuple[Array, Array]:
    """Energy in the most energetic tenth (at least one) of each shower's hit voxels, and the largest, (N,), MeV."""
    if not flat.size:
        return np.zeros(len(flat)), np.zeros(len(flat))
    wanted = np.ceil(_LEADING * hits).astype(np.intp)
    most = max(1, int(wanted.max()))
    top = np.sort(flat, axis=1)[:, : -most - 1 : -1]  # many equal zeros: a tenth of the time that np.partition takes
    running = np.cumsum(top, axis=1, dtype=np.float64)
    leading = running[np.arange(len(flat)), np.maximum(wanted, 1) - 1]
    return leading, running[:, 0]


def _columns(**columns: Array) -> tuple[Array, list[str]]:
    return np.stack(list(columns.values()), axis=1), list(columns)


def _numbered(name: str, columns: Array) -> tuple[Array, list[str]]:
    return columns, [f"{name}_{index}" for index in range(columns.shape[1])]


def _join(*parts: tuple[Array, list[str]]) -> tuple[Array, list[str]]:
    return np.concatenate([part[0] for part in parts], axis=1), [name for part in parts for name in part[1]]
