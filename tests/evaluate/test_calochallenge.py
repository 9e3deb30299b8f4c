from __future__ import annotations

import numpy as np
import pytest

from metacalo.evaluate.calochallenge import challenge_features, challenge_metrics
from metacalo.evaluate.jetnet import jetnet_fpd, jetnet_kpd
from metacalo.evaluate.metrics import cuts
from metacalo.evaluate.observables import observables
from metacalo.showers.conventions import flatten_calochallenge


def by_the_challenge(flat, energy, shape, dr):
    """The features from flat showers, layer by layer, as the challenge's HighLevelFeatures describes them."""
    n_r, n_phi, n_z = shape
    edges = np.linspace(-np.pi, np.pi, n_phi + 1)
    alpha = np.repeat((edges[1:] + edges[:-1]) / 2, n_r)  # r is fastest
    radius = np.tile((np.arange(n_r) + 0.5) * dr, n_phi)
    eta, phi = radius * np.cos(alpha), radius * np.sin(alpha)
    columns = {name: [] for name in ("energy", "eta", "phi", "eta width", "phi width")}
    for layer in np.split(flat.astype(np.float64), n_z, axis=1):
        total = layer.sum(axis=1) + 1e-16
        columns["energy"].append(np.log10(layer.sum(axis=1) + 1e-8))
        for name, position in (("eta", eta), ("phi", phi)):
            mean = (position * layer).sum(axis=1) / total
            columns[name].append(mean / 1e2)
            square = (position**2 * layer).sum(axis=1) / total
            columns[f"{name} width"].append(np.sqrt(np.clip(square - mean**2, 0, None)) / 1e2)
    return np.stack([np.log10(energy), *(column for group in columns.values() for column in group)], axis=1)


def test_features_are_those_of_the_challenge(halves):
    sample = halves[0].select(np.arange(40))
    sample.showers[3, :, :, 7] = 0
    expected = by_the_challenge(
        flatten_calochallenge(sample.showers), sample.energy.astype(np.float64), sample.showers.shape[1:], 4.65
    )
    found = challenge_features(observables(sample.showers, sample.energy), 4.65)
    assert found.shape == (40, 226)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found[3, 1 + 7] == pytest.approx(-8)


def test_fpd_does_not_know_cell_sizes_and_halves_have_a_floor(monkeypatch, halves, too_much):
    seen = [observables(sample.showers[:200], sample.energy[:200]) for sample in (halves[0], too_much)]
    (cut,) = cuts(200, 200, splits=1)
    fast = {"min_samples": 300, "max_samples": 600, "batches": 2, "points": 3}
    monkeypatch.setattr("metacalo.evaluate.calochallenge.jetnet_fpd", lambda *both: jetnet_fpd(*both, **fast))
    monkeypatch.setattr(
        "metacalo.evaluate.calochallenge.jetnet_kpd", lambda *both: jetnet_kpd(*both, batch_size=300, batches=3)
    )
    large, small = (
        challenge_metrics(challenge_features(seen[1], dr), challenge_features(seen[0], dr), cut) for dr in (100.0, 1.0)
    )
    for name in ("fpd", "kpd"):
        np.testing.assert_allclose(large[name], small[name], rtol=1e-4, atol=1e-9)
    value, half, floor = (estimate.value for estimate in large["fpd"])
    assert half > floor > 0 < value < half
