from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import metacalo.evaluate.signatures as module
from metacalo.evaluate.signatures import Signatures, Trend, signatures, squared_distances
from metacalo.showers import Showers


def of(showers):
    n = len(showers)
    return signatures(Showers(showers.astype(np.float32), np.full(n, 1e3), np.full(n, 1.5), np.zeros(n)))


def turns(shower):
    """All the ways to turn and mirror a shower (R, PHI, Z)."""
    rolled = [np.roll(shower, cells, axis=1) for cells in range(shower.shape[1])]
    return np.stack([*rolled, *(turn[:, ::-1] for turn in rolled)])


@pytest.mark.parametrize("shape", [(3, 8, 5), (2, 7, 4), (2, 1, 3), (9, 16, 45)])
def test_turning_mirroring_and_scaling_change_nothing(shape):
    shower = np.random.default_rng(0).exponential(size=shape)
    scaled = turns(shower) * np.geomspace(0.1, 10, 2 * shape[1])[:, None, None, None]
    vectors = of(scaled).vectors
    assert vectors.shape == (2 * shape[1], min(shape[0] * (shape[1] // 2 + 1) * shape[2], 512))
    np.testing.assert_allclose(vectors, np.broadcast_to(vectors[0], vectors.shape), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=0.15 if shape[2] == 45 else 1e-5)


@pytest.mark.parametrize("n_phi", [6, 7])
def test_distance_is_at_most_that_of_the_best_common_turn(n_phi):
    first, second = np.random.default_rng(1).exponential(size=(2, 20, 3, n_phi, 4)) ** 3
    found = np.linalg.norm(of(first).vectors - of(second).vectors, axis=1)
    for one, other, distance in zip(first, second, found, strict=True):
        apart = np.sqrt(turns(other) / other.sum()) - np.sqrt(one / one.sum())
        best = np.sqrt((apart**2).sum(axis=(1, 2, 3)).min())
        assert 0.3 * best < distance < best + 1e-5


def test_real_showers_are_apart_and_small_voxels_hardly_matter(geant4):
    few = geant4.select(np.arange(60))
    before = signatures(few)
    factor = np.float32(0.1)
    cut = np.where(few.showers * factor < 0.01515, 0, few.showers * factor)
    after = signatures(Showers(cut, few.energy * factor, few.theta, few.phi))
    moved = np.linalg.norm(before.vectors - after.vectors, axis=1)
    assert moved.max() < 0.3 * before.nearest().min()


def test_the_projection_keeps_distances(geant4):
    few = geant4.select(np.arange(80))
    exact = cdist(*2 * [module._moduli(few.showers)])
    found = cdist(*2 * [signatures(few).vectors])
    pairs = np.triu_indices(80, 1)
    ratio = found[pairs] / exact[pairs]
    assert ratio.mean() == pytest.approx(1, abs=0.05)
    assert ratio.std() < 0.05


def test_chunks_and_blocks_change_nothing(geant4, monkeypatch):
    few = geant4.select(np.arange(50))
    whole = signatures(few)
    nearest, across = whole.nearest(), whole[:20].nearest(whole[20:])
    monkeypatch.setattr(module, "_CHUNK_VOXELS", 7 * 6480)
    monkeypatch.setattr(module, "_BLOCK", 8)
    parts = signatures(few)
    np.testing.assert_allclose(parts.vectors, whole.vectors, atol=1e-6)
    np.testing.assert_allclose(parts.nearest(), nearest, atol=1e-4)
    np.testing.assert_allclose(parts[:20].nearest(parts[20:]), across, atol=1e-4)


def test_nearest_is_that_of_scipy_and_never_a_shower_itself():
    vectors = np.random.default_rng(2).normal(size=(30, 6)).astype(np.float32)
    sample = Signatures(vectors, np.full(30, 1e3))
    distance = cdist(vectors, vectors)
    np.testing.assert_allclose(np.sqrt(squared_distances(vectors, vectors)), distance, atol=3e-3)
    np.testing.assert_allclose(sample[:10].nearest(sample[10:]), distance[:10, 10:].min(axis=1), rtol=1e-4)
    np.fill_diagonal(distance, np.inf)
    np.testing.assert_allclose(sample.nearest(), distance.min(axis=1), rtol=1e-4)
    assert np.isinf(sample[:1].nearest()).all()
    assert np.isinf(sample.nearest(sample[:0])).all()


def test_an_empty_shower_has_an_empty_signature_and_no_showers_none():
    assert not of(np.zeros((2, 9, 16, 45))).vectors.any()
    assert of(np.zeros((0, 9, 16, 45))).vectors.shape == (0, 512)


def test_trend_is_a_parabola_that_ends_with_the_energies():
    energy = np.geomspace(1e3, 1e5, 50)
    x = np.log(energy)
    trend = Trend.fit(energy, np.exp(1.0 - 0.2 * x - 0.01 * x**2))
    np.testing.assert_allclose(trend(energy), np.exp(1.0 - 0.2 * x - 0.01 * x**2))
    np.testing.assert_allclose(trend([1.0, 1e9]), trend(energy[[0, -1]]))


def test_trend_of_one_energy_is_the_geometric_mean():
    trend = Trend.fit(np.full(20, 1e4), np.repeat([0.1, 0.4], 10))
    np.testing.assert_allclose(trend([1e2, 1e4, 1e6]), 0.2)
    assert np.isfinite(Trend.fit(np.full(20, 1e4), np.zeros(20))([1e4])).all()
