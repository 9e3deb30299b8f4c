from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from metacalo.errors import OutputError, ShowerFileError
from metacalo.showers import Detector, Grid, Showers, ShowerWriter, open_showers, write_showers


@pytest.mark.parametrize("convention", ["par04", "calochallenge"])
def test_round_trip(tmp_path: Path, siw: Showers, convention: str) -> None:
    path = tmp_path / "out.h5"
    write_showers(path, siw, convention=convention, attributes={"particle": "e-"})
    with open_showers(path) as file:
        assert file.convention == convention
        assert file.detector == siw.detector
        assert file.grid == siw.detector.grid
        again = file.load()
    for name in ("showers", "energy", "theta", "phi"):
        np.testing.assert_array_equal(getattr(again, name), getattr(siw, name))
    with h5py.File(path) as raw:
        assert raw.attrs["particle"] == "e-"
        assert raw["showers"].attrs["units"] == "MeV"
        assert raw["showers"].dtype == np.float32
        assert raw["incident_theta"].attrs["units"] == "rad"


def test_calochallenge_as_others_read_it(tmp_path: Path, siw: Showers) -> None:
    write_showers(tmp_path / "out.h5", siw, convention="calochallenge")
    with h5py.File(tmp_path / "out.h5") as raw:
        assert raw["showers"].shape == (12, 6480)
        assert raw["incident_energies"].shape == (12, 1)
        np.testing.assert_array_equal(raw["showers"][5, (20 * 16 + 3) * 9 + 2], siw.showers[5, 2, 3, 20])


def at(showers: Showers, gev: list[float], degrees: float = 90.0, phi: float = 0.0) -> Showers:
    """Those showers, said to be of these energies and that angle."""
    energy = np.array(gev, np.float32) * 1000
    theta = np.full(len(gev), np.radians(degrees), np.float32)
    return Showers(showers.showers[: len(gev)], energy, theta, np.full(len(gev), phi, np.float32), showers.detector)


def test_hgcal_has_a_dataset_per_energy(tmp_path: Path, siw: Showers) -> None:
    path = tmp_path / "SiW_angle_70.h5"
    written = at(siw, [64, 1, 1024, 1, 0.5, 64], degrees=70)
    with ShowerWriter(path, siw.detector.grid, convention="hgcal", detector=siw.detector) as writer:
        writer.append(written[:4])
        writer.append(written[4:])
    with h5py.File(path) as raw:
        assert {name: len(dataset) for name, dataset in raw.items()} == {"0.5": 1, "1": 2, "64": 2, "1024": 1}
        assert raw["64"].attrs["units"] == "MeV"
    with open_showers(path) as file:
        assert (file.convention, file.detector) == ("hgcal", siw.detector)
        again = file.load()
    order = np.argsort(written.energy, kind="stable")
    for name in ("showers", "energy", "theta", "phi"):
        np.testing.assert_array_equal(getattr(again, name), getattr(written, name)[order])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("a.h5", {"gev": [1, 2.718281828]}, "an incident energy is 2.718282 GeV, and hgcal has one dataset per round"),
        ("a.h5", {"degrees": 70}, "theta = 70 degrees, .* in its name (90 here); call it a_angle_70.h5"),
        ("a_angle_50.h5", {"degrees": 70}, "theta = 70 degrees, .* in its name (50 here); convert to par04"),
        ("a.h5", {"phi": 1.0}, "phi = 1 rad, which hgcal cannot keep"),
    ],
)
def test_what_hgcal_cannot_keep(tmp_path: Path, siw: Showers, name: str, change: dict, message: str) -> None:
    showers = at(siw, **({"gev": [1, 2]} | change))
    with pytest.raises(OutputError, match=message.replace("(", r"\(").replace(")", r"\)")):
        write_showers(tmp_path / name, showers, convention="hgcal")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("convention", ["par04", "calochallenge"])
def test_any_mesh_without_a_detector(tmp_path: Path, siw: Showers, convention: str) -> None:
    small = Showers(siw.showers[:, :4, ::2, :10], siw.energy, siw.theta, siw.phi)
    write_showers(tmp_path / "out.h5", small, convention=convention)
    with open_showers(tmp_path / "out.h5") as file:
        assert file.grid.shape == (4, 8, 10)
        assert file.detector is None
        np.testing.assert_array_equal(file.read(slice(None)), small.showers)


def test_batches_append(tmp_path: Path, siw: Showers) -> None:
    path = tmp_path / "new" / "out.h5"
    with ShowerWriter(path, siw.detector.grid, detector=siw.detector) as writer:
        for start in range(0, 12, 5):
            writer.append(siw[start : start + 5])
            assert not path.exists()
    with open_showers(path) as file:
        np.testing.assert_array_equal(file.hashes(), siw.hashes())


def test_raw_scale_passes_through(tmp_path: Path, siw: Showers) -> None:
    raw = Showers(siw.showers * np.float32(0.03125), siw.energy, siw.theta, siw.phi, siw.detector)
    write_showers(tmp_path / "raw.h5", raw)
    with open_showers(tmp_path / "raw.h5") as file:
        np.testing.assert_array_equal(file.read(slice(None)), raw.showers)


def test_a_failure_leaves_nothing(tmp_path: Path, siw: Showers) -> None:
    path = tmp_path / "out.h5"

    def interrupted() -> None:
        with ShowerWriter(path, siw.detector.grid) as writer:
            writer.append(siw)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match=r"out\.h5: no shower was written"), ShowerWriter(path, Grid()):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path, siw: Showers) -> None:
    path = tmp_path / "out.h5"
    write_showers(path, siw)
    with pytest.raises(OutputError, match=r"out\.h5: exists already; give --force"):
        write_showers(path, siw[:3])
    write_showers(path, siw[:3], force=True)
    with open_showers(path) as file:
        assert len(file) == 3


def test_wrong_batches_are_refused(tmp_path: Path, siw: Showers) -> None:
    bad = siw.showers.copy()
    bad[2, 0, 0, 0] = -1
    with pytest.raises(ShowerFileError, match="negative or non-finite"):
        write_showers(tmp_path / "out.h5", Showers(bad, siw.energy, siw.theta, siw.phi))
    with (
        pytest.raises(ShowerFileError, match=r"shape \(9, 16, 45\), the file's mesh is 18 x 50 x 45"),
        ShowerWriter(tmp_path / "out.h5", Grid(18, 50, 45)) as writer,
    ):
        writer.append(siw)
    with pytest.raises(OutputError, match="unknown convention 'par05' to write; choose 'par04', "):
        write_showers(tmp_path / "out.h5", siw, convention="par05")
    assert list(tmp_path.iterdir()) == []


def test_many_sheets_travel_with_the_file(tmp_path: Path, siw: Showers) -> None:
    detector = Detector.from_layers("Pb:2,G10:0.5", "lAr:4", grid=Grid(dr_mm=17.0, dz_mm=13.0), n_layers=90)
    write_showers(tmp_path / "out.h5", Showers(siw.showers, siw.energy, siw.theta, siw.phi, detector))
    with open_showers(tmp_path / "out.h5") as file:
        assert file.detector == detector
