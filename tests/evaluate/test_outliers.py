from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacalo.errors import ShowerFileError
from metacalo.evaluate.outliers import FEWEST, EnergyTrend


def scores(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies in MeV, scores that fall and widen with ln E, and the deviations they were made of."""
    rng = np.random.default_rng(seed)
    energy = 1e3 * np.exp(rng.uniform(0, np.log(100), n))
    x, deviation = np.log(energy / 1e4), rng.standard_normal(n)
    return energy, -1200 - 20 * x + 3 * x**2 + (8 + x) * deviation, deviation


def test_deviations_are_found_again():
    energy, score, wanted = scores(2000)
    found = EnergyTrend.fit(energy, score).deviation(energy, score)
    assert np.corrcoef(found, wanted)[0, 1] > 0.995
    assert found.std() == pytest.approx(1, abs=0.04)
    left, there = (np.corrcoef(values, np.log(energy))[0, 1] for values in (found, wanted))
    assert left == pytest.approx(there, abs=0.03)


def test_a_third_of_outliers_hardly_moves_the_trend():
    energy, score, wanted = scores(900)
    bad = np.arange(900) % 3 == 0
    spoilt = np.where(bad, score - 500, score)
    found = EnergyTrend.fit(energy, spoilt).deviation(energy, spoilt)
    assert found[bad].max() < -15
    assert np.abs(found[~bad] - wanted[~bad]).mean() < 1  # the median of a sample with outliers on one side
    assert np.median(np.abs(found[~bad])) < 1.2


def test_the_trend_follows_the_reference_and_not_the_sample():
    energy, score, _ = scores(500)
    trend = EnergyTrend.fit(energy, score)
    np.testing.assert_allclose(
        trend.deviation(energy[:3], score[:3] - 40), trend.deviation(energy, score - 40)[:3], rtol=1e-12
    )


def test_beyond_the_energies_of_the_reference_the_trend_stays():
    energy, score, _ = scores(500)
    trend = EnergyTrend.fit(energy, score)
    edges = np.array([energy.min(), energy.max()])
    np.testing.assert_allclose(
        trend.deviation(edges, [-1200, -1200]), trend.deviation(edges * [0.01, 50], [-1200, -1200])
    )


@settings(max_examples=15)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3), st.floats(-1e4, 1e4))
def test_units_and_origin_of_the_score_do_not_matter(seed, unit, origin):
    energy, score, _ = scores(40, seed)
    one, other = (EnergyTrend.fit(energy, s).deviation(energy, s) for s in (score, unit * score + origin))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("energies", [(10_000.0,), (1_000.0, 50_000.0)])
def test_few_different_energies(energies):
    rng = np.random.default_rng(0)
    energy, score = np.resize(energies, 400), rng.standard_normal(400)
    score[energy == energies[-1]] += 7 * (len(energies) - 1)
    found = EnergyTrend.fit(energy, score).deviation(energy, score)
    for each in energies:
        assert np.median(found[energy == each]) == pytest.approx(0, abs=0.02)
    assert found.std() == pytest.approx(1, abs=0.15)


def test_equal_scores_are_no_outliers():
    energy = np.linspace(1e3, 1e5, 30)
    assert not EnergyTrend.fit(energy, np.full(30, -7.0)).deviation(energy, np.full(30, -7.0)).any()


def test_too_few_showers():
    energy, score, _ = scores(FEWEST - 1)
    with pytest.raises(ShowerFileError, match=r"^19 showers are too few .*; score at least 20$"):
        EnergyTrend.fit(energy, score)
