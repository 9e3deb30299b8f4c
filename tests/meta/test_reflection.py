"""The two mirror symmetries of a shower in the frame of its direction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacalo.meta.episodes import ShowerPool, TaskStream, _reflect
from metacalo.showers import Grid, data_folder, open_showers
from metacalo.showers.conditions import encode_conditions
from metacalo.showers.normalise import Latents
from tests.small import seeded


def latents_of(voxels: torch.Tensor) -> Latents:
    n, n_z = voxels.shape[0], voxels.shape[3]
    return Latents(torch.arange(n).float(), torch.arange(n * n_z).reshape(n, n_z).float(), voxels)


def reflect(voxels: torch.Tensor, *, y: bool = False, x: bool = False) -> torch.Tensor:
    n = len(voxels)
    return _reflect(latents_of(voxels), torch.full((n,), y), torch.full((n,), x)).voxels


def azimuth(voxels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Energy-weighted means of cos phi and sin phi of each shower."""
    centres = Grid(n_phi=voxels.shape[2]).phi_centres
    weights = voxels.double().sum((1, 3)).numpy()
    weights /= weights.sum(1, keepdims=True)
    return weights @ np.cos(centres), weights @ np.sin(centres)


@given(st.integers(1, 24), st.booleans(), st.booleans())
def test_twice_is_the_identity_and_the_two_commute(n_phi: int, y: bool, x: bool) -> None:
    voxels = torch.rand(2, 2, n_phi, 3, generator=seeded(n_phi))
    assert torch.equal(reflect(reflect(voxels, y=y, x=x), y=y, x=x), voxels)
    both = reflect(voxels, y=True, x=True)
    assert torch.equal(reflect(reflect(voxels, y=True), x=True), both)
    assert torch.equal(reflect(reflect(voxels, x=True), y=True), both)


@pytest.mark.parametrize("n_phi", [2, 16, 50])
def test_cells_go_to_the_mirrored_centres(n_phi: int) -> None:
    """phi -> -phi keeps the cosine and turns the sine; phi -> pi - phi does it the other way round."""
    voxels = torch.rand(5, 3, n_phi, 4, generator=seeded())
    cosine, sine = azimuth(voxels)
    for mirrored, expected in (
        (reflect(voxels, y=True), (cosine, -sine)),
        (reflect(voxels, x=True), (-cosine, sine)),
        (reflect(voxels, y=True, x=True), (-cosine, -sine)),
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
    voxels = torch.rand(2, 2, 5, 3, generator=seeded())
    assert torch.equal(reflect(voxels, x=True), voxels)


def test_showers_are_mirrored_one_by_one_and_keep_their_energies() -> None:
    voxels = torch.rand(4, 2, 6, 3, generator=seeded())
    flip_y, flip_x = torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])
    result = _reflect(latents_of(voxels), flip_y, flip_x)
    for i in range(4):
        expected = reflect(voxels[i : i + 1], y=bool(flip_y[i]), x=bool(flip_x[i]))[0]
        assert torch.equal(result.voxels[i], expected)
    assert torch.equal(result.total, latents_of(voxels).total)
    assert torch.equal(result.layers, latents_of(voxels).layers)


def test_a_pool_mirrors_theta_with_the_shower(stream: Callable[..., TaskStream]) -> None:
    """Each drawn shower is one of the four images of the stored one, with the theta that belongs to it."""
    source: TaskStream = stream("siw")
    source.draw(1, seeded())
    pool: ShowerPool = source._pool
    rows = torch.arange(40)
    batch = pool.batch(rows, seeded(1))
    plain = pool.batch(rows, seeded(1), reflect=False)
    found = []
    for i in range(40):
        original, drawn = plain.latents.voxels[i : i + 1], batch.latents.voxels[i]
        images = [
            (y, x) for y in (False, True) for x in (False, True) if torch.equal(reflect(original, y=y, x=x)[0], drawn)
        ]
        assert len(images) == 1
        found += images
        sign = -1 if images[0][1] else 1
        expected = plain.conditions[i].clone()
        expected[7] *= sign  # cos theta
        torch.testing.assert_close(batch.conditions[i], expected, atol=1e-6, rtol=0)
    assert len(set(found)) == 4


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
