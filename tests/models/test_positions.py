from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacalo.models.positions import sincos_3d


def table(counts: tuple[int, int, int], width: int) -> np.ndarray:
    """Embeddings as (z, r, phi, width), float64."""
    n_r, n_phi, n_z = counts
    return sincos_3d(counts, width).double().numpy().reshape(n_z, n_r, n_phi, width)


@given(st.integers(3, 30), st.sampled_from([12, 48, 100]))
def test_phi_wraps_round(n_phi: int, width: int) -> None:
    ring = table((2, n_phi, 2), width)[1, 0]
    distance = np.linalg.norm(ring - np.roll(ring, -1, axis=0), axis=1)
    np.testing.assert_allclose(distance, distance[0], rtol=1e-4)  # the last and the first are neighbours too
    gram = ring @ ring.T
    np.testing.assert_allclose(gram, np.roll(gram, (1, 1), (0, 1)), atol=1e-4)


@pytest.mark.parametrize("counts", [(1, 1, 45), (3, 8, 15), (9, 16, 45), (6, 10, 5)])
@pytest.mark.parametrize("width", [12, 96, 145])
def test_rows_are_distinct(counts: tuple[int, int, int], width: int) -> None:
    rows = sincos_3d(counts, width)
    assert rows.shape == (counts[0] * counts[1] * counts[2], width)
    assert len(torch.unique((100 * rows).round(), dim=0)) == len(rows)


def test_each_axis_has_a_third_of_the_width() -> None:
    rows = table((3, 4, 5), 20)  # 20 // 6 * 2 = 6 each, 2 left over
    np.testing.assert_array_equal(rows[..., 18:], 0)
    for part, axis in ((slice(0, 6), 0), (slice(6, 12), 1), (slice(12, 18), 2)):
        others = tuple(other for other in range(3) if other != axis)
        np.testing.assert_array_equal(np.ptp(rows[..., part], axis=others), 0)
        assert (np.abs(np.diff(rows[..., part], axis=axis)).max(-1) > 1e-3).all()
    np.testing.assert_allclose((rows[..., :18] ** 2).sum(-1), 9, rtol=1e-6)  # sine and cosine pairs


def test_frequencies_of_the_straight_axes_fall_from_1_to_a_hundredth() -> None:
    rows = table((7, 1, 1), 12)[0, :, 0, 4:8]  # r: sin and cos of two frequencies
    r = np.arange(7)
    np.testing.assert_allclose(rows, np.stack([np.sin(r), np.sin(r / 100), np.cos(r), np.cos(r / 100)], 1), atol=1e-6)
