from __future__ import annotations

import numpy as np
import pytest

import metacalo.evaluate.manifold as module
from metacalo.evaluate.manifold import overlap


def by_definition(x, y, k):
    """The four figures with a loop for each sum of the papers' equations."""

    def distance(a, b):
        return float(np.sqrt(np.sum((a - b) ** 2)))

    def reach(rows):
        return [sorted(distance(a, b) for j, b in enumerate(rows) if j != i)[k - 1] for i, a in enumerate(rows)]

    in_x = [[distance(a, b) < r for a, r in zip(x, reach(x), strict=True)] for b in y]
    in_y = [[distance(a, b) < r for b, r in zip(y, reach(y), strict=True)] for a in x]
    return (
        np.mean([any(balls) for balls in in_x]),
        np.mean([any(balls) for balls in in_y]),
        np.sum(in_x) / (k * len(y)),
        np.mean(np.any(in_x, axis=0)),
    )


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (1.0, 1.0), (0.0, 0.3), (0.5, 1.4)])
def test_the_four_figures_are_their_definitions(monkeypatch, shift, spread):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 3)), rng.normal(shift, spread, (25, 3))
    expected = by_definition(x, y, 4)
    np.testing.assert_allclose(overlap(x, y, neighbours=4), expected)
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_allclose(overlap(x, y, neighbours=4), expected)


def test_of_equal_distributions_density_and_coverage_are_as_expected():
    rng = np.random.default_rng(2)
    found = np.mean([overlap(*rng.normal(size=(2, 300, 4))) for _ in range(20)], axis=0)
    np.testing.assert_allclose(found[2:], [1, 1 - 2.0**-5], atol=0.02)


def test_too_few_modes_cost_recall_and_coverage_and_outliers_cost_precision():
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(400, 2)) + np.repeat([[0, 0], [4, 4]], 200, axis=0)
    one_mode = overlap(reference, rng.normal(size=(400, 2)))
    assert one_mode.precision > 0.9
    assert one_mode.recall < 0.6 > one_mode.coverage
    strange = rng.normal(size=(400, 2))
    strange[::2] -= 4
    assert overlap(reference[:200], strange).precision < 0.6


def test_few_showers_have_no_figures():
    rows = np.random.default_rng(4).normal(size=(5, 2))
    assert np.isnan(overlap(rows, rows)).all()
    assert overlap(rows, rows, neighbours=4).precision == 1
