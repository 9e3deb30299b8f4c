"""Chi-square of mean profiles: depth, radius and cell energies, with the correlations between their bins."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution

from metacalo.evaluate.observables import Observables

__all__ = ["Chi2", "profile_chi2", "profiles"]

Array = NDArray[np.float64]

_FILLED: Final = 10  # showers with an entry, of both samples, without which a bin is left out
_SINGULAR: Final = 1e-9  # of the largest eigenvalue


class Chi2(NamedTuple):
    """Chi-square of two mean profiles.

    Attributes:
        value: chi-square per degree of freedom; 1 is expected of two samples of one distribution.
        ndf: degrees of freedom; 0 where no bin can be compared.
        p_value: probability of at least this value for one distribution; NaN where correlations were left out.
    """

    value: float
    ndf: int
    p_value: float


def profiles(seen: Observables) -> dict[str, Array]:
    """The three profiles of each shower, by the name of their group of observables.

    `longitudinal_profile` (N, Z) and `lateral_profile` (N, R) are fractions of the shower's energy, `voxel_spectrum`
    (N, 30) numbers of cells in bins of log10(cell / MeV), five a decade.
    """
    return {
        "longitudinal_profile": seen.layer_fraction,
        "lateral_profile": seen.ring_fraction,
        "voxel_spectrum": seen.spectrum.reshape(len(seen), -1, 2).sum(axis=2),
    }


def profile_chi2(reference: Array, sample: Array) -> Chi2:
    """Chi-square per degree of freedom of the mean profile of `sample` against that of `reference`.

    With the difference d of the means and its covariance C = S1 / N + S2 / M, estimated from the showers, it is
    Hotelling's T^2 = d' C^-1 d, for unequal covariances. C is about a Wishart matrix of nu degrees of freedom
    (Krishnamoorthy & Yu 2004, Stat. Probab. Lett. 66, 161), p modes count, and

        value = T^2 (nu - p - 1) / (nu p),    T^2 (nu - p + 1) / (nu p) ~ F(p, nu - p + 1).

    The first takes the noise of C out of the expectation (Hartlap et al. 2007, eq. 17, arXiv:astro-ph/0608064), without
    which 200 showers on either side and 44 layers would bring 1.13. Bins in which fewer than 10 showers of both samples
    have an entry are left out. So are eigenvectors of the correlations with less than 1e-9 of the largest eigenvalue:
    fractions of the energy sum to 1, one bin less is free. Where C is not well conditioned, nu <= 2 p + 1, the
    variances alone are used: value is the mean of d_k^2 / C_kk (nu_k - 2) / nu_k, with Welch's nu_k, and there is no
    p-value.

    For true differences the value grows with the number of showers; only values of equal numbers compare.

    Args:
        reference: a profile of each shower, (N, K).
        sample: (M, K).
    """
    few = min(len(reference), len(sample)) < 2
    kept = np.count_nonzero(reference, axis=0) + np.count_nonzero(sample, axis=0) >= _FILLED
    if few or not kept.any():
        return Chi2(float("nan"), 0, float("nan"))
    both = reference[:, kept], sample[:, kept]
    covariances = [np.atleast_2d(np.cov(rows, rowvar=False)) / len(rows) for rows in both]
    spread = np.sqrt(np.diag(covariances[0] + covariances[1]))
    free = spread > 0
    spread = spread[free]
    pull = (both[1].mean(axis=0) - both[0].mean(axis=0))[free] / spread
    covariances = [covariance[np.ix_(free, free)] / np.outer(spread, spread) for covariance in covariances]
    fewer = [len(rows) - 1 for rows in both]
    values, vectors = np.linalg.eigh(covariances[0] + covariances[1])
    regular = values > _SINGULAR * values.max(initial=0.0)
    p = int(regular.sum())
    if p == 0:
        return Chi2(float("nan"), 0, float("nan"))
    whitening = vectors[:, regular] / np.sqrt(values[regular])
    white = [whitening.T @ covariance @ whitening for covariance in covariances]
    nu = (p + p**2) / sum((np.sum(w**2) + np.trace(w) ** 2) / n for w, n in zip(white, fewer, strict=True))
    if nu <= 2 * p + 1:
        welch = 1.0 / sum(np.diag(covariance) ** 2 / n for covariance, n in zip(covariances, fewer, strict=True))
        return Chi2(float(np.mean(pull**2 * np.maximum(welch - 2, 0.0) / welch)), len(pull), float("nan"))
    squared = float(np.sum((whitening.T @ pull) ** 2))
    p_value = f_distribution.sf(squared * (nu - p + 1) / (nu * p), p, nu - p + 1)
    return Chi2(float(squared * (nu - p - 1) / (nu * p)), p, float(p_value))
