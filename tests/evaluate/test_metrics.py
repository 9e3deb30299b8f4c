from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.linalg import sqrtm
from scipy.stats import wasserstein_distance

import metacalo.evaluate.metrics as module
from metacalo.evaluate.metrics import (
    cuts,
    fpd,
    frechet_distance,
    kpd,
    profile_difference,
    separation_power,
    standardise,
    wasserstein1,
)

columns = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(-100, 100, allow_subnormal=False)
)


@settings(max_examples=80, deadline=None)
@given(columns, columns)
def test_w1_is_that_of_scipy(first, second):
    expected = [wasserstein_distance(first[:, i], second[:, i]) for i in range(2)]
    np.testing.assert_allclose(wasserstein1(first, second), expected, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(columns, columns, st.floats(-50, 50))
def test_w1_is_symmetric_and_does_not_see_a_common_shift(first, second, shift):
    distance = wasserstein1(first, second)
    np.testing.assert_allclose(wasserstein1(second, first), distance, atol=1e-9)
    np.testing.assert_allclose(wasserstein1(first + shift, second + shift), distance, atol=1e-9)
    np.testing.assert_allclose(wasserstein1(first, first + shift), abs(shift), atol=1e-9)


def test_w1_of_two_gaussians_is_the_distance_of_their_means():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, (50_000, 1)), rng.normal(0.7, 1, (40_000, 1))
    np.testing.assert_allclose(wasserstein1(first, second), 0.7, atol=0.03)


def test_standardise_is_by_the_reference_and_spares_constant_columns():
    rng = np.random.default_rng(1)
    reference = np.stack([rng.normal(5, 3, 1000), np.full(1000, 0.1)], axis=1)
    scaled, other = standardise(reference, reference + np.array([3.0, 0.5]))
    np.testing.assert_allclose(scaled[:, 0].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(scaled[:, 0].std(), 1)
    np.testing.assert_allclose(other[:, 1], 0.5)
    np.testing.assert_allclose(other[:, 0] - scaled[:, 0], 3 / reference[:, 0].std())


def test_separation_is_0_for_equal_1_for_disjoint_and_known_between():
    rng = np.random.default_rng(2)
    reference = rng.uniform(0, 1, (4000, 2))
    np.testing.assert_allclose(separation_power(reference, reference), 0)
    half = np.stack([np.full(100, 5.0), rng.uniform(0.5, 1.0, 100)], axis=1)
    # All in the last of 20 equal bins: 1/2 (19/20 + (19/20)^2 / (21/20)); upper half: 1/2 (1/2 + 1/2 (1/3)).
    found = separation_power(reference, half)
    np.testing.assert_allclose(found[0], 0.5 * (0.95 + 0.95**2 / 1.05), rtol=1e-3)
    np.testing.assert_allclose(found[1], 1 / 3, atol=0.04)
    apart = np.concatenate([np.zeros((50, 1)), np.ones((50, 1))])
    np.testing.assert_allclose(separation_power(apart, np.full((9, 1), 2.0)), 1)
    np.testing.assert_allclose(separation_power(np.zeros((50, 1)), apart), 1 / 3)
    np.testing.assert_allclose(separation_power(np.zeros((50, 1)), np.zeros((7, 1))), 0)


def test_frechet_distance_has_its_closed_forms():
    rng = np.random.default_rng(3)
    a, b = (matrix @ matrix.T for matrix in rng.normal(size=(2, 5, 5)))
    mean = rng.normal(size=5)
    expected = mean @ mean + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert frechet_distance(mean, a, np.zeros(5), b) == pytest.approx(expected, rel=1e-6)
    one, two = np.diag([1.0, 4.0, 0.0]), np.diag([9.0, 4.0, 1.0])  # commuting and singular: sum of (s1 - s2)^2
    assert frechet_distance(np.zeros(3), one, np.zeros(3), two) == pytest.approx(4 + 0 + 1)


def test_fpd_finds_the_distance_of_two_gaussians():
    rng = np.random.default_rng(4)
    first, second = rng.normal(0, 1, (2000, 4)), rng.normal(0.5, 1, (2000, 4))
    found = fpd(first, second, batches=10)
    assert found.value == pytest.approx(1.0, abs=0.12)
    assert 0 < found.error < 0.1
    assert fpd(first, second, batches=10) == found
    assert fpd(first, second, seed=1, batches=10) != found


def test_fpd_of_one_distribution_is_small_and_of_few_showers_unknown():
    rng = np.random.default_rng(5)
    first, second = rng.normal(0, 1, (2, 1500, 6))
    assert fpd(first, second).value < 0.02
    assert fpd(first, first).value < 0.005
    assert np.isnan(fpd(first[:10], second).value)


def test_fpd_is_not_decided_by_one_far_shower():
    rng = np.random.default_rng(6)
    first, second = rng.normal(0, 1, (2, 500, 3))
    second[0] = 1e6
    assert fpd(first, second).value < 0.2


def test_kpd_is_its_formula(monkeypatch):
    rng = np.random.default_rng(7)
    first, second = rng.normal(0, 1, (21, 3)), rng.normal(0.3, 1.2, (17, 3))

    def kernel(x, y):
        return (sum(a * b for a, b in zip(x, y, strict=True)) / 3 + 1) ** 4

    within = [
        sum(kernel(x, y) for i, x in enumerate(z) for j, y in enumerate(z) if i != j) / (len(z) * (len(z) - 1))
        for z in (first, second)
    ]
    across = sum(kernel(x, y) for x in first for y in second) / (len(first) * len(second))
    assert kpd(first, second).value == pytest.approx(sum(within) - 2 * across, rel=1e-12)
    monkeypatch.setattr(module, "_BLOCK", 5)
    assert kpd(first, second).value == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_kpd_of_one_distribution_is_zero_on_average():
    rng = np.random.default_rng(8)
    found = np.array([kpd(rng.normal(0, 1, (50, 2)), rng.normal(0, 1, (40, 2)), resamples=20) for _ in range(400)])
    values, errors = found.T
    assert abs(values.mean()) < 3 * values.std() / 20
    assert 0.3 < (values < 0).mean() < 0.8
    assert 1.0 < np.sqrt((errors**2).mean()) / values.std() < 2.5  # the docstring says 1.7


def test_kpd_of_shifted_gaussians_is_the_distance_of_their_moments():
    # In one dimension (x y + 1)^4 = sum_j C(4, j) x^j y^j, and so MMD^2 = sum_j C(4, j) (E x^j - E y^j)^2.
    shift = 0.5
    moments = [shift, shift**2 + 1, shift**3 + 3 * shift, shift**4 + 6 * shift**2 + 3]
    expected = sum(comb(4, j + 1) * (a - b) ** 2 for j, (a, b) in enumerate(zip(moments, [0, 1, 0, 3], strict=True)))
    rng = np.random.default_rng(9)
    found = np.array([kpd(rng.normal(0, 1, (400, 1)), rng.normal(shift, 1, (300, 1))) for _ in range(60)])
    values, errors = found.T
    assert values.mean() == pytest.approx(expected, abs=3 * values.std() / np.sqrt(60))
    assert errors.mean() == pytest.approx(values.std(), rel=0.3)


def test_kpd_is_fixed_by_its_seed_and_unknown_for_few_showers():
    first, second = np.random.default_rng(10).normal(0, 1, (2, 30, 4))
    assert kpd(first, second) == kpd(first, second)
    assert kpd(first, second, seed=1).value == pytest.approx(kpd(first, second).value)
    assert kpd(first, second, seed=1).error != kpd(first, second).error
    assert np.isnan(kpd(first[:15], second).value)
    far, clipped = second.copy(), second.copy()
    far[0], clipped[0] = 1e6, 5.0  # one late shower decides nothing
    assert kpd(first, far) == kpd(first, clipped)


def test_profile_difference():
    reference = np.array([[1.0, 2.0, 0.0], [3.0, 2.0, 0.0]])
    relative, total = profile_difference(reference, np.array([[1.0, 3.0, 1.0]]))
    np.testing.assert_allclose(relative, [-0.5, 0.5, 0.0])
    assert total == pytest.approx(3 / 4)
    assert profile_difference(np.zeros((2, 3)), np.zeros((2, 3)))[1] == 0


@pytest.mark.parametrize(("n_reference", "n_generated"), [(101, 101), (100, 30), (100, 400)])
def test_cuts_are_disjoint_halves_with_as_many_generated_showers(n_reference, n_generated):
    found = cuts(n_reference, n_generated, splits=3, seed=7)
    assert len(found) == 3
    for first, second, generated in found:
        assert not set(first) & set(second)
        assert len(first) == n_reference // 2
        assert len(second) == len(set(generated)) == min(n_reference // 2, n_generated)
        assert max(generated) < n_generated
        if n_reference == n_generated:
            np.testing.assert_array_equal(second, generated)
    again = cuts(n_reference, n_generated, splits=3, seed=7)
    np.testing.assert_array_equal(found[1].first, again[1].first)
