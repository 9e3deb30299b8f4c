from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import metacalo.evaluate.diversity as module
from metacalo.evaluate.diversity import Distinct, Spacing, distinct_showers, nearest_ratio
from metacalo.evaluate.signatures import Signatures, Trend, signatures
from tests.evaluate.library import library

UNIT = Spacing(Trend(np.zeros(3), 1.0, 1e6), 1.0)
"""Showers within a distance of 1 are the same."""


def at(*points):
    vectors = np.array(points, dtype=np.float32).reshape(len(points), -1)
    return Signatures(vectors, np.full(len(points), 1e4))


@pytest.fixture(scope="module")
def marks(halves):
    return signatures(halves[0]), signatures(halves[1])


def test_geant4_is_diverse(marks):
    first, second = marks
    spacing = Spacing.of(first)
    assert 0.7 < spacing.close < 1
    found = distinct_showers(second, spacing)
    assert found.showers == 400
    assert 385 < found.distinct <= 400
    assert 375 < found.effective <= found.distinct
    assert nearest_ratio(first, second, spacing) == pytest.approx(1, abs=0.05)


def test_a_library_is_not(marks, halves):
    first, second = marks
    spacing = Spacing.of(second)
    made = signatures(library(halves[0].select(np.arange(40)), 1000))
    found = distinct_showers(made, spacing)
    assert 38 <= found.distinct <= 40
    assert 30 < found.effective < 40
    assert nearest_ratio(second, made, spacing) < 0.02
    assert nearest_ratio(second, first, spacing) > 0.95


def test_noise_on_the_voxels_does_not_hide_a_library(marks, halves):
    made = library(halves[0].select(np.arange(40)), 400)
    noise = np.exp(np.random.default_rng(3).normal(0, 0.2, made.showers.shape)).astype(np.float32)
    noisy = signatures(replace(made, showers=made.showers * noise))
    spacing = Spacing.of(marks[1])
    assert distinct_showers(noisy, spacing).distinct <= 40
    assert nearest_ratio(marks[1], noisy, spacing) < 0.5


def test_other_energies_are_no_other_diversity(marks):
    first, second = marks
    spacing = Spacing.of(first)
    low, high = (second[np.flatnonzero(chosen)] for chosen in (second.energy < 8e3, second.energy > 20e3))
    assert low.nearest().mean() > 1.5 * high.nearest().mean()
    assert nearest_ratio(first, low, spacing) == pytest.approx(nearest_ratio(first, high, spacing), rel=0.15)


def test_clusters_are_counted():
    sample = at(0, 10, 0.1, 20, 10.2, 0.2, 10.1, -0.3, 20.4, 0.3)
    assert distinct_showers(sample, UNIT) == Distinct(10, 3, pytest.approx(100 / (25 + 9 + 4)))
    apart = at(*range(0, 50, 2))
    assert distinct_showers(apart, UNIT) == Distinct(25, 25, 25.0)


def test_a_shower_joins_the_nearest_cluster():
    # 1.7 is near to both: to the first shower of the later cluster more so
    assert distinct_showers(at(0, 1.8, 0.95, 0.9, 0.85), UNIT) == Distinct(5, 2, pytest.approx(25 / (9 + 4)))


def test_a_shower_reaches_as_far_as_is_usual_at_its_energy():
    falling = Spacing(Trend(np.array([0.0, -0.5, np.log(100.0)]), 1e2, 1e6), 1.0)  # 3.2 at 1 GeV, 1 at 10 GeV
    points = at(0, 2, 0.5, 2.2).vectors
    assert distinct_showers(Signatures(points, np.full(4, 1e4)), falling).distinct == 2
    assert distinct_showers(Signatures(points, np.full(4, 1e3)), falling).distinct == 1


@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_change_no_count(block, monkeypatch, marks):
    spacing = Spacing.of(marks[0])
    wider = replace(spacing, close=1.1)
    made = marks[1][:150]
    expected = distinct_showers(made, wider).distinct
    assert 10 < expected < 140
    monkeypatch.setattr(module, "_BLOCK", block)
    assert distinct_showers(made, wider).distinct == expected


def test_one_shower_over_and_over_is_one():
    assert distinct_showers(at(*np.ones(3000)), UNIT) == Distinct(3000, 1, 1.0)
    nothing = Signatures(np.zeros((30, 5), np.float32), np.full(30, 1e3))
    assert distinct_showers(nothing, UNIT).distinct == 1
    assert nearest_ratio(at(*range(30)), nothing, UNIT) == 0
    assert np.isnan(nearest_ratio(nothing, nothing, UNIT))
    assert distinct_showers(nothing[:0], UNIT) == Distinct(0, 0, 0.0)
