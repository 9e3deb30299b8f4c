from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metacalo.evaluate.fluctuations import (
    correlation_difference,
    energy_edges,
    layer_residuals,
    response_by_energy,
)
from metacalo.evaluate.metrics import standardise, wasserstein1
from metacalo.evaluate.observables import observables


@pytest.fixture(scope="module")
def seen(geant4):
    return observables(geant4.showers, geant4.energy)


def test_edges_are_logarithmic_and_hold_all():
    energy = np.random.default_rng(0).uniform(1e3, 1e5, 100).astype(np.float32)
    edges = energy_edges(energy, bins=4)
    np.testing.assert_allclose(np.diff(np.log(edges)), np.log(edges[-1] / edges[0]) / 4)
    assert edges[0] == energy.min()
    assert edges[-1] == energy.max()
    np.testing.assert_allclose(energy_edges(np.full(5, 1e4)), [1e4, 1e4])


def test_response_by_energy_is_the_mean_and_width_of_each_bin(seen):
    edges = energy_edges(seen.energy)
    found = response_by_energy(seen, edges)
    assert found.showers.sum() == len(seen)
    inside = seen.response[(seen.energy >= edges[1]) & (seen.energy < edges[2])]
    assert found.mean[1] == pytest.approx(inside.mean())
    assert found.width[1] == pytest.approx(inside.std(ddof=1))
    np.testing.assert_allclose(found.mean_error, found.width / np.sqrt(found.showers), rtol=0.25)
    np.testing.assert_allclose(found.mean, 1, atol=0.02)
    assert np.all(np.diff(found.width) < 0)  # resolution goes as 1 / sqrt E
    again = response_by_energy(seen, edges)
    np.testing.assert_array_equal(again.width_error, found.width_error)


def test_width_error_of_a_gaussian_is_that_of_theory(seen):
    gaussian = replace(
        seen, response=np.random.default_rng(1).normal(1, 0.1, len(seen)), energy=np.full(len(seen), 1e4)
    )
    found = response_by_energy(gaussian, energy_edges(gaussian.energy), resamples=1000)
    assert found.showers.tolist() == [800]
    assert found.width_error[0] == pytest.approx(0.1 / np.sqrt(2 * 799), rel=0.15)


def test_a_bin_without_showers_has_no_figures(seen):
    found = response_by_energy(seen, [1.0, 2.0, 1e3, 1e6])
    assert found.showers.tolist() == [0, 0, 800]
    assert np.isnan(found.mean[:2]).all()
    assert np.isfinite(found.width_error[2])


def test_residuals_have_no_energy_left(seen):
    found = layer_residuals(seen)
    assert found.shape == (800, 45)
    filled = (seen.layer_energy > 0).mean(axis=0) > 0.95
    for third in np.array_split(np.argsort(seen.energy), 3):
        np.testing.assert_allclose(found[third][:, filled].mean(axis=0), 0, atol=0.2)
        np.testing.assert_allclose(found[third][:, filled].std(axis=0), 1, atol=0.45)  # the first layer has a tail


def test_residuals_of_one_energy_and_of_empty_showers_are_finite():
    shower = np.random.default_rng(2).exponential(size=(30, 2, 3, 4)).astype(np.float32)
    alike = layer_residuals(observables(shower, np.full(30, 1e3)))
    np.testing.assert_allclose(alike.mean(axis=0), 0, atol=0.3)
    np.testing.assert_array_equal(layer_residuals(observables(np.zeros_like(shower), np.full(30, 1e3))), 0)


def test_correlation_difference_of_gaussians_is_known():
    rng = np.random.default_rng(3)
    free = rng.normal(size=(20_000, 2))
    tied = np.stack([free[:, 0], 0.8 * free[:, 0] + 0.6 * free[:, 1]], axis=1)
    assert correlation_difference(free, tied) == pytest.approx(0.8, abs=0.03)
    assert correlation_difference(tied, tied) == 0
    assert correlation_difference(tied, np.ones((5, 2))) == pytest.approx(0.8, abs=0.03)
    assert correlation_difference(free[:, :1], tied[:, :1]) == 0
    first, second = rng.normal(size=(2, 500, 40))
    assert correlation_difference(first, second) == pytest.approx(1.13 / np.sqrt(500), rel=0.1)


def test_layers_that_go_their_own_way_are_seen_here_and_in_no_profile(seen):
    rng, order = np.random.default_rng(4), np.argsort(seen.energy)
    shuffled = seen.layer_fraction.copy()
    for layer in range(45):  # each layer from another one of the 20 showers nearest in energy
        rows = np.concatenate([rng.permutation(part) for part in np.array_split(order, 40)])
        shuffled[order, layer] = seen.layer_fraction[rows, layer]
    one, other = np.arange(0, 800, 2), np.arange(1, 800, 2)
    expected, found = layer_residuals(seen), layer_residuals(replace(seen, layer_fraction=shuffled))
    floor = correlation_difference(expected[one], expected[other])
    assert correlation_difference(expected[one], found[other]) > 2 * floor
    profiles = standardise(seen.layer_fraction, shuffled)
    assert wasserstein1(*profiles).mean() < 1e-9
