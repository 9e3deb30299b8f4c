from __future__ import annotations

import numpy as np
import pytest

from metacalo.evaluate.calochallenge import CHALLENGE_THRESHOLD, challenge_features, challenge_metrics
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
    names = ("energy", "eta", "phi", "eta width", "phi width", "sparsity", "r", "r width")
    columns = {name: [] for name in names}
    flat = np.where(flat < 0.5e-3 / 0.033, 0, flat)
    for layer in np.split(flat.astype(np.float64), n_z, axis=1):
        total = layer.sum(axis=1) + 1e-16
        columns["energy"].append(np.log10(layer.sum(axis=1) + 1e-8))
        columns["sparsity"].append(1 - (layer > 0).mean(axis=1))
        for name, position in (("eta", eta), ("phi", phi), ("r", radius)):
            mean = (position * layer).sum(axis=1) / total
            columns[name].append(mean / 1e2)
            square = (position**2 * layer).sum(axis=1) / total
            columns[f"{name} width"].append(np.sqrt(np.clip(square - mean**2, 0, None)) / 1e2)
    groups = [np.stack(columns[name], axis=1) for name in names]
    total = np.log10(flat.sum(axis=1, dtype=np.float64) + 1e-8)
    return np.concatenate([np.log10(energy)[:, None], *groups[:5], total[:, None], *groups[5:]], axis=1)


def test_features_are_those_of_the_challenge(halves):
    sample = halves[0].select(np.arange(40))
    sample.showers[3, :, :, 7] = 0
    noise = np.random.default_rng(1).uniform(0, 0.0151, sample.showers.shape).astype(np.float32)
    sample.showers[5:] += np.where(sample.showers[5:] == 0, noise[5:], 0)
    expected = by_the_challenge(
        flatten_calochallenge(sample.showers), sample.energy.astype(np.float64), sample.showers.shape[1:], 4.65
    )
    found = challenge_features(observables(sample.showers, sample.energy, threshold=CHALLENGE_THRESHOLD), 4.65)
    assert found.shape == (40, 362)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found[3, 1 + 7] == pytest.approx(-8)


def test_fpd_does_not_know_cell_sizes_and_halves_have_a_floor(monkeypatch, halves, too_much):
    seen = [observables(sample.showers[:200], sample.energy[:200]) for sample in (halves[0], too_much)]
    (cut,) = cuts(200, 200, splits=1)
    fast = {"min_samples": 300, "max_samples": 600, "batches": 2, "points": 3}
    monkeypatch.setattr("metacalo.evaluate.calochallenge.jetnet_fpd", lambda *both, **_: jetnet_fpd(*both, **fast))
    monkeypatch.setattr(
        "metacalo.evaluate.calochallenge.jetnet_kpd", lambda *both, **_: jetnet_kpd(*both, batch_size=300, batches=3)
    )
    large, small = (
        challenge_metrics(challenge_features(seen[1], dr), challenge_features(seen[0], dr), cut) for dr in (100.0, 1.0)
    )
    for name in ("fpd", "kpd"):
        np.testing.assert_allclose(large[name], small[name], rtol=1e-4, atol=1e-9)
    value, half, floor = (estimate.value for estimate in large["fpd"])
    assert half > floor > 0 < value < half
