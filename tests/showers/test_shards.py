"""One sample in several files: found, refused where they differ, and read as if one file held it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from metacalo.errors import DetectorError, ShowerFileError
from metacalo.showers import Detector, Showers, discover_tasks, open_showers, resolve_task, write_showers
from metacalo.showers.shards import MOST_OPEN, OpenFiles, shard_paths

Change = Callable[[Path, str, np.ndarray | None], None]


@pytest.fixture
def shards(tmp_path: Path, siw: Showers) -> Path:
    """A folder with the twelve showers of `siw` in three files, two, four and six of them."""
    folder = tmp_path / "mine"
    for number, rows in enumerate((slice(0, 2), slice(2, 6), slice(6, 12))):
        write_showers(folder / f"showers-{number:03d}.h5", siw[rows])
    return folder


@pytest.fixture
def whole(tmp_path: Path, siw: Showers) -> Path:
    write_showers(tmp_path / "whole.h5", siw)
    return tmp_path / "whole.h5"


@pytest.mark.parametrize(
    "rows",
    [None, [11, 0, 5, 2, 2], slice(1, 12, 3), slice(0, 0), np.array([6, 5])],
    ids=["all", "any", "step", "none", "two"],
)
def test_shards_read_as_one_file(shards: Path, whole: Path, rows: list[int] | slice | np.ndarray | None) -> None:
    with open_showers(shards) as file, open_showers(whole) as one:
        assert (len(file), file.grid, file.convention) == (12, one.grid, "par04")
        assert file.detector == one.detector
        batch, expected = file.load(rows), one.load(rows)
        for name in ("showers", "energy", "theta", "phi"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(expected, name))
        np.testing.assert_array_equal(file.hashes(rows), one.hashes(rows))


def test_where_shards_lie(tmp_path: Path, shards: Path) -> None:
    """Numbers are in order as numbers; what is no shower file is left out."""
    (shards / "notes.txt").write_text("not a shard")
    shutil.copy(shards / "showers-000.h5", shards / "showers-11.h5")
    names = ["showers-000.h5", "showers-001.h5", "showers-002.h5", "showers-11.h5"]
    assert [path.name for path in shard_paths(shards)] == names
    inner = tmp_path / "inner"
    shutil.copytree(shards, inner / "showers")
    assert shard_paths(inner) == [inner / "showers" / name for name in names]
    assert [path.name for path in shard_paths(shards / "showers-00[12].h5")] == names[1:3]
    assert shard_paths(shards / "showers-000.h5") == [shards / "showers-000.h5"]
    assert shard_paths(tmp_path / "none.h5") == [tmp_path / "none.h5"]
    shutil.copy(shards / "showers-000.h5", shards / "showers.h5")
    with pytest.raises(ShowerFileError, match=r"mine: holds both showers\.h5 and showers-000\.h5; leave .* one of the"):
        open_showers(shards)
    with pytest.raises(ShowerFileError, match=r"SiW_\*\.h5: no file matches this pattern"):
        open_showers(tmp_path / "SiW_*.h5")


def test_files_of_one_angle_each(tmp_path: Path, siw: Showers) -> None:
    """The angle of HGCal files is in their names."""
    for degrees, rows in ((60, slice(0, 4)), (90, slice(4, 6))):
        with h5py.File(tmp_path / f"SiW_angle_{degrees}.h5", "w") as file:
            file["16"], file["128"] = siw.showers[rows] / 50, siw.showers[rows] / 50
    with open_showers(tmp_path / "SiW_angle_*.h5") as file:
        assert file.detector.family == ("W", "Si")
        np.testing.assert_allclose(np.degrees(file.theta), [60] * 8 + [90] * 4, rtol=1e-6)
        np.testing.assert_array_equal(file.energy, [16e3] * 4 + [128e3] * 4 + [16e3] * 2 + [128e3] * 2)
        np.testing.assert_array_equal(file.read([9]), siw.showers[5:6] / 50)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"absorber": "Pb:1.4"},
            r"showers-001\.h5: 'absorber_material' is Pb, but showers-000\.h5 has W; files that are",
        ),
        ({"n_layers": 60}, r"showers-001\.h5: 'n_layers' is 60, but showers-000\.h5 has 90"),
        ({"sampling_fraction": 0.03}, r"showers-001\.h5: 'sampling_fraction' is 0\.03, but .* has none"),
    ],
)
def test_shards_of_other_detectors(tmp_path: Path, siw: Showers, changed: dict[str, object], message: str) -> None:
    described = {"absorber": "W:1.4", "active": "Si:0.3", "n_layers": 90, "grid": siw.detector.grid, **changed}
    fraction = described.pop("sampling_fraction", None)
    other = replace(Detector.from_layers(**described), sampling_fraction=fraction)
    first = replace(Detector.from_layers("W:1.4", "Si:0.3", n_layers=90, grid=siw.detector.grid))
    for number, detector in enumerate((first, other)):
        write_showers(tmp_path / f"showers-{number:03d}.h5", replace(siw, detector=detector))
    with pytest.raises(ShowerFileError, match=message):
        open_showers(tmp_path)


def test_a_shard_of_another_mesh(shards: Path, change: Change) -> None:
    change(shards / "showers-002.h5", "showers", np.ones((6, 9, 8, 45), np.float32))
    with pytest.raises(ShowerFileError, match=r"showers-002\.h5: 'n_phi' is 8, but showers-000\.h5 has 16"):
        open_showers(shards)


def test_a_shard_of_another_convention(shards: Path, siw: Showers) -> None:
    (shards / "showers-001.h5").unlink()
    write_showers(shards / "showers-001.h5", siw, convention="calochallenge")
    with pytest.raises(ShowerFileError, match=r"001\.h5: 'convention' is calochallenge, but showers-000\.h5 has par04"):
        open_showers(shards)


def test_a_truncated_shard(shards: Path) -> None:
    last = shards / "showers-002.h5"
    last.write_bytes(last.read_bytes()[:-2000])
    with pytest.raises(
        ShowerFileError,
        match=r"^\S*showers-002\.h5: the file is truncated .*copy it again, or wait until",
    ):
        open_showers(shards)


def test_a_voxel_that_cannot_be_names_its_shard(shards: Path, siw: Showers, change: Change) -> None:
    voxels = siw.showers[6:].copy()
    voxels[3, 0, 0, 0] = np.nan
    change(shards / "showers-002.h5", "showers", voxels)
    with open_showers(shards) as file:
        file.read(slice(0, 9))
        with pytest.raises(ShowerFileError, match=r"showers-002\.h5: 'showers' row 3 has a voxel of nan MeV"):
            file.read([9])


def test_a_shard_that_changes_while_it_is_read(shards: Path, siw: Showers) -> None:
    with open_showers(shards) as file:
        file.close()
        (shards / "showers-000.h5").unlink()
        write_showers(shards / "showers-000.h5", siw)
        with pytest.raises(ShowerFileError, match=r"showers-000\.h5: 'showers' was changed while it was read"):
            file.read([0])


def test_links_to_other_files_are_not_shards(shards: Path) -> None:
    with h5py.File(shards / "showers-001.h5", "a") as file:
        del file["showers"]
        file["showers"] = h5py.ExternalLink("showers-000.h5", "/showers")
    with pytest.raises(ShowerFileError, match=r"showers-001\.h5: 'showers' is a link, and links are not followed"):
        open_showers(shards)


def test_few_files_are_open(tmp_path: Path, siw: Showers, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and in whatever order they are read; each is opened again when it is needed."""
    most, asked = 0, OpenFiles.file

    def counted(files: OpenFiles, path: Path) -> h5py.File:
        nonlocal most
        file = asked(files, path)
        most = max(most, len(files))
        return file

    monkeypatch.setattr(OpenFiles, "file", counted)
    for number in range(3 * MOST_OPEN):
        write_showers(tmp_path / f"showers-{number}.h5", siw[number % 12 : number % 12 + 1])
    with open_showers(tmp_path) as file:
        np.testing.assert_array_equal(file.read(slice(None)), siw.showers[np.arange(3 * MOST_OPEN) % 12])
        np.testing.assert_array_equal(file.read([20, 1, 9]), siw.showers[[8, 1, 9]])
        np.testing.assert_array_equal(file.read([1]), siw.showers[[1]])
    assert most == MOST_OPEN


def test_a_task_of_shards(tmp_path: Path, shards: Path, siw: Showers) -> None:
    described = resolve_task(shards)  # by the attributes of the files
    assert (described.name, described.detector, described.n_showers) == ("mine", siw.detector, 12)
    assert resolve_task(shards / "showers-*.h5").detector == siw.detector
    (shards / "detector.toml").write_text(siw.detector.to_toml(), encoding="utf-8")
    task = discover_tasks(tmp_path)["mine"]
    assert (task.path, task.n_showers) == (shards, 12)
    with task.open() as file:
        np.testing.assert_array_equal(file.read(slice(None)), siw.showers)
    coarse = siw.detector.to_toml().replace("n_phi = 16", "n_phi = 8")
    (shards / "detector.toml").write_text(coarse, encoding="utf-8")
    with pytest.raises(DetectorError, match=r"holds showers on 9 x 16 x 45 cells, but .* is described with 9 x 8 x 45"):
        resolve_task(shards)
