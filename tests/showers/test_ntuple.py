"""Par04's ROOT ntuples, written here by uproot from real showers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import awkward
import numpy as np
import pytest
import uproot

from metacalo.errors import MissingExtraError, ShowerFileError
from metacalo.ntuples.ntuple import NtupleWarning, is_root, open_ntuple
from metacalo.showers import Showers
from tests.ntuple import write_ntuple, write_tree


@pytest.mark.parametrize("one_tree", [False, True])
def test_showers_come_back(tmp_path: Path, siw: Showers, one_tree: bool) -> None:
    path = write_ntuple(tmp_path / "par04.root", siw, one_tree=one_tree)
    assert is_root(path)
    with open_ntuple(path) as file:
        assert (len(file), file.grid.shape, file.detector) == (12, (9, 16, 45), None)
        for rows in (slice(0, 12), slice(3, 7), slice(11, 12)):
            again = file.load(rows)
            for name in ("showers", "energy", "theta", "phi"):
                np.testing.assert_array_equal(getattr(again, name), getattr(siw, name)[rows])


def test_without_angles_they_are_assumed_and_that_is_said(tmp_path: Path, siw: Showers) -> None:
    path = write_ntuple(tmp_path / "par04.root", siw, angles=False)
    with pytest.warns(NtupleWarning, match=r"'global' has no ThetaMC and PhiMC; theta = pi/2 and phi = 0 are assumed"):
        file = open_ntuple(path)
    with file:
        np.testing.assert_array_equal(file.theta, np.float32(np.pi / 2))
        np.testing.assert_array_equal(file.phi, 0)


def test_the_mesh_is_the_published_one_that_holds_all_cells(tmp_path: Path, siw: Showers) -> None:
    sparse = replace(siw, showers=siw.showers[:, :4, :, :30], detector=None)
    path = write_ntuple(tmp_path / "par04.root", sparse)
    with pytest.warns(NtupleWarning, match=r"count 4 x 16 x 30 cells; the mesh is taken to be 9 x 16 x 45"):
        file = open_ntuple(path)
    with file:
        showers = file.load(slice(0, 12)).showers
    np.testing.assert_array_equal(showers[:, :4, :, :30], sparse.showers)
    assert showers.sum(dtype=np.float64) == sparse.showers.sum(dtype=np.float64)


def test_a_mesh_that_no_one_publishes(tmp_path: Path, siw: Showers) -> None:
    wide = np.zeros((2, 30, 60, 50), np.float32)
    wide[:, 29, 59, 49] = wide[:, 0, 0, 0] = 2.5
    odd = Showers(wide, siw.energy[:2], siw.theta[:2], siw.phi[:2])
    with open_ntuple(write_ntuple(tmp_path / "odd.root", odd)) as file:
        np.testing.assert_array_equal(file.load(slice(0, 2)).showers, wide)


def test_cells_beyond_a_given_mesh_are_left_out(tmp_path: Path, siw: Showers) -> None:
    path = write_ntuple(tmp_path / "par04.root", siw)
    beyond = np.count_nonzero(siw.showers[:, 6:])
    total = np.count_nonzero(siw.showers)
    with pytest.warns(NtupleWarning, match=rf"{beyond:,} of {total:,} hit cells lie beyond the mesh 6 x 16 x 45"):
        file = open_ntuple(path, mesh=(6, 16, 45))
    with file:
        np.testing.assert_array_equal(file.load(slice(0, 12)).showers, siw.showers[:, :6])


def test_cells_of_an_event_that_come_twice_are_added(tmp_path: Path) -> None:
    path = tmp_path / "twice.root"
    cells = {name: awkward.Array([[1, 1]]) for name in ("rhoCell", "phiCell", "zCell")}
    with uproot.recreate(path) as file:
        deposits = awkward.Array([[2.0, 0.5]])
        write_tree(file, "events", {"EnergyMC": np.array([1e3]), **cells, "EnergyCell": deposits})
    with pytest.warns(NtupleWarning), open_ntuple(path) as opened:
        showers = opened.load(slice(0, 1)).showers
    assert showers[0, 1, 1, 1] == showers.sum() == 2.5


def spoilt(path: Path, siw: Showers, **branches: np.ndarray | awkward.Array) -> Path:
    """An ntuple in which some branches of the one tree are others."""
    write_ntuple(path, siw, one_tree=True)
    with uproot.open(path) as file:
        names = ("EnergyMC", "ThetaMC", "PhiMC", "EnergyCell", "rhoCell", "phiCell", "zCell")
        found = {name: file["events"][name].array(library="np" if name.endswith("MC") else "ak") for name in names}
    with uproot.recreate(path) as file:
        write_tree(file, "events", {name: values for name, values in (found | branches).items() if values is not None})
    return path


def test_what_cannot_be_right_is_refused(tmp_path: Path, siw: Showers) -> None:
    counts = np.count_nonzero(siw.showers, axis=(1, 2, 3))
    deposits = np.ones(counts.sum())
    deposits[counts[0]] = -3.0
    negative = awkward.unflatten(deposits, counts)
    far = awkward.unflatten(np.full(counts.sum(), 2_000_000_000), counts)
    cases = {
        r"event 1 has a deposit of -3 MeV; .* drop that event \(--rows\)": {"EnergyCell": negative},
        r"cell indices reach 2000000000, which no mesh has; give the mesh by --mesh": {"zCell": far},
        r"'events/EnergyMC' row 0 is 0; an energy above 0 MeV is needed": {"EnergyMC": np.zeros(12)},
        r"'events/ThetaMC' row 0 is 90; an angle between 0 and 3\.142 rad \(degrees\?\)": {
            "ThetaMC": np.full(12, 90.0)
        },
        r"event 0 has \d+ values of rhoCell but 1 of zCell": {"zCell": awkward.Array([[1]] * 12)},
        r"'events/zCell' is not a list of hit cells per event": {"zCell": np.ones(12)},
        r"no tree has rhoCell, .*; found trees: 'events' \(EnergyMC, ThetaMC": {"zCell": None},
    }
    for number, (message, branches) in enumerate(cases.items()):
        path = spoilt(tmp_path / f"{number}.root", siw, **branches)
        with pytest.raises(ShowerFileError, match=message) as caught, open_ntuple(path) as file:
            file.load(slice(0, 12))
        assert str(path) in str(caught.value)


def test_trees_of_other_lengths_and_damaged_files(tmp_path: Path, siw: Showers) -> None:
    path = write_ntuple(tmp_path / "par04.root", siw)
    with uproot.update(path) as file:
        write_tree(file, "global", {"EnergyMC": siw.energy[:5]})
    with pytest.raises(ShowerFileError, match=r"'virtualReadout' has 12 events, 'global' has 5; as many are needed"):
        open_ntuple(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ShowerFileError, match=r"cannot be read \(.*\); copy the file again") as caught:
        open_ntuple(path)
    assert "\n" not in str(caught.value)


def test_cells_of_the_detector_itself_are_not_the_mesh(tmp_path: Path, siw: Showers) -> None:
    path = spoilt(tmp_path / "par04.root", siw)
    with uproot.open(path) as file:
        found = {name: file["events"][name].array() for name in ("EnergyCell", "rhoCell", "phiCell", "zCell")}
    with uproot.recreate(path) as file:
        write_tree(file, "physicalReadout", found)
        write_tree(file, "global", {"EnergyMC": siw.energy})
    with pytest.raises(ShowerFileError, match=r"no tree has rhoCell"):
        open_ntuple(path)


def test_without_uproot_the_install_line_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uproot", None)
    with pytest.raises(MissingExtraError, match=r"x\.root: .*pip install 'metacalo\[root\]'"):
        open_ntuple(tmp_path / "x.root")


def test_what_is_no_root_file(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"ro")
    assert not is_root(tmp_path / "short")
    assert not is_root(tmp_path / "missing")
    assert not is_root(tmp_path)
