from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from metacalo.errors import DataSetError, MissingExtraError
from metacalo.simulate import data_sets
from metacalo.simulate.data_sets import DATA_SETS, environment, found_data_sets, require_elements


@pytest.fixture
def bare(monkeypatch, tmp_path) -> Path:
    """A machine with geant4_pybind and without any data; its home is returned."""
    for data_set in DATA_SETS:
        monkeypatch.delenv(data_set.variable, raising=False)
    monkeypatch.delenv("GEANT4_DATA_DIR", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(data_sets, "__file__", str(tmp_path / "root" / "tree" / "metacalo" / "simulate" / "it.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return tmp_path


def folder(path: Path, *elements: int) -> Path:
    (path / "brem_SB").mkdir(parents=True)
    for z in elements:
        (path / "brem_SB" / f"br{z}").touch()
    return path


def test_nothing_is_found_where_nothing_is(bare):
    assert found_data_sets() == {}
    with pytest.raises(DataSetError, match=r"data set G4EMLOW is not found, .*; set G4LEDATA .*simulate --setup'"):
        environment("G4EmStandardPhysics")


def test_what_geant4_pybind_stored_is_found_the_newest_first(bare):
    for name in ("G4EMLOW8.5", "G4EMLOW8.8", "G4ENSDFSTATE3.0"):
        folder(bare / ".geant4_pybind" / name)
    found = found_data_sets()
    assert found["G4LEDATA"].name == "G4EMLOW8.8"
    assert environment("G4EmStandardPhysics")["G4ENSDFSTATEDATA"].endswith("G4ENSDFSTATE3.0")


def test_a_variable_wins_and_one_that_leads_nowhere_is_reported(bare, monkeypatch):
    folder(bare / ".geant4_pybind" / "G4EMLOW8.8")
    mine = folder(bare / "mine")
    (mine / "ENSDFSTATE.dat").touch()
    monkeypatch.setenv("G4LEDATA", str(mine))
    assert found_data_sets()["G4LEDATA"] == mine
    monkeypatch.setenv("G4LEDATA", str(bare / "gone"))
    with pytest.raises(DataSetError, match="gone, where there is no folder"):
        environment("G4EmStandardPhysics")


def test_geant4_s_own_variable(bare, monkeypatch):
    folder(bare / "share" / "G4EMLOW8.6")
    monkeypatch.setenv("GEANT4_DATA_DIR", str(bare / "share"))
    assert found_data_sets()["G4LEDATA"] == bare / "share" / "G4EMLOW8.6"


def test_no_variable_is_left_unset_for_geant4_pybind_to_ask_for(bare, monkeypatch):
    mine = folder(bare / "mine")
    (mine / "ENSDFSTATE.dat").touch()
    monkeypatch.setenv("G4LEDATA", str(mine))
    variables = environment("G4EmStandardPhysics")
    assert {data_set.variable for data_set in DATA_SETS} | {"GEANT4_DATA_DIR"} == set(variables)
    assert all(Path(place).is_dir() for place in variables.values())


@pytest.mark.parametrize(
    ("physics", "missing"),
    [("FTFP_BERT", "G4PARTICLEXS"), ("QBBC", "G4PARTICLEXS"), ("G4EmExtraPhysics", "G4PARTICLE")],
)
def test_hadrons_need_more(bare, monkeypatch, physics, missing):
    mine = folder(bare / "mine")
    (mine / "ENSDFSTATE.dat").touch()
    monkeypatch.setenv("G4LEDATA", str(mine))
    with pytest.raises(DataSetError, match=missing):
        environment(physics)


def test_the_missing_extra_is_reported_with_the_line_that_installs_it(bare, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'metacalo\[geant4\]'"):
        environment("G4EmStandardPhysics")


def test_an_element_without_data_is_reported_before_geant4_aborts(tmp_path):
    place = folder(tmp_path / "data", 1, 6, 82)
    require_elements({"Pb": ["Pb"], "PVT": ["C", "H"]}, str(place))
    with pytest.raises(DataSetError, match=r"'brass' has Cu, of which .* know nothing \(they have H, C, Pb\)"):
        require_elements({"Pb": ["Pb"], "brass": ["Cu", "Zn"]}, str(place))
    with pytest.raises(DataSetError, match="no folder brem_SB"):
        require_elements({"Pb": ["Pb"]}, str(tmp_path))
