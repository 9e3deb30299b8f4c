from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacalo.errors import ConfigError, ShowerFileError
from metacalo.showers import Grid, Showers
from metacalo.showers.rebin import coarser_grid, parse_mesh, rebin


@given(st.tuples(*[st.tuples(st.integers(1, 3), st.integers(1, 4))] * 3), st.integers(0, 2**32 - 1))
def test_cells_are_added_up_one_by_one(axes, seed):
    """Against a loop over the fine cells: fine cell i lies in coarse cell i // (cells that are added up)."""
    coarse, parts = (tuple(values) for values in zip(*axes, strict=True))
    fine = tuple(new * part for new, part in zip(coarse, parts, strict=True))
    showers = np.random.default_rng(seed).integers(0, 9, (2, *fine)).astype(np.float32)
    expected = np.zeros((2, *coarse))
    for n, *cell in np.ndindex(*showers.shape):
        expected[n, *(index // part for index, part in zip(cell, parts, strict=True))] += showers[n, *cell]
    grid = coarser_grid(Grid(*fine, dr_mm=1.5, dz_mm=2.0), coarse)
    np.testing.assert_array_equal(rebin(showers, grid), expected)
    assert (grid.dr_mm, grid.dz_mm) == (1.5 * parts[0], 2.0 * parts[2])


def test_edges_and_axis_stay_where_they_were(siw: Showers) -> None:
    fine, grid = siw.detector.grid, coarser_grid(siw.detector.grid, (3, 8, 15))
    again = rebin(siw.showers, grid)
    np.testing.assert_allclose(again.sum((1, 2, 3)), siw.showers.sum((1, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(grid.phi_centres, fine.phi_centres.reshape(8, 2).mean(axis=1))
    assert grid.n_z * grid.dz_mm == pytest.approx(fine.n_z * fine.dz_mm)


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ((4, 16, 45), "9 cells in r cannot be added up to 4; 1, 3, 9 would do"),
        ((9, 50, 45), "16 cells in phi cannot be added up to 50; 1, 2, 4, 8, 16 would do"),
        ((9, 16, 40), "45 cells in z cannot be added up to 40; 1, 3, 5, 9, 15, 45 would do"),
    ],
)
def test_an_axis_that_does_not_divide_is_named(mesh, message) -> None:
    with pytest.raises(ShowerFileError) as caught:
        coarser_grid(Grid(), mesh)
    assert str(caught.value) == message


def test_sizes_that_are_not_known_stay_so() -> None:
    assert math.isnan(coarser_grid(Grid(), (3, 8, 9)).dz_mm)


@pytest.mark.parametrize("text", ["9x16", "9x16x45x2", "ax16x45", "0x16x45", "", "9,16,45"])
def test_what_is_no_mesh(text) -> None:
    with pytest.raises(ConfigError, match="is no mesh; give cells in r, phi and z, such as 9x16x45"):
        parse_mesh(text)


def test_a_mesh() -> None:
    assert parse_mesh("18x50x45") == (18, 50, 45)
