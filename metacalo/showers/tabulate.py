"""Fits the tables of `marginals`: local linear conditional quantiles and atoms, from the values around each knot."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.showers.marginals import ATOM_LIMIT, LEVELS, NO_ATOM, ConditionalMarginals, scores_of_levels

__all__ = ["fit_marginals"]

_SLOPE_RIDGE = 0.3  # in squared knot distances: what a slope within a row needs before it is believed
_LARGEST_SAMPLE = 200_000
_FEWEST = 5  # finite values that a row needs to be more than their mean


def fit_marginals(
    samples: Sequence[tuple[Float[np.ndarray, "m"], ...]],
    knots: Float[np.ndarray, "K"],
    planes: Float[np.ndarray, "P"] | None = None,
    *,
    extrapolate: bool = False,
) -> ConditionalMarginals:
    """Local linear tables: a value counts at the knots around its contexts, by its distance (hat weights).

    Atoms, location and width of a row are fitted as straight lines in the contexts (a plain weighted sample would mix
    the locations and widths of all contexts around the knot, and lean to one side at the ends). Contexts beyond the
    knots count as the nearest end. Rows without values are filled from the nearest knot of the same site and plane that
    has some, planes without any from the nearest plane, sites without any by the mean of the others.

    Args:
        samples: for each site, values (-inf and +inf are its atoms; NaN does not count), their contexts x and, where
            there are planes, their second contexts y.
        knots: ascending, equidistant values of x, at least two.
        planes: ascending, equidistant values of y, at least two.
        extrapolate: see `ConditionalMarginals`.
    """
    heights = np.zeros(1) if planes is None else planes
    shape = (len(samples) * len(heights), len(knots))
    t0, t1 = np.full(shape, -NO_ATOM), np.full(shape, NO_ATOM)
    quantiles, weight = np.full((*shape, len(LEVELS)), np.nan), np.zeros(shape)
    for site, sample in enumerate(samples):
        value, *contexts = _thinned(*(column[~np.isnan(sample[0])] for column in sample))
        order = np.argsort(contexts[0])
        value = value[order]
        grids = zip(contexts, (knots, heights), strict=False)
        position = np.stack([_position(at[order], grid) for at, grid in grids], axis=1)
        for knot in range(len(knots)):
            around = slice(*np.searchsorted(position[:, 0], (knot - 1, knot + 1)))
            for plane in range(len(heights)):
                row = site * len(heights) + plane
                distance = position[around] - np.array([knot, plane])[: position.shape[1]]
                hat = np.prod(np.clip(1 - np.abs(distance), 0, 1), axis=1)
                near = np.flatnonzero(hat)
                weight[row, knot] = hat.sum()
                if len(near):
                    _fit_row(value[around][near], distance[near], hat[near], t0[row], t1[row], quantiles[row], knot)
        for row in range(site * len(heights), (site + 1) * len(heights)):
            _fill_from_nearest(t0[row], t1[row], quantiles[row], weight[row])
        _fill_planes(quantiles[site * len(heights) : (site + 1) * len(heights)])
    _fill_empty_sites(quantiles)
    return ConditionalMarginals(
        _single(knots), _single(t0), _single(t1), _single(quantiles), _single(weight), extrapolate, _single(heights)
    )


def _thinned(*columns: np.ndarray) -> list[np.ndarray]:
    step = max(1, -(-len(columns[0]) // _LARGEST_SAMPLE))
    return [column[::step] for column in columns]


def _position(context: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """In units of the grid's steps, from its first value."""
    return np.asarray((np.clip(context, grid[0], grid[-1]) - grid[0]) / (grid[1] - grid[0]))


def _fit_row(
    value: np.ndarray,
    distance: np.ndarray,
    hat: np.ndarray,
    t0: np.ndarray,
    t1: np.ndarray,
    quantiles: np.ndarray,
    knot: int,
) -> None:
    """One row, in place; `distance` (m, contexts) is from the knot, in knot spacings."""
    floor = 0.5 / (hat.sum() + 1)
    lower = _atom(value == -np.inf, distance, hat, floor)
    upper = _atom(value == np.inf, distance, hat, floor)
    most = max(1.0, (lower + upper) / (1 - 3e-5))
    if lower:
        t0[knot] = max(_normal_score(lower / most), -ATOM_LIMIT)
    if upper:
        t1[knot] = min(-_normal_score(upper / most), ATOM_LIMIT)
    inner = np.isfinite(value)
    if inner.sum() >= _FEWEST:
        quantiles[knot] = _centred_quantiles(value[inner], distance[inner], hat[inner])
    elif inner.any():
        quantiles[knot] = np.average(value[inner], weights=hat[inner] + 1e-9)


def _atom(found: np.ndarray, distance: np.ndarray, hat: np.ndarray, floor: float) -> float:
    """Probability at the knot, by a straight line; 0 where the atom was never seen."""
    if not found.any():
        return 0.0
    level, slope, mean = _line(found.astype(np.float64), distance, hat)
    return float(np.clip(level - slope @ mean, floor, 1 - floor))


def _line(y: np.ndarray, distance: np.ndarray, hat: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Weighted mean of `y`, slopes of its line (plane) in the distances, and mean distances."""
    total = hat.sum()
    mean = hat @ distance / total
    level = float(hat @ y / total)
    centred = distance - mean
    scatter = centred.T @ (centred * hat[:, None]) + _SLOPE_RIDGE * np.eye(distance.shape[1])
    return level, np.linalg.solve(scatter, centred.T @ (hat * (y - level))), mean


def _centred_quantiles(value: np.ndarray, distance: np.ndarray, hat: np.ndarray) -> np.ndarray:
    """Quantiles at the knot, after the line of the location and of the logarithmic width was taken out."""
    level, slope, mean = _line(value, distance, hat)
    residual = value - level - (distance - mean) @ slope
    variance = float(hat @ residual**2 / hat.sum())
    if variance > 0:
        _, growth, _ = _line(residual**2 / variance, distance, hat)
        residual = residual * np.exp(-0.5 * (distance @ np.clip(growth, -2, 2)))
    at_knot = level - slope @ mean + residual
    order = np.argsort(at_knot)
    share = hat[order]
    cumulative = (np.cumsum(share) - 0.5 * share) / share.sum()
    effective = hat.sum() ** 2 / (hat @ hat)
    return _with_tails(np.interp(LEVELS, cumulative, at_knot[order]), rarest=1 / (1 + effective))


def _with_tails(quantiles: np.ndarray, rarest: float) -> np.ndarray:
    """Levels beyond `rarest` and 1 - `rarest`: lines in the score through the two levels next to them.

    The sample does not reach there: its outermost value, held, would leave what lies beyond without a latent. A sample
    that reaches farther than the line is followed.
    """
    levels, scores = np.array(LEVELS), scores_of_levels().double().numpy()
    known = np.flatnonzero((levels >= rarest) & (levels <= 1 - rarest))
    if len(known) < 2:
        return quantiles
    result = quantiles.copy()
    for end, inner, beyond, farther in (
        (known[0], known[1], scores < scores[known[0]], np.minimum),
        (known[-1], known[-2], scores > scores[known[-1]], np.maximum),
    ):
        slope = (quantiles[inner] - quantiles[end]) / (scores[inner] - scores[end])
        line = quantiles[end] + slope * (scores - scores[end])
        result[beyond] = farther(line, quantiles)[beyond]
    return result


def _single(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _normal_score(probability: float) -> float:
    return float(torch.special.ndtri(torch.tensor(probability, dtype=torch.float64)))


def _fill_from_nearest(t0: np.ndarray, t1: np.ndarray, quantiles: np.ndarray, weight: np.ndarray) -> None:
    """Rows of one plane, in place: atoms from knots with half a value or more, quantiles from knots with any."""
    atoms_known, values_known = weight > 0.5, np.isfinite(quantiles[:, 0])
    for array, known in ((t0, atoms_known), (t1, atoms_known), (quantiles, values_known)):
        rows = np.flatnonzero(known)
        if len(rows):
            array[:] = array[rows[np.abs(np.arange(len(array))[:, None] - rows).argmin(1)]]


def _fill_planes(quantiles: np.ndarray) -> None:
    """Planes (P, K, J) of a site without any value take those of the nearest plane that has some, in place."""
    known = np.flatnonzero(np.isfinite(quantiles[:, 0, 0]))
    if len(known):
        quantiles[:] = quantiles[known[np.abs(np.arange(len(quantiles))[:, None] - known).argmin(1)]]


def _fill_empty_sites(quantiles: np.ndarray) -> None:
    """Sites without any value take the mean table of those that have some, in place."""
    empty = ~np.isfinite(quantiles[:, 0, 0])
    if empty.all():
        quantiles[:] = 0.0
    elif empty.any():
        quantiles[empty] = quantiles[~empty].mean(0)
