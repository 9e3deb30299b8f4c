"""Fits the tables of `marginals`: local linear conditional quantiles and atoms, from the values around each knot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtr, ndtri
from torch import Tensor

from metacalo.normaliser.marginals import ATOM_LIMIT, LEVELS, NO_ATOM, ConditionalMarginals, scores_of_levels

__all__ = ["fit_marginals"]

_SLOPE_RIDGE = 0.3  # in squared knot distances: what a slope within a row needs before it is believed
_LARGEST_SAMPLE = 200_000
_FEWEST = 5  # finite values that a row needs to be more than their mean
_ANCHOR = 1.0  # values that a local line counts for against the line between rows
_NEWTON_STEPS = 6
_RAREST = 1e-6  # probability, and
_FAR = 5.0  # its score, from which regression can distinguish it


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
    n_planes = len(heights)
    for site, sample in enumerate(samples):
        value, *contexts = _thinned(*(column[~np.isnan(sample[0])] for column in sample))
        position = [_position(at, grid) for at, grid in zip(contexts, (knots, heights), strict=False)]
        rows = slice(site * n_planes, (site + 1) * n_planes)
        hats = _hats(position, (n_planes, len(knots)))
        weight[rows] = hats.sum(0)
        t0[rows] = _atom_scores(value == -np.inf, position, hats)
        t1[rows] = -_atom_scores(value == np.inf, position, hats)
        inner = np.isfinite(value)
        quantiles[rows] = _quantiles(value[inner], [at[inner] for at in position], hats[inner])
        for row in range(site * n_planes, (site + 1) * n_planes):
            _fill_from_nearest(t0[row], t1[row], quantiles[row], weight[row])
        _fill_planes(quantiles[rows])
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


def _hats(position: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Weights (m, P, K) of the rows of a site at values: linear interpolation between them is a product with these."""
    along = [
        np.clip(1 - np.abs(at[:, None] - np.arange(n)), 0, 1) for at, n in zip(position, shape[::-1], strict=False)
    ]
    planes = along[1] if len(along) > 1 else np.ones((len(along[0]), 1))
    return np.asarray(planes[:, :, None] * along[0][:, None, :])


def _rows(position: Sequence[np.ndarray], hats: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray, np.ndarray]]:
    """Each row (plane, knot) with values around: their numbers, and their distances (m, contexts) in knot spacings."""
    where = np.stack(position, axis=1)
    for plane, knot in np.ndindex(*hats.shape[1:]):
        near = np.flatnonzero(hats[:, plane, knot])
        if len(near):
            yield (plane, knot), near, where[near] - np.array([knot, plane])[: where.shape[1]]


def _atom_scores(found: np.ndarray, position: Sequence[np.ndarray], hats: np.ndarray) -> np.ndarray:
    """Normal scores (P, K) of an atom's probability; -`NO_ATOM` where it was not seen around.

    Straight lines around each row first, then the most probable scores given that they are interpolated: probabilities
    bend between knots, and of the lines alone atoms came out up to a tenth too rare.
    """
    scores = np.full(hats.shape[1:], -NO_ATOM)
    for row, near, distance in _rows(position, hats):
        hat = hats[near, *row]
        if found[near].any():
            level, slope, mean = _line(found[near].astype(np.float64), distance, hat)
            floor = 0.5 / (hat.sum() + 1)
            scores[row] = _normal_score(float(np.clip(level - slope @ mean, floor, 1 - floor)))
    seen = scores > -NO_ATOM
    scores[seen] = np.clip(scores[seen], -ATOM_LIMIT, ATOM_LIMIT)
    if seen.any():
        scores[seen] = _most_probable(found, hats, scores)[seen]
    return scores


def _most_probable(found: np.ndarray, hats: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Scores of a probit regression on the hats, drawn to `start` by a value each; rows without the atom stay."""
    free = (start > -NO_ATOM).reshape(-1)
    design, scores = hats.reshape(len(hats), start.size), start.reshape(-1).copy()
    for _ in range(_NEWTON_STEPS):
        eta = np.clip(design @ scores, -_FAR, _FAR)
        density = np.exp(-0.5 * eta**2) / np.sqrt(2 * np.pi)
        probability = np.clip(ndtr(eta), _RAREST, 1 - _RAREST)
        variance = probability * (1 - probability)
        gradient = design.T @ ((found - probability) * density / variance) - _ANCHOR * (scores - start.reshape(-1))
        information = (design * (density**2 / variance)[:, None]).T @ design + _ANCHOR * np.eye(len(scores))
        step = np.linalg.solve(information[np.ix_(free, free)], gradient[free])
        scores[free] = np.clip(scores[free] + np.clip(step, -1, 1), -ATOM_LIMIT, ATOM_LIMIT)
    return scores.reshape(start.shape)


def _line(y: np.ndarray, distance: np.ndarray, hat: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Weighted mean of `y`, slopes of its line (plane) in the distances, and mean distances."""
    total = hat.sum()
    mean = hat @ distance / total
    level = float(hat @ y / total)
    centred = distance - mean
    scatter = centred.T @ (centred * hat[:, None]) + _SLOPE_RIDGE * np.eye(distance.shape[1])
    return level, np.linalg.solve(scatter, centred.T @ (hat * (y - level))), mean


def _quantiles(value: np.ndarray, position: Sequence[np.ndarray], hats: np.ndarray) -> np.ndarray:
    """Quantiles (P, K, J) of finite values; NaN where there are none.

    The location is the line between rows that fits best, drawn to the local lines by a value each: those alone would
    lie on the hollow side of whatever bends. The logarithmic width has a local line.
    """
    quantiles = np.full((*hats.shape[1:], len(LEVELS)), np.nan)
    location = np.zeros(hats.shape[1:])
    for row, near, distance in _rows(position, hats):
        level, slope, mean = _line(value[near], distance, hats[near, *row])
        location[row] = level - slope @ mean
    design = hats.reshape(len(hats), location.size)
    gram = design.T @ design + _ANCHOR * np.eye(design.shape[1])
    located = np.linalg.solve(gram, design.T @ value + _ANCHOR * location.reshape(-1))
    residual = value - design @ located
    location = located.reshape(location.shape)
    for row, near, distance in _rows(position, hats):
        hat = hats[near, *row]
        quantiles[row] = location[row]
        if len(near) >= _FEWEST:
            quantiles[row] += _residual_quantiles(residual[near], distance, hat)
    return quantiles


def _residual_quantiles(residual: np.ndarray, distance: np.ndarray, hat: np.ndarray) -> np.ndarray:
    """Quantiles (J,) at the knot, after the line of the logarithmic width was taken out."""
    variance = float(hat @ residual**2 / hat.sum())
    if variance > 0:
        _, growth, _ = _line(residual**2 / variance, distance, hat)
        residual = residual * np.exp(-0.5 * (distance @ np.clip(growth, -2, 2)))
    order = np.argsort(residual)
    share = hat[order]
    cumulative = (np.cumsum(share) - 0.5 * share) / share.sum()
    effective = hat.sum() ** 2 / (hat @ hat)
    return _with_tails(np.interp(LEVELS, cumulative, residual[order]), rarest=1 / (1 + effective))


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
    return float(ndtri(probability))


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
