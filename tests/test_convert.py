"""Conversion keeps every shower, energy and angle that a convention can hold, and what is said about them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacalo import convert as module
from metacalo.convert import ConversionWarning, ConvertSettings, convert
from metacalo.errors import ConfigError, OutputError, ShowerFileError
from metacalo.ntuples.ntuple import NtupleWarning
from metacalo.showers import Detector, Grid, Showers, data_folder, open_showers, write_showers
from tests.ntuple import write_ntuple
from tests.samples import shipped, write_plain

SCIPB = data_folder("tasks") / "scipb" / "showers.h5"
FAMILY = data_folder("tasks") / "family" / "showers.h5"


@pytest.fixture(scope="module")
def scipb() -> Showers:
    """Forty showers of SciPb."""
    return shipped("scipb", slice(0, 40))


@pytest.fixture
def undescribed(tmp_path: Path, scipb: Showers) -> Path:
    return write_plain(tmp_path / "plain.h5", scipb)


def load(path: Path) -> Showers:
    with open_showers(path) as file:
        return file.load()


def assert_equal(found: Showers, expected: Showers) -> None:
    for name in ("showers", "energy", "theta", "phi"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


CONVENTIONS = st.sampled_from(["par04", "calochallenge", "hgcal"])


@settings(max_examples=20)
@pytest.mark.filterwarnings("ignore::UserWarning")  # noise is no shower
@given(
    path=st.lists(CONVENTIONS, min_size=2, max_size=4),
    mesh=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5)),
    energies=st.lists(st.sampled_from([0.5, 1, 2, 64, 1024]), min_size=1, max_size=7),
    seed=st.integers(0, 2**32 - 1),
)
def test_there_and_back(path, mesh, energies, seed):
    """Through any conventions in a row: what hgcal can hold comes back, sorted by energy."""
    rng = np.random.default_rng(seed)
    n = len(energies)
    voxels = (rng.exponential(size=(n, *mesh)) * (rng.random((n, *mesh)) < 0.5)).astype(np.float32)
    theta = np.full(n, np.radians(60), np.float32)
    detector = Detector.from_layers("Pb:2", "lAr:4", grid=Grid(*mesh))
    expected = Showers(voxels, 1000 * np.array(energies, np.float32), theta, np.zeros(n, np.float32), detector)
    with TemporaryDirectory() as folder:
        here = Path(folder) / "0_angle_60.h5"
        write_showers(here, expected)
        for step, convention in enumerate(path, 1):
            there = here.with_name(f"{step}_angle_60.h5")
            convert(here, there, ConvertSettings(to=convention))
            here = there
        found = load(here)
        with open_showers(here) as file:
            assert file.convention == path[-1]
    order = np.argsort(expected.energy, kind="stable") if "hgcal" in path else slice(None)
    assert_equal(found, expected[order])
    assert found.detector == detector


def test_batches_do_not_show(tmp_path: Path, scipb: Showers, monkeypatch: pytest.MonkeyPatch) -> None:
    write_showers(tmp_path / "in.h5", scipb)
    monkeypatch.setattr(module, "BATCH_BYTES", 7 * 4 * 6480)
    done = convert(tmp_path / "in.h5", tmp_path / "out.h5", ConvertSettings(to="par04"))
    assert (done.showers, done.convention) == (40, "par04")
    assert_equal(load(tmp_path / "out.h5"), scipb)


def test_attributes_tell_where_showers_come_from(tmp_path: Path) -> None:
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    convert(SCIPB, first, ConvertSettings(to="calochallenge", showers=10), command="metacalo convert")
    convert(first, second, ConvertSettings(to="par04", scale=0.5))
    with h5py.File(SCIPB) as source, h5py.File(second) as file:
        for name in ("particle", "geant4_version", "physics", "production_cut_mm", "absorber_material", "dr_mm"):
            assert file.attrs[name] == source.attrs[name]
        assert file.attrs["converted_from"] == "first.h5 < showers.h5"
        assert file.attrs["converted_by"] == "metacalo convert"
        assert file.attrs["converted_scale"] == 0.5
        assert file.attrs["threshold_MeV"] == source.attrs["threshold_MeV"] / 2
        assert file.attrs["scoring"] == f"{source.attrs['scoring']}; times 0.5"
        assert file.attrs["axes"] == "showers[event, r, phi, z]"
        assert "n_r" not in file.attrs


def test_attributes_that_mean_nothing_elsewhere_are_left_out(tmp_path: Path, undescribed: Path) -> None:
    with h5py.File(undescribed, "a") as file:
        file.attrs["reference"] = file["showers"].ref
        file.attrs["nothing"] = h5py.Empty("f")
        file.attrs.create("authors", ["A", "B"], dtype=h5py.string_dtype())
        file.attrs["beam"] = np.array([1.0, 2.0])
    convert(undescribed, tmp_path / "out.h5", ConvertSettings(to="par04"))
    with h5py.File(tmp_path / "out.h5") as file:
        assert {"reference", "nothing"} & set(file.attrs) == set()
        assert list(file.attrs["authors"]) == ["A", "B"]
        np.testing.assert_array_equal(file.attrs["beam"], [1.0, 2.0])


def test_a_detector_that_calochallenge_would_be_mistaken_for(tmp_path: Path, undescribed: Path) -> None:
    with pytest.warns(ConversionWarning, match=r"that do not are taken for SiW; give --detector"):
        convert(undescribed, tmp_path / "out.h5", ConvertSettings(to="calochallenge"))


def test_one_detector_of_several(tmp_path: Path) -> None:
    convert(FAMILY, tmp_path / "out.h5", ConvertSettings(to="par04"), group="Cu-LAr-09")
    with open_showers(FAMILY, group="Cu-LAr-09") as file:
        assert_equal(load(tmp_path / "out.h5"), file.load())
    with h5py.File(tmp_path / "out.h5") as file:
        assert file.attrs["converted_from"] == "showers.h5, group Cu-LAr-09"


def test_root_ntuples(tmp_path: Path, scipb: Showers) -> None:
    path = write_ntuple(tmp_path / "par04.root", scipb)
    convert(path, tmp_path / "out.h5", ConvertSettings(to="par04"), described=scipb.detector)
    found = load(tmp_path / "out.h5")
    assert_equal(found, scipb)
    assert found.detector == scipb.detector
    with pytest.warns(NtupleWarning, match="beyond the mesh 6 x 16 x 45"):
        convert(path, tmp_path / "narrow.h5", ConvertSettings(to="par04", mesh="6x16x45", grid="6x16x15", rows="9:"))
    expected = scipb.showers[9:, :6].reshape(31, 6, 16, 15, 3).sum(axis=4)
    np.testing.assert_allclose(load(tmp_path / "narrow.h5").showers, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("wanted", "kind", "message"),
    [
        ({"rows": "3"}, ConfigError, "--rows 3: give the first row and the one after the last, such as 100:200"),
        ({"rows": "a:b"}, ConfigError, "--rows a:b: give the first row"),
        ({"rows": "-5:3"}, ConfigError, "--rows -5:3: give the first row"),
        ({"rows": "5:5"}, ConfigError, "--rows 5:5: .* has rows 0:40, and at least one is needed"),
        ({"showers": 41}, ConfigError, "has 40 showers, --showers 41 wants more"),
        ({"showers": 4, "rows": "0:4"}, ConfigError, "give one of them"),
        ({"mesh": "9x16x45"}, ConfigError, "--mesh 9x16x45: .* has its mesh; for a coarser one give --grid"),
    ],
)
def test_wishes_that_cannot_be_met_leave_nothing(tmp_path: Path, undescribed: Path, wanted, kind, message) -> None:
    with pytest.raises(kind, match=message):
        convert(undescribed, tmp_path / "out.h5", ConvertSettings(**({"to": "par04"} | wanted)))
    assert list(tmp_path.iterdir()) == [undescribed]


def test_a_shower_that_cannot_be_right_leaves_nothing(tmp_path: Path, undescribed: Path) -> None:
    with h5py.File(undescribed, "a") as file:
        file["showers"][33, 0, 0, 0] = np.nan
    with pytest.raises(ShowerFileError, match=r"'showers' row 33 has a voxel of nan MeV"):
        convert(undescribed, tmp_path / "out.h5", ConvertSettings(to="par04"))
    assert list(tmp_path.iterdir()) == [undescribed]
    convert(undescribed, tmp_path / "out.h5", ConvertSettings(to="par04", rows="34:"))
    assert len(load(tmp_path / "out.h5")) == 6


def test_a_file_is_not_converted_onto_itself(undescribed: Path) -> None:
    before = undescribed.read_bytes()
    with pytest.raises(OutputError, match="is the file to convert"):
        convert(undescribed, undescribed, ConvertSettings(to="par04"), force=True)
    assert undescribed.read_bytes() == before
