"""The two mirror symmetries of a shower in the frame of its direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacalo.normaliser.condition_vector import encode_conditions
from metacalo.normaliser.latents import Latents
from metacalo.showers import Grid, data_folder, open_showers
from metacalo.training_data.reflection import reflected
from metacalo.training_data.shower_pool import ShowerPool, mixed_batch
from tests.small import seeded


def latents_of(cells: torch.Tensor) -> Latents:
    n, n_r, n_phi, n_z = cells.shape
    return replace(Latents.noise(n, (n_r, n_phi, n_z), seeded()), cells=cells)


def reflect(cells: torch.Tensor, *, y: bool = False, x: bool = False) -> torch.Tensor:
    n = len(cells)
    return reflected(latents_of(cells), torch.full((n,), y), torch.full((n,), x)).cells


def azimuth(voxels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Energy-weighted means of cos phi and sin phi of each shower."""
    centres = Grid(n_phi=voxels.shape[2]).phi_centres
    weights = voxels.double().sum((1, 3)).numpy()
    weights /= weights.sum(1, keepdims=True)
    return weights @ np.cos(centres), weights @ np.sin(centres)


@given(st.integers(1, 24), st.booleans(), st.booleans())
def test_twice_is_the_identity_and_the_two_commute(n_phi: int, y: bool, x: bool) -> None:
    cells = torch.rand(2, 2, n_phi, 3, generator=seeded(n_phi))
    assert torch.equal(reflect(reflect(cells, y=y, x=x), y=y, x=x), cells)
    both = reflect(cells, y=True, x=True)
    assert torch.equal(reflect(reflect(cells, y=True), x=True), both)
    assert torch.equal(reflect(reflect(cells, x=True), y=True), both)


@pytest.mark.parametrize("n_phi", [2, 16, 50])
def test_cells_go_to_the_mirrored_centres(n_phi: int) -> None:
    """phi -> -phi keeps the cosine and turns the sine; phi -> pi - phi does it the other way round."""
    cells = torch.rand(5, 3, n_phi, 4, generator=seeded())
    cosine, sine = azimuth(cells)
    for mirrored, expected in (
        (reflect(cells, y=True), (cosine, -sine)),
        (reflect(cells, x=True), (-cosine, sine)),
        (reflect(cells, y=True, x=True), (-cosine, -sine)),
    ):
        np.testing.assert_allclose(azimuth(mirrored), expected, atol=1e-12)


@pytest.mark.parametrize("n_phi", [5, 16])
def test_single_cells_go_to_the_mirrored_centres(n_phi: int) -> None:
    centres = Grid(n_phi=n_phi).phi_centres
    cells = torch.eye(n_phi)[:, None, :, None]  # shower i has its energy in cell i
    places = centres[reflect(cells, y=True).argmax(2).flatten().numpy()]
    np.testing.assert_allclose(np.cos(places - -centres), 1)
    if n_phi % 2 == 0:
        places = centres[reflect(cells, x=True).argmax(2).flatten().numpy()]
        np.testing.assert_allclose(np.cos(places - (np.pi - centres)), 1)


def test_an_odd_number_of_cells_has_no_second_mirror() -> None:
    cells = torch.rand(2, 2, 5, 3, generator=seeded())
    assert torch.equal(reflect(cells, x=True), cells)


def test_showers_are_mirrored_one_by_one_and_keep_their_energies_and_hits() -> None:
    cells = torch.rand(4, 2, 6, 3, generator=seeded())
    flip_y, flip_x = torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])
    result = reflected(latents_of(cells), flip_y, flip_x)
    for i in range(4):
        expected = reflect(cells[i : i + 1], y=bool(flip_y[i]), x=bool(flip_x[i]))[0]
        assert torch.equal(result.cells[i], expected)
    assert torch.equal(result.structure(), latents_of(cells).structure())


def test_a_batch_mirrors_theta_with_the_shower(pool: Callable[..., ShowerPool]) -> None:
    """Each drawn shower is one of the four images of the stored one, with the theta that belongs to it."""
    parts = [(pool("siw"), torch.arange(25)), (pool("pbwo4"), torch.arange(20, 35))]
    batch, plain = (mixed_batch(parts, seeded(1), reflect=mirrored) for mirrored in (True, False))
    assert torch.equal(batch.latents.structure(), plain.latents.structure())
    found = []
    for i in range(40):
        original, drawn = plain.latents.cells[i : i + 1], batch.latents.cells[i]
        images = [
            (y, x) for y in (False, True) for x in (False, True) if torch.equal(reflect(original, y=y, x=x)[0], drawn)
        ]
        assert len(images) == 1
        found += images
        sign = -1 if images[0][1] else 1
        expected = plain.conditions[i].clone()
        expected[7] *= sign  # cos theta
        torch.testing.assert_close(batch.conditions[i], expected, atol=1e-6, rtol=0)
    assert set(found[:25]) == set(found[25:]) == {(y, x) for y in (False, True) for x in (False, True)}


def test_whitening_does_not_know_the_image(pool: Callable[..., ShowerPool]) -> None:
    """Batches are whitened first and mirrored then: it must not matter, or mirrored showers were another density."""
    whiten = pool("siw").normaliser.copula.forward
    latents, log_energy = Latents.noise(6, (9, 16, 45), seeded()), torch.linspace(7, 11.5, 6)
    flip_y, flip_x = torch.rand(2, 6, generator=seeded(4)) < 0.5
    one = reflected(whiten(latents, log_energy), flip_y, flip_x)
    other = whiten(reflected(latents, flip_y, flip_x), log_energy)
    torch.testing.assert_close(one.flat(), other.flat(), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(one.flat(), latents.flat(), atol=0.1)


def test_conditions_hold_cos_theta_where_the_test_above_looks() -> None:
    one = np.ones(1)
    assert encode_conditions(one, 0.4 * one, one, np.zeros(0))[0, 7] == pytest.approx(np.cos(0.4))


@pytest.mark.parametrize("task", ["siw", "scipb", "pblar", "pbwo4"])
def test_real_showers_have_both_symmetries(task: str) -> None:
    """Geant4 showers of theta < pi / 2 against those above, mirrored, in the first two harmonics of phi."""
    with open_showers(data_folder("tasks") / task / "showers.h5") as file:
        showers = file.load()
    below = showers.theta < np.pi / 2
    voxels = torch.from_numpy(showers.showers)
    cosine, sine = azimuth(voxels)

    def mean(values: np.ndarray) -> tuple[float, float]:
        return float(values.mean()), float(values.std() / len(values) ** 0.5)

    # phi -> -phi: no sine anywhere
    for side in (below, ~below):
        value, error = mean(sine[side])
        assert abs(value) < 3.5 * error
    # phi -> pi - phi together with theta -> pi - theta: the cosine turns
    (first, first_error), (second, second_error) = mean(cosine[below]), mean(cosine[~below])
    assert abs(first + second) < 3.5 * np.hypot(first_error, second_error)
    if task in ("siw", "scipb"):  # where the slant of the layers is seen at all
        assert first < -3 * first_error
        assert second > 3 * second_error
