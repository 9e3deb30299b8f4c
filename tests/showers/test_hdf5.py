"""Reading: every convention, any rows, and files larger than one would hold."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacalo.showers import Detector, Grid, Showers, Task, open_showers
from metacalo.showers.conventions import flatten_calochallenge, unflatten_calochallenge
from metacalo.showers.shower_file import shower_hashes


def test_par04_without_attributes(par04: Path, siw: Showers) -> None:
    with open_showers(par04) as file:
        assert (file.convention, file.detector, len(file)) == ("par04", None, 12)
        assert file.grid.shape == (9, 16, 45)
        assert np.isnan([file.grid.dr_mm, file.grid.dz_mm]).all()
        showers = file.read(slice(None))
    assert showers.dtype == np.float32
    np.testing.assert_array_equal(showers, siw.showers)
    np.testing.assert_array_equal(file.theta, siw.theta)


def test_a_given_detector_describes_the_file_and_keeps_its_mesh(par04: Path) -> None:
    detector = Detector.from_layers("Pb:2", "lAr:4", grid=Grid(9, 16, 45, 8.0, 12.0))
    with open_showers(par04, detector=detector) as file:
        assert file.detector.family == ("Pb", "lAr")
        assert file.grid == Grid(9, 16, 45, 8.0, 12.0)


def test_half_precision_on_disk_reads_as_float32(tasks: dict[str, Task]) -> None:
    with h5py.File(tasks["siw"].path) as raw, tasks["siw"].open() as file:
        assert raw["showers"].dtype == np.float16
        showers = file.read([0])
        np.testing.assert_array_equal(showers, raw["showers"][:1].astype(np.float32))
        assert showers.dtype == np.float32


def test_energy_balance_is_that_of_the_divided_scale(tasks: dict[str, Task]) -> None:
    """Rows, axes and units are right only if the mean response is near one and the maximum where it should be."""
    with tasks["siw"].open() as file:
        batch = file.load(slice(0, 200))
    np.testing.assert_allclose(np.mean(batch.showers.sum((1, 2, 3)) / batch.energy), 1, atol=0.05)
    depth = batch.showers.sum((1, 2)) @ (np.arange(45) + 0.5) / batch.showers.sum((1, 2, 3))
    expected = np.log(batch.energy / file.detector.E_c_MeV) - 0.5 + 1.8  # centre of gravity, in X0
    in_x0 = depth * file.grid.dz_mm / file.detector.X0_mm
    np.testing.assert_allclose(np.mean(in_x0 - expected), 0, atol=1.0)
    radial = batch.showers.sum((0, 2, 3))
    assert radial.argmax() == 0


def test_calochallenge_dataset_2(tmp_path: Path, siw: Showers) -> None:
    """Voxel (r, phi, z) stands at (z * 16 + phi) * 9 + r of a row."""
    path = tmp_path / "dataset_2_1.hdf5"
    flat = np.zeros((12, 6480))
    for r in range(9):
        for phi in range(16):
            for z in range(45):
                flat[:, (z * 16 + phi) * 9 + r] = siw.showers[:, r, phi, z]
    with h5py.File(path, "w") as file:
        file["showers"], file["incident_energies"] = flat, siw.energy[:, None].astype(np.float64)
    with open_showers(path) as file:
        assert (file.convention, file.detector.family) == ("calochallenge", ("W", "Si"))
        assert file.grid == Grid(9, 16, 45, 4.65, 3.4)
        np.testing.assert_array_equal(file.read(slice(None)), siw.showers)
        np.testing.assert_array_equal(file.theta, np.full(12, np.pi / 2, np.float32))
        np.testing.assert_array_equal(file.phi, 0)


def test_calochallenge_dataset_3(tmp_path: Path, siw: Showers) -> None:
    with h5py.File(tmp_path / "dataset_3.hdf5", "w") as file:
        file["showers"], file["incident_energies"] = np.full((3, 40500), 0.01), siw.energy[:3, None]
    with open_showers(tmp_path / "dataset_3.hdf5") as file:
        assert file.read([2, 0]).shape == (2, 18, 50, 45)
        assert file.grid.dr_mm == 2.325


@given(st.tuples(*[st.integers(1, 6)] * 4), st.data())
def test_calochallenge_axis_order(shape: tuple[int, int, int, int], data: st.DataObject) -> None:
    n, n_r, n_phi, n_z = shape
    grid = Grid(n_r, n_phi, n_z)
    showers = np.arange(n * grid.n_voxels, dtype=np.float32).reshape(shape)
    flat = flatten_calochallenge(showers)
    row, r, phi, z = (data.draw(st.integers(0, size - 1)) for size in shape)
    assert flat[row, (z * n_phi + phi) * n_r + r] == showers[row, r, phi, z]
    np.testing.assert_array_equal(unflatten_calochallenge(flat, grid), showers)


@pytest.mark.parametrize(
    ("name", "degrees", "family"),
    [
        ("SiW_angle_50.h5", 50, ("W", "Si")),
        ("SciPb_angle_70.h5", 70, ("Pb", "polystyrene")),
        ("mine.h5", 90, None),
    ],
)
def test_hgcal(tmp_path: Path, siw: Showers, name: str, degrees: float, family: tuple[str, str] | None) -> None:
    """One dataset per energy, sorted as numbers and not as words."""
    quiet = siw.showers / 50
    with h5py.File(tmp_path / name, "w") as file:
        file["64"], file["8"], file["128"] = quiet[:5], quiet[5:7], quiet[7:]
    with open_showers(tmp_path / name) as file:
        assert file.convention == "hgcal"
        assert (file.detector.family if file.detector else None) == family
        np.testing.assert_array_equal(file.energy, [8000] * 2 + [64000] * 5 + [128000] * 5)
        np.testing.assert_allclose(file.theta, np.radians(degrees))
        np.testing.assert_array_equal(file.read([1, 2, 7, 11]), quiet[[6, 0, 7, 11]])
        np.testing.assert_array_equal(file.read(slice(None)), quiet[[5, 6, 0, 1, 2, 3, 4, 7, 8, 9, 10, 11]])


def test_a_member_of_a_family(tasks: dict[str, Task]) -> None:
    member = tasks["family/Cu-Sci-08"]
    with open_showers(member.path, group="Cu-Sci-08") as file:
        assert file.group == "Cu-Sci-08"
        assert file.detector == member.detector
        assert file.detector.family == ("Cu", "polystyrene")


@pytest.mark.parametrize("rows", [[0], [700, 3, 3, 1499, 130, 127, 128], [-1, 0], slice(5, 300, 7), slice(0, 0)])
def test_any_rows_in_any_order(tasks: dict[str, Task], rows: list[int] | slice) -> None:
    with tasks["siw"].open() as file, h5py.File(tasks["siw"].path) as raw:
        wanted = np.arange(len(file))[rows]
        expected = np.array([raw["showers"][int(row)] for row in wanted], np.float32).reshape(-1, 9, 16, 45)
        batch = file.load(rows)
        np.testing.assert_array_equal(batch.showers, expected)
        np.testing.assert_array_equal(batch.energy, raw["incident_energy"][()][wanted])


@pytest.mark.parametrize("size", [1, 5, 12, 100])
def test_streaming_equals_the_whole(par04: Path, siw: Showers, size: int) -> None:
    with open_showers(par04) as file:
        rows, parts = zip(*file.batches(size), strict=True)
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(12))
    np.testing.assert_array_equal(np.concatenate(parts), siw.showers)


def test_small_blocks_give_the_same(tasks: dict[str, Task], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.array([400, 3, 129, 128, 3])
    with tasks["scipb"].open() as file:
        whole = file.read(rows)
        monkeypatch.setattr("metacalo.showers.chunks.LARGEST_BLOCK", 3 * 6480 * 2)
        np.testing.assert_array_equal(file.read(rows), whole)


def test_hashes_know_content_and_nothing_else(tasks: dict[str, Task], par04: Path, siw: Showers) -> None:
    with tasks["siw"].open() as file, open_showers(par04) as plain:
        hashes = file.hashes(slice(0, 12))
        np.testing.assert_array_equal(hashes, plain.hashes())
        np.testing.assert_array_equal(file.hashes([7, 2]), hashes[[7, 2]])
        assert len(set(file.hashes().tolist())) == len(file)
        assert file.hashes([]).shape == (0,)
    assert hashes.dtype == np.int64
    changed = siw.showers.copy()
    changed[3, 0, 0, 0] += 1
    np.testing.assert_array_equal(shower_hashes(changed, siw.energy) != hashes, np.arange(12) == 3)
    np.testing.assert_array_equal(shower_hashes(siw.showers, siw.energy * 2) == hashes, False)
    np.testing.assert_array_equal(
        shower_hashes(np.where(siw.showers == 0, np.float32(-0.0), siw.showers), siw.energy), hashes
    )


def test_hashes_stay_the_same_from_release_to_release() -> None:
    """Computed apart: BLAKE2b of struct.pack("<9f", 0, ..., 7, 1000), 8 bytes, as a signed little-endian integer."""
    shower = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    assert shower_hashes(shower, np.array([1000.0], np.float32)).tolist() == [-5376731280278206680]


def test_selecting_showers(siw: Showers) -> None:
    some = siw.select([4, 1])
    assert (len(some), some.detector) == (2, siw.detector)
    np.testing.assert_array_equal(some.showers, siw.showers[[4, 1]])
    np.testing.assert_array_equal(siw[2:4].phi, siw.phi[2:4])
