from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from metacalo.evaluate.figures.curves import Curves, histogram, histogram_edges, profile, spectrum
from metacalo.evaluate.observables import SPECTRUM_EDGES


def test_profiles_are_means_with_the_errors_of_means():
    columns = np.array([[1.0, 2.0, np.nan], [3.0, 2.0, np.nan], [5.0, np.nan, np.nan], [7.0, np.nan, np.nan]])
    curves = profile(np.arange(4.0), [columns, 2 * columns])
    np.testing.assert_allclose(curves.values, [[4, 2, np.nan], [8, 4, np.nan]])
    np.testing.assert_allclose(curves.errors[0], [np.sqrt(5) / 2, 0, np.nan])
    ratios = curves.ratios()
    np.testing.assert_allclose(ratios.values, [[1, 1, np.nan], [2, 2, np.nan]])
    np.testing.assert_allclose(ratios.errors[1], [2 * np.sqrt(5) / 2 / 4, 0, np.nan])
    np.testing.assert_allclose(curves.differences().values[1], [4, 2, np.nan])


def test_there_is_no_ratio_to_nothing():
    curves = Curves(np.arange(3.0), np.array([[0.0, 2.0], [1.0, 3.0]]), np.ones((2, 2)))
    np.testing.assert_allclose(curves.ratios().values, [[np.nan, 1], [np.nan, 1.5]])


def test_a_histogram_by_hand():
    reference = np.repeat([0.0, 1.0, 2.0, 3.0], 25)
    curves = histogram([reference, np.array([1.0, 50.0])], bins=2)
    np.testing.assert_allclose(curves.edges, [0, 1.725, 3.45])
    np.testing.assert_allclose(curves.values * 1.725, [[0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_allclose(curves.errors * 1.725, [[np.sqrt(50) / 100] * 2, [0.5] * 2])


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e3, 1e3)), st.integers(1, 30))
def test_a_histogram_has_every_shower_once(values, bins):
    curves = histogram([values, values[:1]], bins)
    assert np.all(np.diff(curves.edges) > 0)
    assert len(curves.edges) == bins + 1
    widths = np.diff(np.log(curves.edges)) if curves.logarithmic and bins > 1 else np.diff(curves.edges)
    if bins > 1:
        np.testing.assert_allclose((curves.values * widths).sum(axis=1), 1)


def test_wide_positive_ranges_are_logarithmic_and_others_are_not():
    assert Curves(histogram_edges(np.geomspace(1e3, 1e5, 100)), np.ones((1, 24)), np.ones((1, 24))).logarithmic
    assert not Curves(histogram_edges(np.linspace(0.9, 1.1, 100)), np.ones((1, 24)), np.ones((1, 24))).logarithmic
    assert histogram_edges(np.zeros(5))[0] == 0
    assert histogram_edges(np.array([-1.0, 1.0]))[0] < -1


def test_the_spectrum_has_five_bins_a_decade_where_there_are_voxels():
    counts = np.zeros((2, 60))
    counts[:, 20:23] = [[1, 2, 4], [3, 4, 4]]  # 1 MeV on
    curves = spectrum([counts, np.zeros((3, 60))])
    np.testing.assert_allclose(curves.edges, 10.0 ** SPECTRUM_EDGES[[20, 22, 24]])
    np.testing.assert_allclose(curves.values, [[5, 4], [0, 0]])
    assert spectrum([np.zeros((1, 60))]).values.tolist() == [[0.0]]
    assert curves.centres[0] == pytest.approx(10**0.1)
