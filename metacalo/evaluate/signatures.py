"""Signatures: vectors that do not change when a shower is turned in phi, mirrored, or scaled in energy.

Two showers that differ by nothing else are one shower. A library of stored showers, scaled and turned to order, looks
as varied as Geant4 voxel by voxel; signatures show what it repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import rfft

from metacalo.showers.shower_file import Showers
from metacalo.typing import FloatArray

__all__ = ["Signatures", "Trend", "signatures", "squared_distances"]

Array = NDArray[np.float64]
Vectors = NDArray[np.float32]

_WIDTH: Final = 512  # longer vectors are projected; distances stay the same to 3 %
_SEED: Final = 1984  # of the projection, which is always the same one
_CHUNK_VOXELS: Final = 1 << 21  # about 8 MB of float32 at a time
_BLOCK: Final = 1024  # rows of a matrix of distances
_NO_DISTANCE: Final = 1e-6
_NARROW, _FEWEST = 0.1, 10  # range of ln energy and number of showers from which no trend can be seen


@dataclass(frozen=True, eq=False)
class Signatures:
    """Signatures of N showers.

    Attributes:
        vectors: (N, D), without units; of norm 1, and 0 for an empty shower.
        energy: incident energies (N,), MeV.
    """

    vectors: Vectors
    energy: Array

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> Signatures:
        return Signatures(self.vectors[rows], self.energy[rows])

    def nearest(self, others: Signatures | None = None) -> Array:
        """Distance of each signature to the nearest of `others`, or of this sample without itself, (N,).

        Infinite where there is no other.
        """
        targets = self if others is None else others
        found = np.full(len(self), np.inf)
        if len(targets) == 0:
            return found
        for start in range(0, len(self), _BLOCK):
            rows = np.arange(start, min(start + _BLOCK, len(self)))
            squared = squared_distances(self.vectors[rows], targets.vectors)
            if others is None:
                squared[np.arange(len(rows)), rows] = np.inf
            found[rows] = np.sqrt(squared.min(axis=1))
        return found


def signatures(sample: Showers) -> Signatures:
    """The signatures of some showers, in chunks, so that memory stays bounded.

    A voxel enters as the square root of its part f of the shower's energy, and each (r, z) ring as the moduli of its
    discrete Fourier transform in phi, with factors after which squares sum to 1 (Parseval). Scaling leaves f as
    it is, but for small voxels that fall under a threshold and have little weight here; rolling the ring by
    whole cells or mirroring it leaves the moduli. So the distance of two signatures is at most the Hellinger distance
    (sum (sqrt f - sqrt g)^2)^1/2 of the showers in the best of all common turns. Vectors of more than 512 numbers
    then go through one fixed Gaussian matrix (Johnson & Lindenstrauss 1984).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> shower = rng.exponential(size=(1, 3, 8, 5)).astype(np.float32)
        >>> both = np.concatenate([shower, 7 * np.roll(shower, 3, axis=2)[:, :, ::-1]])
        >>> same = Showers(both, np.array([1e3, 7e3]), np.full(2, 1.5), np.zeros(2))
        >>> bool(signatures(same).nearest().max() < 1e-3)
        True
    """
    n, n_r, n_phi, n_z = sample.showers.shape
    length = n_r * (n_phi // 2 + 1) * n_z
    matrix = _projection(length) if length > _WIDTH else None
    vectors = np.empty((n, min(length, _WIDTH)), np.float32)
    step = max(1, _CHUNK_VOXELS // max(1, n_r * n_phi * n_z))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        moduli = _moduli(sample.showers[rows])
        vectors[rows] = moduli if matrix is None else moduli @ matrix
    return Signatures(vectors, np.asarray(sample.energy, dtype=np.float64))


def _moduli(showers: FloatArray) -> Vectors:
    """Fourier moduli along phi of the root energy fractions, (n, R * (PHI // 2 + 1) * Z), of norm 1."""
    n_phi = showers.shape[2]
    total = showers.sum(axis=(1, 2, 3), dtype=np.float64)
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0).astype(np.float32)
    roots = np.sqrt(showers * scale[:, None, None, None])
    moduli = np.abs(rfft(roots, axis=2))
    weight = np.full(moduli.shape[2], 2.0 / n_phi)  # modes other than 0 and PHI / 2 stand for two
    weight[0] = 1.0 / n_phi
    if n_phi % 2 == 0:
        weight[-1] = 1.0 / n_phi
    moduli *= np.sqrt(weight).astype(np.float32)[:, None]
    return np.asarray(moduli.reshape(len(showers), -1), dtype=np.float32)


def _projection(length: int) -> Vectors:
    matrix = np.random.default_rng(_SEED).standard_normal((length, _WIDTH), dtype=np.float32)
    return np.asarray(matrix / np.float32(np.sqrt(_WIDTH)), dtype=np.float32)


def squared_distances(first: Vectors, second: Vectors) -> Vectors:
    """Squared distances between the rows of (N, D) and those of (M, D), (N, M); good to 1e-6 for norms of 1."""
    squared = first @ second.T
    squared *= -2.0
    squared += np.einsum("nd,nd->n", first, first)[:, None]
    squared += np.einsum("nd,nd->n", second, second)
    return np.asarray(np.maximum(squared, 0.0, out=squared))


@dataclass(frozen=True, eq=False)
class Trend:
    """The nearest-neighbour distance that is usual at an energy: a parabola in logarithms.

    Showers of low energy fluctuate more and lie farther apart; over this distance they compare with others.

    Attributes:
        coefficients: of the parabola for ln distance in ln (energy / MeV), highest power first, (3,).
        lowest, highest: energies that it was fitted to, MeV; outside, its values there hold.
    """

    coefficients: Array
    lowest: float
    highest: float

    @classmethod
    def fit(cls, energy: ArrayLike, distance: Array) -> Trend:
        """Least-squares parabola through `distance` (N,) at `energy` (N,), MeV; flat where energies hardly differ."""
        mev = np.asarray(energy, dtype=np.float64)
        x, y = np.log(mev), np.log(np.maximum(distance, _NO_DISTANCE))
        flat = np.ptp(x) < _NARROW or len(x) < _FEWEST
        coefficients = np.array([0.0, 0.0, y.mean()]) if flat else np.linalg.lstsq(np.vander(x, 3), y, rcond=None)[0]
        return cls(coefficients, float(mev.min()), float(mev.max()))

    def __call__(self, energy: ArrayLike) -> Array:
        """The usual distance at each energy (N,), MeV."""
        inside = np.clip(np.asarray(energy, dtype=np.float64), self.lowest, self.highest)
        return np.asarray(np.exp(np.polyval(self.coefficients, np.log(inside))))
