"""What is wrong is reported in one sentence, with file, dataset and mend; never with a traceback of h5py."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from metacalo.errors import DetectorError, MetacaloError, ShowerFileError
from metacalo.showers import Showers, Task, open_showers

Change = Callable[[Path, str, np.ndarray | None], None]


def sentence(path: Path, error: type[MetacaloError] = ShowerFileError, **options: str) -> str:
    """The error of opening and reading all of `path`."""
    with pytest.raises(error) as caught, open_showers(path, **options) as file:
        for _ in file.batches(5):
            pass
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    return text


def test_what_is_no_file_of_showers(par04: Path) -> None:
    assert sentence(par04.with_name("plane.h5")).endswith("there is no such file; did you mean 'plain.h5'?")
    assert "is a folder" in sentence(par04.parent)
    par04.write_bytes(b"")
    assert "not an HDF5 file" in sentence(par04)
    ntuple = par04.rename(par04.with_name("ntuple.root"))
    ntuple.write_bytes(b"root" + bytes(100))
    message = sentence(ntuple)
    assert "a ROOT file; make it HDF5 by 'metacalo convert ntuple.root --format par04 --out ntuple.h5'" in message


def test_truncated_file(par04: Path) -> None:
    par04.write_bytes(par04.read_bytes()[:-1000])
    assert re.search("the file is truncated.*copy it again", sentence(par04))


def test_damaged_chunk(tmp_path: Path, siw: Showers, par04: Path) -> None:
    with h5py.File(par04, "a") as file:
        del file["showers"]
        dataset = file.create_dataset("showers", data=siw.showers, chunks=(4, 9, 16, 45), compression="gzip")
        chunk = dataset.id.get_chunk_info(1)
    content = bytearray(par04.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    par04.write_bytes(content)
    assert re.search(r"'showers' rows 5 to 9 .*the file is damaged|'showers' rows 0 to 4.*damaged", sentence(par04))


NUMBER = np.array([b"64"] * 12)
DATASETS: dict[str, tuple[dict[str, np.ndarray | None], str]] = {
    "no energies": ({"incident_energy": None}, "dataset 'incident_energy' is missing (found "),
    "no theta": ({"incident_theta": None}, "dataset 'incident_theta' is missing (found "),
    "no phi": ({"incident_phi": None}, "dataset 'incident_phi' is missing (found "),
    "no convention": (
        {"showers": None},
        "not a shower file: found 'incident_energy', 'incident_phi', 'incident_theta'; expected 'showers'",
    ),
    "flat, without energies": (
        {"showers": np.zeros((3, 6480)), **dict.fromkeys(("incident_energy", "incident_theta", "incident_phi"))},
        "dataset 'incident_energies' is missing",
    ),
    "dimensions": ({"showers": np.zeros((12, 6480, 1))}, "'showers' has shape (12, 6480, 1); (N, R, PHI, Z) or"),
    "voxels": ({"showers": np.zeros((12, 6481))}, "'showers' has 6481 voxels per row; 6480"),
    "no voxels": ({"showers": np.zeros((12, 9, 0, 45))}, "have no voxels"),
    "rows": ({"incident_phi": np.zeros(11)}, "'incident_phi' has shape (11,), but 'showers' has 12 rows"),
    "no rows": ({"showers": np.zeros((0, 9, 16, 45))}, "'showers' holds no showers; at least one is needed"),
    "text": ({"incident_energy": NUMBER}, "'incident_energy' has type |S2, numbers (float32) were expected"),
    "complex": ({"showers": np.zeros((12, 9, 16, 45), complex)}, "'showers' has type complex128"),
}


@pytest.mark.parametrize("mistake", DATASETS)
def test_datasets_that_are_not_right(par04: Path, change: Change, mistake: str) -> None:
    datasets, words = DATASETS[mistake]
    for name, values in datasets.items():
        change(par04, name, values)
    text = sentence(par04)
    assert words in text
    assert mistake != "no convention" or all(word in text for word in ("Par04", "CaloChallenge", "HGCal"))


def test_file_with_nothing(tmp_path: Path) -> None:
    h5py.File(tmp_path / "x.h5", "w").close()
    assert "found nothing" in sentence(tmp_path / "x.h5")


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "nan MeV"), (np.inf, "inf MeV"), (-3.0, "-3 MeV"), (1e39, "inf MeV")],
)
def test_bad_voxels_are_reported_by_row(par04: Path, change: Change, siw: Showers, value: float, words: str) -> None:
    showers = siw.showers.astype(np.float64)
    showers[7, 1, 2, 3] = showers[11, 0, 0, 0] = value
    change(par04, "showers", showers)
    text = sentence(par04)
    assert f"'showers' row 7 has a voxel of {words} (1 such); finite deposits of 0 and above are needed" in text
    assert "drop the row" in text
    with open_showers(par04) as file:
        assert len(file.read([0, 6, 10])) == 3


def test_bad_voxel_of_an_hgcal_file_is_reported_by_dataset(tmp_path: Path, siw: Showers) -> None:
    path, bad = tmp_path / "SiW_angle_90.h5", siw.showers / 50
    bad[3] = -1
    with h5py.File(path, "w") as file:
        file["8"], file["64"] = siw.showers[:2] / 50, bad
    assert "'64' row 3 has a voxel of -1 MeV (6480 such)" in sentence(path)


def test_energies_in_gev_are_noticed(par04: Path, change: Change, siw: Showers) -> None:
    change(par04, "incident_energy", siw.energy / 1000)
    wanted = r"'showers' row 0 deposits \d+ times its incident energy of .* MeV; both .* in MeV \(energies in GeV\?"
    assert re.search(wanted, sentence(par04))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        *(("energy", value, "an energy above 0 MeV is needed") for value in (0.0, -5.0, np.nan, np.inf)),
        *(("theta", value, r"an angle between .* rad \(degrees\?\)") for value in (90.0, -0.5)),
        *(("phi", value, r"an angle between .* rad \(degrees\?\)") for value in (270.0, np.nan)),
    ],
)
def test_bad_energies_and_angles(
    par04: Path, change: Change, siw: Showers, name: str, value: float, words: str
) -> None:
    values = getattr(siw, name).copy()
    values[4] = value
    change(par04, f"incident_{name}", values)
    assert re.search(f"'incident_{name}' row 4 is {value:g}; {words}", sentence(par04))


def test_data_in_other_files_are_never_read(tmp_path: Path, par04: Path, change: Change) -> None:
    linked = tmp_path / "linked.h5"
    with h5py.File(linked, "w") as file:
        for name in ("showers", "incident_energy", "incident_theta", "incident_phi"):
            file[name] = h5py.ExternalLink(par04.name, name)
    assert "'showers' is a link, and links are not followed; copy the data in" in sentence(linked)
    virtual = tmp_path / "virtual.h5"
    layout = h5py.VirtualLayout(shape=(12, 9, 16, 45), dtype="f4")
    layout[:] = h5py.VirtualSource(par04, "showers", shape=(12, 9, 16, 45))
    with h5py.File(virtual, "w") as file:
        file.create_virtual_dataset("showers", layout)
    assert "'showers' keeps its data in other files" in sentence(virtual)
    raw = tmp_path / "raw.h5"
    with h5py.File(raw, "w") as file:
        shape = (12, 9, 16, 45)
        file.create_dataset("showers", shape, "f4", external=[(str(tmp_path / "raw.bin"), 0, h5py.h5f.UNLIMITED)])
    assert "'showers' keeps its data in other files" in sentence(raw)
    with h5py.File(linked, "a") as file:
        file["member"] = h5py.ExternalLink(par04.name, "/")
    assert "'member' is a link" in sentence(linked, group="member")


def test_showers_that_are_a_group(par04: Path, change: Change) -> None:
    with h5py.File(par04, "a") as file:
        del file["showers"]
        file.create_group("showers")
    assert "'showers' is a group, a dataset was expected" in sentence(par04)


def test_family_needs_a_group(tasks: dict[str, Task]) -> None:
    path = tasks["family/Pb-LAr-04"].path
    text = sentence(path)
    assert "holds no showers of its own but groups; choose one with group= (--group): Cu-LAr-09, " in text
    text = sentence(path, group="Pb-LAr04")
    assert "there is no group 'Pb-LAr04' (found" in text
    assert text.endswith("did you mean 'Pb-LAr-04'?")


def test_group_that_is_a_dataset(par04: Path) -> None:
    assert "'showers' is a dataset, a group was expected" in sentence(par04, group="showers")


def test_error_inside_a_group_names_it(tmp_path: Path, siw: Showers) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["A/showers"] = siw.showers
    assert "group 'A': dataset 'incident_energy' is missing" in sentence(tmp_path / "x.h5", group="A")


def test_hgcal_files(tmp_path: Path, siw: Showers) -> None:
    path = tmp_path / "SiW_angle_90.h5"
    with h5py.File(path, "w") as file:
        file["8"], file["64"] = siw.showers[:2], siw.showers[:, :4]
    assert "shapes [(4, 16, 45), (9, 16, 45)] of the datasets differ or are not (R, PHI, Z)" in sentence(path)
    wrong = tmp_path / "SiW_angle_200.h5"
    with h5py.File(wrong, "w") as file:
        file["64"] = siw.showers
    assert "angle 200 in the file name is no theta between 0 and 180 degrees" in sentence(wrong)


def test_contradictory_attributes_name_the_file(par04: Path) -> None:
    with h5py.File(par04, "a") as file:
        file.attrs.update(
            absorber_material="Pb", absorber_thickness_mm=0.0, active_material="Si", active_thickness_mm=1
        )
    assert "absorber_material 'Pb' contradicts absorber_thickness_mm = 0" in sentence(par04, DetectorError)


def test_showers_in_memory_are_checked(siw: Showers) -> None:
    with pytest.raises(ShowerFileError, match="lengths of showers, energy, theta and phi differ: 12, 3, 12, 12"):
        Showers(siw.showers, siw.energy[:3], siw.theta, siw.phi)
    with pytest.raises(ShowerFileError, match=r"shape \(12, 6480\); \(N, R, PHI, Z\) is needed"):
        Showers(siw.showers.reshape(12, -1), siw.energy, siw.theta, siw.phi)
