from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import metacalo.evaluate.observables as module
from metacalo.errors import ShowerFileError
from metacalo.evaluate.observables import RELATIVE_EDGES, SPECTRUM_EDGES, Observables, observables

LAYERS = ("centre_x", "centre_y", "width_x", "width_y", "mean_r", "width_r")

voxels = st.one_of(st.just(0.0), st.floats(2**-6, 2.0**13, width=32))
samples = hnp.arrays(np.float32, st.tuples(st.integers(1, 4), *(st.integers(1, 5),) * 3), elements=voxels)


@settings(max_examples=60, deadline=None)
@given(samples)
def test_sums_and_bounds(showers):
    n, n_r, n_phi, n_z = showers.shape
    energy = np.full(n, 5000.0)
    seen = observables(showers, energy)
    total = showers.sum(axis=(1, 2, 3), dtype=np.float64)
    hit = total > 0
    np.testing.assert_allclose(seen.response, total / energy)
    np.testing.assert_allclose(seen.layer_energy.sum(axis=1), total)
    np.testing.assert_allclose(seen.layer_fraction.sum(axis=1), hit)
    np.testing.assert_allclose(seen.ring_fraction.sum(axis=1), hit)
    hits = np.count_nonzero(showers, axis=(1, 2, 3))
    np.testing.assert_array_equal(seen.spectrum.sum(axis=1), hits)
    np.testing.assert_array_equal(seen.relative_spectrum.sum(axis=1), hits)
    np.testing.assert_allclose(seen.occupancy, hits / (n_r * n_phi * n_z))
    np.testing.assert_allclose(seen.layer_occupancy.mean(axis=1), seen.occupancy)
    np.testing.assert_allclose(seen.max_fraction, showers.max(axis=(1, 2, 3)) / energy, rtol=1e-6)
    assert np.all((seen.longitudinal_mean >= 0) & (seen.longitudinal_mean <= n_z))
    assert np.all(seen.lateral_width <= n_r / 2 + 1e-9)
    assert np.all((seen.leading_fraction >= 0) & (seen.leading_fraction <= 1 + 1e-9))
    within = {f"layer_{name}" for name in LAYERS}
    assert all(
        np.isfinite(getattr(seen, field.name)).all() for field in fields(Observables) if field.name not in within
    )
    for name in within:
        np.testing.assert_array_equal(np.isfinite(getattr(seen, name)), seen.layer_energy > 0)


@settings(max_examples=60, deadline=None)
@given(samples)
def test_moments_within_layers_are_those_of_numpy(showers):
    n, n_r, n_phi, _ = showers.shape
    seen = observables(showers, np.full(n, 5000.0))
    r, phi = np.meshgrid(np.arange(n_r) + 0.5, -np.pi + 2 * np.pi * (np.arange(n_phi) + 0.5) / n_phi, indexing="ij")
    for shower, layer in zip(*np.nonzero(seen.layer_energy), strict=True):
        weights = showers[shower, :, :, layer].astype(np.float64)
        for position, names in (
            (r * np.cos(phi), ("centre_x", "width_x")),
            (r * np.sin(phi), ("centre_y", "width_y")),
            (r, ("mean_r", "width_r")),
        ):
            mean = np.average(position, weights=weights)
            width = np.sqrt(np.average((position - mean) ** 2, weights=weights))
            found = [getattr(seen, f"layer_{name}")[shower, layer] for name in names]
            np.testing.assert_allclose(found, [mean, width], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(samples, st.integers(0, 4))
def test_turning_a_shower_moves_nothing_but_the_centre(showers, cells):
    energy = np.full(len(showers), 100.0)
    before, after = observables(showers, energy), observables(np.roll(showers, cells, axis=2), energy)
    for name in ("response", "layer_fraction", "ring_fraction", "lateral_width", "occupancy", "spectrum"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), atol=1e-9)
    np.testing.assert_allclose(
        np.hypot(after.centre_x, after.centre_y), np.hypot(before.centre_x, before.centre_y), atol=1e-9
    )


def test_two_voxels_by_hand():
    shower = np.zeros((1, 4, 8, 10), dtype=np.float32)
    shower[0, 0, 4, 2] = 30.0  # r 0.5, phi pi/8, depth 2.5
    shower[0, 2, 4, 6] = 10.0  # r 2.5, phi pi/8, depth 6.5
    seen = observables(shower, [100.0])
    assert seen.response[0] == pytest.approx(0.4)
    assert seen.longitudinal_mean[0] == pytest.approx(0.75 * 2.5 + 0.25 * 6.5)
    assert seen.longitudinal_width[0] == pytest.approx(4 * np.sqrt(0.75 * 0.25))
    assert seen.lateral_mean[0] == pytest.approx(1.0)
    assert seen.lateral_width[0] == pytest.approx(2 * np.sqrt(0.75 * 0.25))
    assert seen.centre_x[0] == pytest.approx(np.cos(np.pi / 8))
    assert seen.centre_y[0] == pytest.approx(np.sin(np.pi / 8))
    assert seen.width_x[0] == pytest.approx(2 * np.cos(np.pi / 8) * np.sqrt(0.75 * 0.25))
    assert seen.max_fraction[0] == pytest.approx(0.3)
    assert seen.leading_fraction[0] == pytest.approx(0.75)
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(seen.layer_mean_r[0])), [2, 6])
    assert seen.layer_mean_r[0, [2, 6]] == pytest.approx([0.5, 2.5])
    assert seen.layer_centre_x[0, [2, 6]] == pytest.approx([0.5 * np.cos(np.pi / 8), 2.5 * np.cos(np.pi / 8)])
    assert seen.layer_width_x[0, [2, 6]] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert SPECTRUM_EDGES[np.flatnonzero(seen.spectrum[0])] == pytest.approx([1.0, 1.4])
    assert RELATIVE_EDGES[np.flatnonzero(seen.relative_spectrum[0])] == pytest.approx([-1.8])


def test_an_empty_shower_is_zero_everywhere():
    seen = observables(np.zeros((2, 9, 16, 45), dtype=np.float32), [1e3, 1e5])
    for field in fields(Observables):
        empty = np.nan if field.name.removeprefix("layer_") in LAYERS and field.name.startswith("layer_") else 0.0
        expected = [1e3, 1e5] if field.name == "energy" else empty
        np.testing.assert_array_equal(
            getattr(seen, field.name).T, np.broadcast_to(expected, getattr(seen, field.name).T.shape)
        )
    table, _ = seen.features()
    assert np.isfinite(table).all()


def test_no_shower_gives_empty_arrays():
    table, names = observables(np.zeros((0, 9, 16, 45), dtype=np.float32), []).features()
    assert table.shape == (0, len(names)) == (0, 81)


def test_features_are_named_once_and_do_not_depend_on_the_scale_of_the_file(geant4):
    few = geant4.select(np.arange(50))
    seen = observables(few.showers, few.energy)
    table, names = seen.features()
    assert table.shape == (50, 81)
    assert len(set(names)) == 81
    assert names[0] == "response"
    assert sum(columns.shape[1] for columns, _ in seen.groups().values()) == 81 + 45
    raw, _ = observables(few.showers * np.float32(0.5), few.energy).features()
    shapes = [index for index, name in enumerate(names) if "fraction" in name or "mean" in name or "width" in name]
    np.testing.assert_allclose(raw[:, shapes], table[:, shapes], rtol=1e-6, atol=1e-12)


def test_chunks_change_nothing(geant4, monkeypatch):
    few = geant4.select(np.arange(20))
    whole = observables(few.showers, few.energy)
    monkeypatch.setattr(module, "_CHUNK_VOXELS", 3 * 6480)
    parts = observables(few.showers, few.energy)
    for field in fields(Observables):
        np.testing.assert_allclose(getattr(parts, field.name), getattr(whole, field.name), rtol=1e-12)
    np.testing.assert_array_equal(whole.select([3, 1]).response, whole.response[[3, 1]])
    assert len(whole.select(slice(5))) == 5


def test_geant4_looks_like_an_electromagnetic_shower(geant4):
    seen = observables(geant4.showers, geant4.energy)
    assert seen.response.mean() == pytest.approx(1.0, abs=0.02)
    assert seen.ring_fraction[:, :2].sum(axis=1).mean() == pytest.approx(0.88, abs=0.03)  # a Moliere radius is 2 cells
    depth = np.polyfit(np.log(seen.energy), seen.longitudinal_mean, 1)[0]
    assert depth * 0.77 == pytest.approx(1.0, abs=0.15)  # a layer is 0.77 X0, and showers go one X0 deeper per factor e


@pytest.mark.parametrize(
    ("showers", "energy", "message"),
    [
        (np.zeros((2, 3, 4), dtype=np.float32), [1.0, 1.0], "do not fit 2 energies"),
        (np.zeros((2, 3, 4, 5), dtype=np.float32), [1.0], "do not fit 1 energies"),
        (np.zeros((1, 3, 4, 5), dtype=np.float32), [0.0], "must be positive"),
        (np.full((1, 3, 4, 5), np.nan, dtype=np.float32), [1.0], "negative or not finite"),
        (np.full((1, 3, 4, 5), -1.0, dtype=np.float32), [1.0], "negative or not finite"),
    ],
)
def test_impossible_showers_are_reported(showers, energy, message):
    with pytest.raises(ShowerFileError, match=message):
        observables(showers, energy)
