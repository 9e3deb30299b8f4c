"""The library of frozen showers: which shots it takes, and what it does to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from metacalo.errors import ShowerFileError
from metacalo.generators.frozen import FrozenLibrary
from metacalo.showers.shower_file import Showers
from metacalo.storage.checkpoint import load_tensors, save_tensors
from tests.small import seeded

N_PHI = 8
SHAPE = (3, N_PHI, 4)


def draw_shots(n: int, seed: int = 0, *, half: bool = True) -> Showers:
    """Showers of which two cells in three are hit, each shower unlike the others."""
    rng = np.random.default_rng(seed)
    cells = rng.uniform(1, 100, (n, *SHAPE)) * (rng.random((n, *SHAPE)) < 2 / 3)
    energy = np.exp(rng.uniform(np.log(1e3), np.log(1e5), n)).astype(np.float32)
    theta = rng.uniform(0.8, np.pi - 0.8, n).astype(np.float32)
    stored = cells.astype(np.float16 if half else np.float32)
    return Showers(stored.astype(np.float32), energy, theta, np.zeros(n, np.float32))


def wishes(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.exp(rng.uniform(np.log(1e3), np.log(1e5), n)), rng.uniform(0.8, np.pi - 0.8, n)


def images(shower: np.ndarray) -> list[np.ndarray]:
    """A shower (R, PHI, Z) in all turns, then its mirror image in all turns."""
    n_phi = shower.shape[1]
    return [np.roll(kind, turn, 1) for kind in (shower, shower[:, ::-1]) for turn in range(n_phi)]


def origins(library: FrozenLibrary, made: np.ndarray, energy: np.ndarray) -> list[tuple[int, int]]:
    """For each shower the shot and the number of the image that it is; exactly one must fit."""
    found = []
    for cells, wanted in zip(made, energy, strict=True):
        fits = []
        for row, shot in enumerate(library.showers):
            scaled = shot * np.float32(wanted / np.float64(library.energy[row]))
            scaled[scaled < np.float32(library.threshold)] = 0
            fits += [(row, i) for i, image in enumerate(images(scaled)) if np.array_equal(image, cells)]
        assert len(fits) == 1
        found += fits
    return found


@pytest.fixture(scope="module")
def library() -> FrozenLibrary:
    return FrozenLibrary.from_shots(draw_shots(40))


def test_the_nearest_are_those_of_a_search_through_all(library: FrozenLibrary) -> None:
    energy, theta = wishes(200)
    along = np.log(energy[:, None] / library.energy.astype(np.float64)) / 0.3
    across = (np.abs(theta - np.pi / 2)[:, None] - np.abs(library.theta.astype(np.float64) - np.pi / 2)) / 0.3
    expected = np.argsort(np.hypot(along, across), axis=1)[:, :5]
    np.testing.assert_array_equal(library.nearest(energy, theta), expected)


def test_angles_on_both_sides_of_a_right_angle_are_as_near(library: FrozenLibrary) -> None:
    energy, theta = wishes(20)
    np.testing.assert_array_equal(library.nearest(energy, theta), library.nearest(energy, np.pi - theta))


def test_every_shower_is_one_of_the_nearest_scaled_turned_and_mirrored(library: FrozenLibrary) -> None:
    energy, theta = wishes(100)
    made = library.sample(energy, theta, seeded())
    assert (made.dtype, made.shape) == (np.float32, (100, *SHAPE))
    rows = np.array([row for row, _ in origins(library, made, energy)])
    assert (library.nearest(energy, theta) == rows[:, None]).any(1).all()


def test_neighbours_turns_and_mirrors_are_all_as_likely(library: FrozenLibrary) -> None:
    n = 1600
    energy, theta = np.full(n, 1.1 * library.energy[7], np.float64), np.full(n, 1.2)
    made = library.sample(energy, theta, seeded(3))
    unique, which, counts = np.unique(made, axis=0, return_inverse=True, return_counts=True)
    assert len(unique) == 5 * 2 * N_PHI
    assert (counts > 4).all()
    kinds = np.array(origins(library, unique, energy[: len(unique)]))[which.ravel()]
    shares = [np.unique(kinds[:, 0], return_counts=True)[1], np.bincount(kinds[:, 1] // N_PHI)]
    shares.append(np.bincount(kinds[:, 1] % N_PHI))
    for share in shares:
        expected = n / len(share)
        assert np.abs(share - expected).max() < 4 * expected**0.5


def test_energy_scales_cells_and_rings_keep_their_sums() -> None:
    shots = draw_shots(1)
    library = FrozenLibrary(shots.showers, shots.energy, shots.theta, threshold=0.0)
    energy = shots.energy.astype(np.float64) * np.array([0.25, 1.0, 8.0])
    made = library.sample(energy, np.full(3, 1.0), seeded())
    for factor, cells in zip((0.25, 1.0, 8.0), made, strict=True):
        np.testing.assert_array_equal(np.sort(cells, axis=1), np.sort(factor * shots.showers[0], axis=1))
        np.testing.assert_allclose(cells.sum(1), factor * shots.showers[0].sum(1), rtol=1e-5)


def test_cells_below_the_threshold_are_exact_zeros() -> None:
    shots = draw_shots(6)
    library = FrozenLibrary.from_shots(shots)
    assert library.threshold == shots.showers[shots.showers > 0].min()
    made = library.sample(np.full(50, 0.1 * shots.energy.min()), np.full(50, 1.5), seeded())
    assert made[made > 0].min() >= library.threshold
    rows = library.nearest(np.full(1, 0.1 * shots.energy.min()), np.full(1, 1.5))[0]
    assert (made > 0).mean() < 0.5 * (shots.showers[rows] > 0).mean()
    kept = FrozenLibrary(shots.showers, shots.energy, shots.theta, library.threshold, neighbours=1)
    same = kept.sample(shots.energy, shots.theta, seeded())
    np.testing.assert_array_equal((same > 0).sum((1, 2, 3)), (shots.showers > 0).sum((1, 2, 3)))


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_shots_are_all_neighbours(n: int) -> None:
    library = FrozenLibrary.from_shots(draw_shots(n))
    energy, theta = wishes(60)
    assert np.array_equal(np.sort(library.nearest(energy, theta), axis=1), np.tile(np.arange(n), (60, 1)))
    assert {row for row, _ in origins(library, library.sample(energy, theta, seeded()), energy)} == set(range(n))


def test_the_generator_decides(library: FrozenLibrary) -> None:
    energy, theta = wishes(150)
    before = torch.get_rng_state()
    first = library.sample(energy, theta, seeded(1))
    np.testing.assert_array_equal(first, library.sample(energy, theta, seeded(1)))
    assert (first != library.sample(energy, theta, seeded(2))).any((1, 2, 3)).mean() > 0.9
    noise = seeded(1)
    library.sample(energy, theta, noise)
    assert (first != library.sample(energy, theta, noise)).any()
    assert torch.equal(torch.get_rng_state(), before)


def test_no_wish_is_no_shower(library: FrozenLibrary) -> None:
    assert library.sample(np.empty(0), np.empty(0), seeded()).shape == (0, *SHAPE)


@pytest.mark.parametrize("half", [True, False])
def test_a_library_read_back_is_the_same(half: bool, tmp_path) -> None:
    library = FrozenLibrary.from_shots(draw_shots(9, half=half))
    tensors = library.tensors()
    assert tensors["cells"].dtype == (torch.float16 if half else torch.float32)
    save_tensors(tmp_path / "frozen.safetensors", tensors)
    loaded = FrozenLibrary.from_tensors(load_tensors(tmp_path / "frozen.safetensors")[0])
    for name in ("showers", "energy", "theta"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(library, name))
        assert getattr(loaded, name).dtype == np.float32
    assert (loaded.threshold, loaded.neighbours) == (library.threshold, 5)
    energy, theta = wishes(30)
    np.testing.assert_array_equal(loaded.sample(energy, theta, seeded()), library.sample(energy, theta, seeded()))


def test_cells_too_large_for_half_precision_are_kept_whole() -> None:
    shots = draw_shots(3)
    shots.showers[1, 0, 0, 0] = 1e5
    tensors = FrozenLibrary.from_shots(shots).tensors()
    np.testing.assert_array_equal(FrozenLibrary.from_tensors(tensors).showers, shots.showers)


def test_files_of_another_size_are_refused(library: FrozenLibrary) -> None:
    tensors = library.tensors()
    with pytest.raises(KeyError, match="hits"):
        FrozenLibrary.from_tensors({name: tensor for name, tensor in tensors.items() if name != "hits"})
    for name in ("cells", "hits"):
        with pytest.raises(ValueError, match=r"assign|do not fit together"):
            FrozenLibrary.from_tensors({**tensors, name: tensors[name][:-7]})
    with pytest.raises(ShowerFileError, match="as many showers as energies and thetas, not 40, 39, 40"):
        FrozenLibrary.from_tensors({**tensors, "energy": tensors["energy"][1:]})


def without_energy(shots: Showers) -> Showers:
    return Showers(0 * shots.showers, shots.energy, shots.theta, shots.phi)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_energy, "every shower given to the library is empty"),
        (lambda shots: shots[:0], "every shower given to the library is empty"),
        (lambda shots: Showers(shots.showers, 0 * shots.energy, shots.theta, shots.phi), "must be finite and above 0"),
    ],
)
def test_shots_that_make_no_library(spoil: Callable[[Showers], Showers], words: str) -> None:
    with pytest.raises(ShowerFileError, match=words):
        FrozenLibrary.from_shots(spoil(draw_shots(4)))


@pytest.mark.parametrize(("energy", "theta"), [(0.0, 1.0), (-5.0, 1.0), (np.nan, 1.0), (1e4, np.inf)])
def test_wishes_that_cannot_be(library: FrozenLibrary, energy: float, theta: float) -> None:
    with pytest.raises(ShowerFileError, match="energies must be finite and above 0 MeV, thetas finite"):
        library.sample(np.array([energy]), np.array([theta]), seeded())


def test_no_neighbours_are_refused() -> None:
    shots = draw_shots(4)
    with pytest.raises(ValueError, match="neighbours is 0; at least 1 is needed"):
        FrozenLibrary(shots.showers, shots.energy, shots.theta, 1.0, neighbours=0)
