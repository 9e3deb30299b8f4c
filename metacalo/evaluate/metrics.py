"""Distances between a generated and a reference sample, each with what Geant4 scores against itself.

A distance between finite samples of the same distribution is not zero, and the smaller the samples, the larger it
is. So a value means something only beside its floor: `cuts` halves the reference at random, and compares with the
one half once the other half and once as many generated showers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

__all__ = [
    "Cut",
    "Estimate",
    "cuts",
    "fpd",
    "frechet_distance",
    "kpd",
    "profile_difference",
    "separation_power",
    "standardise",
    "wasserstein1",
]

Array = NDArray[np.float64]
_FEWEST = 16  # showers that a covariance is fitted to
_CLIP = 5.0  # standard deviations
_BLOCK = 1024  # rows of a kernel matrix


class Estimate(NamedTuple):
    """A measured value and its standard error."""

    value: float
    error: float


def standardise(reference: Array, *samples: Array) -> list[Array]:
    """`reference` (N, F) and `samples` (M, F), less the reference's mean and over its standard deviation.

    A column that is constant in the reference is only centred.
    """
    spread = reference.std(axis=0)
    # A constant column has a spread of rounding errors, not of exactly zero.
    constant = spread <= 1e-12 * np.abs(reference).max(axis=0, initial=0.0)
    mean, spread = reference.mean(axis=0), np.where(constant, 1.0, spread)
    return [(sample - mean) / spread for sample in (reference, *samples)]


def wasserstein1(first: Array, second: Array) -> Array:
    """Wasserstein-1 distance of each column: the area between the two cumulative distributions.

    Args:
        first: (N, F).
        second: (M, F).

    Returns:
        (F,), in the units of the columns.

    Example:
        >>> wasserstein1(np.array([[0.0], [2.0]]), np.array([[1.0], [3.0], [5.0]]))
        array([2.])
    """
    joined = np.concatenate([first, second])
    order = np.argsort(joined, axis=0, kind="stable")
    weight = np.where(order < len(first), 1.0 / len(first), -1.0 / len(second))
    difference = np.abs(np.cumsum(weight, axis=0)[:-1])
    steps = np.diff(np.take_along_axis(joined, order, axis=0), axis=0)
    return np.asarray((difference * steps).sum(axis=0))


def separation_power(reference: Array, sample: Array, bins: int = 20) -> Array:
    """Separation 1/2 sum (p - q)^2 / (p + q) of each column: 0 for equal histograms, 1 for disjoint ones.

    The triangular discrimination of the CaloChallenge (arXiv:2410.21611), with `bins` bins that hold equal
    parts of the reference, so that no choice of range enters; values beyond go into the outer bins.

    Args:
        reference: (N, F).
        sample: (M, F).
        bins: how many at most; two for a reference that is constant.

    Returns:
        (F,), without units.
    """
    powers = np.empty(reference.shape[1])
    for column in range(reference.shape[1]):
        inner = np.unique(np.quantile(reference[:, column], np.linspace(0, 1, bins + 1)[1:-1]))
        p = _binned(reference[:, column], inner)
        q = _binned(sample[:, column], inner)
        both = p + q
        powers[column] = 0.5 * np.sum((p - q)[both > 0] ** 2 / both[both > 0])
    return powers


def _binned(values: Array, inner: Array) -> Array:
    index = np.searchsorted(inner, values, side="left")
    return np.bincount(index, minlength=len(inner) + 1) / len(values)


def frechet_distance(mean1: Array, covariance1: Array, mean2: Array, covariance2: Array) -> float:
    """Squared Frechet (Wasserstein-2) distance between two Gaussians (Dowson & Landau 1982).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2), with `mean` (F,) and `covariance` (F, F); singular
    covariances are allowed.

    Example:
        >>> round(frechet_distance(np.zeros(2), np.eye(2), np.array([3.0, 4.0]), 4 * np.eye(2)), 9)
        27.0
    """
    values, vectors = np.linalg.eigh(covariance1)
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ covariance2 @ root), 0.0, None)).sum()
    shift = mean1 - mean2
    return float(max(shift @ shift + np.trace(covariance1) + np.trace(covariance2) - 2.0 * cross, 0.0))


def fpd(reference: Array, sample: Array, *, seed: int = 0, points: int = 10, batches: int = 20) -> Estimate:
    """Frechet physics distance (arXiv:2211.10295) of standardised features, and its error.

    As in JetNet: the mean Frechet distance of `batches` random batches at each of `points` sizes n, evenly
    spaced in 1/n, and a straight line with coefficients >= 0 through them, of which the value at 1/n = 0 counts.
    Three things differ, because samples here are of hundreds of showers and not of 50,000. The sizes run
    from 2/5 of the smaller sample to the whole of it. Batches are drawn without replacement: with it the
    line would end at the distance between the two samples, not between their distributions. Features are
    clipped to 5 standard deviations, or a single late shower decides the covariance: for Geant4 against itself, 1,100
    showers each, clipping brings 1.2 +- 0.5 down to 0.3 +- 0.2 and costs no sensitivity to a shifted response.

    Args:
        reference: (N, F), standardised.
        sample: (M, F), on the same scale.
        seed: of the batches.
        points: number of batch sizes.
        batches: batches per size.

    Returns:
        The value at infinite sample size; NaN for fewer than 16 showers in either sample.
    """
    most = min(len(reference), len(sample))
    if most < _FEWEST:
        return Estimate(float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    reference, sample = np.clip(reference, -_CLIP, _CLIP), np.clip(sample, -_CLIP, _CLIP)
    sizes = (1.0 / np.linspace(2.5 / most, 1.0 / most, points)).astype(int)
    with threadpool_limits(1):  # small matrices: threads only wait for each other
        distances = np.array([[_batch(reference, sample, size, rng) for _ in range(batches)] for size in sizes])
    return _intercept(1.0 / sizes, distances.mean(axis=1))


def _batch(reference: Array, sample: Array, size: int, rng: np.random.Generator) -> float:
    first = rng.choice(reference, size, replace=False)
    second = rng.choice(sample, size, replace=False)
    return frechet_distance(first.mean(axis=0), _covariance(first), second.mean(axis=0), _covariance(second))


def _covariance(features: Array) -> Array:
    return np.atleast_2d(np.cov(features, rowvar=False))


def _intercept(x: Array, y: Array) -> Estimate:
    """Value at x = 0 of the least-squares line with intercept and slope >= 0, and its standard error."""
    design = np.stack([np.ones_like(x), x], axis=1)
    (intercept, slope), _ = nnls(design, y)
    residual = y - design @ np.array([intercept, slope])
    covariance = np.linalg.inv(design.T @ design) * (residual @ residual) / max(len(x) - 2, 1)
    return Estimate(float(intercept), float(np.sqrt(covariance[0, 0])))


def kpd(reference: Array, sample: Array, *, seed: int = 0, resamples: int = 50) -> Estimate:
    """Kernel physics distance (arXiv:2211.10295) of standardised features, and its error.

    The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) with the kernel
    k(x, y) = (x.y / F + 1)^4: means of k over pairs within the reference and within the sample, less twice the
    mean over pairs of the two. Its expectation is 0 for equal distributions, so it may be negative.

    JetNet takes the median over batches drawn with replacement from 50,000 showers. With hundreds of showers that
    has a bias: a shower drawn twice makes a pair with itself. Here the value is that of all showers, and the error the
    deviation from it of random halves of both samples (half-sampling, McCarthy 1969). That is the standard error where
    the distributions differ, and 1.7 times as much where they are equal. Features are clipped as in `fpd`.

    Args:
        reference: (N, F), standardised.
        sample: (M, F), on the same scale.
        seed: of the halves.
        resamples: number of halves.

    Returns:
        The distance, without units; NaN for fewer than 16 showers in either sample.
    """
    if min(len(reference), len(sample)) < _FEWEST:
        return Estimate(float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    x, y = np.clip(reference, -_CLIP, _CLIP), np.clip(sample, -_CLIP, _CLIP)
    in_x, in_y = (_halves(len(rows), resamples, rng) for rows in (x, y))
    found = _mean_kernel(x, in_x) + _mean_kernel(y, in_y) - 2.0 * _mean_kernel(x, in_x, y, in_y)
    return Estimate(float(found[0]), float(np.sqrt(np.mean((found[1:] - found[0]) ** 2))))


def _halves(n: int, resamples: int, rng: np.random.Generator) -> Array:
    """Which of n showers are in: all of them, then one half after the other, (n, 1 + resamples)."""
    inside = np.zeros((n, 1 + resamples))
    inside[:, 0] = 1.0
    for column in range(1, 1 + resamples):
        inside[rng.permutation(n)[: n // 2], column] = 1.0
    return inside


def _mean_kernel(x: Array, in_x: Array, y: Array | None = None, in_y: Array | None = None) -> Array:
    """Mean of k over the pairs of every subset, (S,): of rows of `x` and `y`, or of different rows of `x`."""
    other, in_other = (x, in_x) if y is None or in_y is None else (y, in_y)
    total = np.zeros(in_x.shape[1])
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        kernel = (x[rows] @ other.T / x.shape[1] + 1.0) ** 2
        total += np.einsum("ns,ns->s", in_x[rows], np.square(kernel, out=kernel) @ in_other)
    size, other_size = in_x.sum(axis=0), in_other.sum(axis=0)
    if y is not None:
        return np.asarray(total / (size * other_size))
    itself = (np.einsum("nf,nf->n", x, x) / x.shape[1] + 1.0) ** 4
    return np.asarray((total - itself @ in_x) / (size * (size - 1)))


def profile_difference(reference: Array, sample: Array) -> tuple[Array, float]:
    """How far the mean profile of `sample` lies from that of `reference`.

    Args:
        reference: energy per layer or per ring, (N, K).
        sample: (M, K).

    Returns:
        The relative difference per layer or ring, (K,), 0 where the reference has no energy, and
        sum |difference| / sum of the reference's profile.
    """
    expected, found = reference.mean(axis=0), sample.mean(axis=0)
    relative = np.divide(found - expected, expected, out=np.zeros_like(expected), where=expected > 0)
    total = expected.sum()
    return relative, float(np.abs(found - expected).sum() / total) if total > 0 else 0.0


class Cut(NamedTuple):
    """Row numbers of one cut: halves A and B of the reference, and generated showers to put in the place of B."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    generated: NDArray[np.intp]


def cuts(n_reference: int, n_generated: int, *, splits: int = 5, seed: int = 0) -> list[Cut]:
    """Random cuts of the reference into halves A and B, with as many generated showers as B has.

    The distance of B from A is the floor, that of the generated showers from A the value beside it. Where
    both samples are equally long, a generated shower stands for the reference shower of the same row, so that a sample
    made at the energies and angles of the reference enters with those of B.

    Example:
        >>> [(len(cut.first), len(cut.second), len(cut.generated)) for cut in cuts(11, 4, splits=1)]
        [(5, 4, 4)]
    """
    rng, half = np.random.default_rng(seed), n_reference // 2
    found = []
    for _ in range(splits):
        order, others = rng.permutation(n_reference), rng.permutation(n_generated)
        second = order[half : half + min(half, n_generated)]
        generated = second if n_generated == n_reference else others[: len(second)]
        found.append(Cut(order[:half], second, generated))
    return found
