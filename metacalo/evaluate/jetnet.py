"""FPD and KPD as the JetNet library defines them: the same numbers, from the same features and seed.

The field's tables (CaloChallenge, arXiv:2410.21611) are made with JetNet's defaults, for samples of 50,000 and more.
`metacalo.evaluate.metrics` has estimates of the same distances that hold for hundreds of showers; those here are for
figures that stand beside published ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.stats import iqr

from metacalo.evaluate.metrics import Estimate, frechet_distance

__all__ = ["jetnet_fpd", "jetnet_kpd"]

Array = NDArray[np.float64]

_BLOCK = 1024  # rows of a kernel matrix
_ONE_SIGMA = (16.275, 83.725)  # per cent, as JetNet has them


def jetnet_fpd(
    reference: Array,
    sample: Array,
    *,
    min_samples: int = 20_000,
    max_samples: int = 50_000,
    batches: int = 20,
    points: int = 10,
    seed: int = 42,
    on_batch: Callable[[], None] = lambda: None,
) -> Estimate:
    """Frechet physics distance of `jetnet.evaluation.fpd` (arXiv:2211.10295).

    Features are divided by the largest modulus that the reference has. Batches are drawn with replacement at each of
    `points` sizes n, evenly spaced in 1/n; through the mean Frechet distance of each size goes a line with coefficients
    >= 0, and its value at 1/n = 0 counts. A batch is used as the number of times that each shower was drawn, so that
    time grows with the number of showers and not with n.

    Of fewer than about 50,000 showers, the value is that of the two samples and not of their distributions, as a batch
    of any size knows no others: compare it with that of Geant4 against as many other showers.

    Args:
        reference: (N, F).
        sample: (M, F).
        min_samples: the smallest batch size.
        max_samples: the largest one.
        batches: per size.
        points: sizes.
        seed: of the draws.
        on_batch: called after each batch.
    """
    scale = _largest(reference)
    x, y = reference / scale, sample / scale
    rng = np.random.default_rng(seed)
    sizes = (1 / np.linspace(1.0 / min_samples, 1.0 / max_samples, points)).astype("int32")
    found = np.empty((points, batches))
    for index, size in enumerate(sizes):
        for batch in range(batches):
            first, second = (_drawn_moments(rows, rng.choice(len(rows), size=size)) for rows in (x, y))
            found[index, batch] = frechet_distance(*first, *second)
            on_batch()
    best, covariance = curve_fit(_line, 1 / sizes, found.mean(axis=1), bounds=([0, 0], [np.inf, np.inf]))
    return Estimate(float(best[0]), float(np.sqrt(covariance[0, 0])))


def jetnet_kpd(
    reference: Array, sample: Array, *, batches: int = 10, batch_size: int = 5_000, seed: int = 42
) -> Estimate:
    """Kernel physics distance of `jetnet.evaluation.kpd` (arXiv:2211.10295).

    The median over `batches` of the unbiased squared MMD with the kernel (x.y / F + 1)^4, and half the range that
    holds the inner 67 %. Batches are drawn with replacement, features divided as in `jetnet_fpd`.

    Args:
        reference: (N, F).
        sample: (M, F).
        batches: how many.
        batch_size: showers of each.
        seed: of the draws.
    """
    scale = _largest(reference)
    x, y = reference / scale, sample / scale
    drawn = []
    for batch in range(batches):
        rng = np.random.default_rng(seed + 1000 * batch)
        drawn.append(tuple(rng.choice(len(rows), size=batch_size) for rows in (x, y)))
    if len(x) * len(y) <= batches * batch_size**2:  # each pair of showers once for all batches
        first, second = (
            np.stack([np.bincount(both[side], minlength=len(rows)) for both in drawn], axis=1).astype(np.float64)
            for side, rows in enumerate((x, y))
        )
        found = _squared_mmd(x, y, first, second, batch_size)
    else:
        once = np.ones((batch_size, 1))
        found = np.concatenate([_squared_mmd(x[rows], y[others], once, once, batch_size) for rows, others in drawn])
    return Estimate(float(np.median(found)), float(iqr(found, rng=_ONE_SIGMA) / 2))


def _squared_mmd(x: Array, y: Array, first: Array, second: Array, n: int) -> Array:
    """Unbiased squared MMD of each of B batches of n rows, (B,).

    Args:
        x: (N, F).
        y: (M, F).
        first: how often each row of x is in each batch, (N, B).
        second: the same of y, (M, B).
        n: rows of a batch.
    """
    within = _kernel_sums(x, x, first, first) - _kernel_diagonal(x) @ first
    within += _kernel_sums(y, y, second, second) - _kernel_diagonal(y) @ second
    found: Array = within / (n * (n - 1)) - 2 * _kernel_sums(x, y, first, second) / n**2
    return found


def _largest(features: Array) -> Array:
    largest = np.abs(features).max(axis=0)
    return np.where(largest == 0, 1.0, largest)


def _drawn_moments(rows: Array, drawn: NDArray[np.integer]) -> tuple[Array, Array]:
    """Mean (F,) and covariance (F, F) of the rows drawn, from how often each was."""
    times = np.bincount(drawn, minlength=len(rows)).astype(np.float64)
    mean = times @ rows / len(drawn)
    weighted = (rows - mean) * np.sqrt(times)[:, None]
    return mean, weighted.T @ weighted / (len(drawn) - 1)


def _line(x: Array, intercept: float, slope: float) -> Array:
    return intercept + slope * x


def _kernel_sums(x: Array, y: Array, first: Array, second: Array) -> Array:
    """Sum of the kernel over all pairs of a batch, weighted by how often each row is in it, (B,)."""
    total = np.zeros(first.shape[1])
    for start in range(0, len(x), _BLOCK):
        kernel = x[start : start + _BLOCK] @ y.T / x.shape[1] + 1.0
        np.square(kernel, out=kernel)  # twice: a power of 4 takes ten times as long
        np.square(kernel, out=kernel)
        total += np.einsum("nb,nb->b", first[start : start + _BLOCK], kernel @ second)
    return total


def _kernel_diagonal(rows: Array) -> Array:
    diagonal: Array = (np.einsum("nf,nf->n", rows, rows) / rows.shape[1] + 1.0) ** 4
    return diagonal
