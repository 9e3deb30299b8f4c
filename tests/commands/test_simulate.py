"""`metacalo simulate` and `metacalo design`, as a designer of a calorimeter runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import tomllib

import numpy as np
import pytest

from metacalo.showers import open_showers
from metacalo.simulate.data_sets import DATA_SETS, found_data_sets
from metacalo.simulate.records import Journal
from metacalo.storage.locking import sole_writer
from tests.geant4 import SMALL, needs_geant4


@pytest.fixture
def detector(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@needs_geant4
def test_from_the_template_to_a_file_that_inspect_likes(command, process, tmp_path):
    description, shots = tmp_path / "my.toml", tmp_path / "shots.h5"
    ran = command("tasks", "new", description)
    assert (ran.code, ran.err) == (0, "")
    assert tomllib.loads(description.read_text())["name"] == "my"
    ran = process("simulate", "--detector", description, "--showers", 5, "--energy", "0.2:2", "--out", shots)
    assert (ran.code, ran.err) == (0, "")  # no banner of Geant4
    assert re.fullmatch(
        rf"5 showers of my written to {shots}   sampling fraction 0\.0\d+ \+- [\de.-]+   [\d.]+ ms/GeV\n", ran.out
    )
    ran = command("inspect", shots, "--json")
    found = json.loads(ran.out)
    assert (found["showers"], found["convention"], found["detector"]["detector"]) == (5, "par04", "my")
    assert [problem for problem in found["problems"] if "only 5 showers" not in problem] == []


def test_the_template_does_not_replace_a_file(command, detector):
    ran = command("tasks", "new", detector)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"metacalo: {detector}: exists already; give --force to replace it or another --out\n"
    assert detector.read_text() == SMALL
    assert command("tasks", "new", detector, "--force").code == 0
    assert "[[layers]]" in detector.read_text()


@pytest.fixture
def refused(refused, tmp_path):
    """With an output."""
    return lambda *arguments: refused(*arguments, "--out", tmp_path / "out.h5")


@needs_geant4
@pytest.mark.parametrize("verb", ["simulate", "design"])
def test_bad_descriptions(refused, detector, verb):
    message = ("simulate", "--detector", detector) if verb == "simulate" else ("design", "--detector", detector)
    for change, words in {
        ('"Pb"', '"Pbb"'): f"{detector}: unknown material 'Pbb'; did you mean 'Pb'?",
        ('name = "small"', 'name = "small"\nn_layers = 3'): f"{detector}: the mesh is 450 mm deep",
        ("[beam]", '[physics]\nconstructor = "FTFP_BERT"\n[beam]'): "data set G4PARTICLEXS is not found",
    }.items():
        if "FTFP" in change[1] and "G4PARTICLEXSDATA" in found_data_sets():
            continue
        detector.write_text(SMALL.replace(*change), encoding="utf-8")
        assert words in refused(*message)
    detector.unlink()
    assert "there is no such detector file" in refused(*message)


@needs_geant4
@pytest.mark.parametrize("verb", ["simulate", "family", "design"])
def test_a_second_process_on_the_same_output_is_reported_so(refused, detector, tmp_path, verb):
    family = tmp_path / "family.toml"
    family.write_text('detectors = 1\npairs = [["Pb", "PVT"]]\nactive_mm = { PVT = [5, 5] }\n', encoding="utf-8")
    lines = {"simulate": ("simulate", "--detector", detector), "family": ("simulate", "--family", family)}
    with sole_writer(tmp_path / "out.h5"):
        message = refused(*lines.get(verb, ("design", "--detector", detector)))
    assert re.fullmatch(
        rf"metacalo: {tmp_path}/out.h5: another metacalo process \(PID {os.getpid()} on host \S+\) is writing it; wait "
        r"for it or choose another --out\n",
        message,
    )


@needs_geant4
@pytest.mark.parametrize("verb", ["simulate", "design"])
def test_an_interruption_says_how_to_go_on(command, detector, tmp_path, monkeypatch, verb):
    out = tmp_path / "out"
    keep = Journal.append

    def kept(journal, deposits):
        keep(journal, deposits)
        if len(journal) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Journal, "append", kept)
    message = ("simulate", "--detector", detector) if verb == "simulate" else ("design", "--detector", detector)
    ran = command(*message, "--workers", 1, "--showers", 40, "--out", out)
    assert (ran.code, ran.out) == (130, "")
    what, where = ("showers", tmp_path / "out.work") if verb == "simulate" else ("steps and showers", out)
    assert ran.err == (
        f"metacalo: interrupted; finished {what} are kept in {where}; go on with the same command and --resume\n"
    )
    (path,) = tmp_path.rglob("showers.journal")
    journal = Journal(path)
    assert len(journal) == 2
    journal.close()
    assert [path.name for path in tmp_path.iterdir() if path != detector] == [where.name]


@needs_geant4
def test_an_element_that_the_data_lack(refused, detector, tmp_path, monkeypatch):
    data = tmp_path / "data"
    (data / "brem_SB").mkdir(parents=True)
    for z in (1, 6):
        (data / "brem_SB" / f"br{z}").touch()
    (data / "ENSDFSTATE.dat").touch()
    monkeypatch.setenv("G4LEDATA", str(data))
    monkeypatch.delenv("G4ENSDFSTATEDATA", raising=False)
    sentence = refused("simulate", "--detector", detector)
    assert "material 'Pb' has Pb, of which the Geant4 data" in sentence
    assert "know nothing (they have H, C)" in sentence


def test_nothing_to_simulate(refused):
    assert "give --detector my.toml" in refused("simulate")


@needs_geant4
def test_wrong_options(refused, detector):
    message = ("simulate", "--detector", detector)
    assert "energies must lie above 0" in refused(*message, "--energy", "-5")
    assert "'particle' = 'muon' is not valid" in refused(*message, "--particle", "muon")
    assert "--showers = 0" in refused(*message, "--showers", 0)


@needs_geant4
def test_setup_tells_which_data_sets_are_there(command):
    ran = command("simulate", "--setup")
    assert ran.code == 0
    assert all(data_set.variable in ran.out for data_set in DATA_SETS)
    assert "showers of e-, e+ and gamma can be simulated" in ran.out


@pytest.mark.usefixtures("no_pictures")
@needs_geant4
def test_design_from_a_description_to_the_report(command, detector, tmp_path):
    detector.write_text(SMALL.replace("0.1:0.5", "1:2"), encoding="utf-8")
    settings, out = tmp_path / "design.toml", tmp_path / "design"
    settings.write_text(
        'showers = 30\nreference = 20\n[adapt]\nbase = "base-no-pblar"\nsteps = 2\ncompared_showers = 0\n'
        "[evaluate]\nclassifiers = false\npages = false\n",
        encoding="utf-8",
    )
    ran = command("design", "--detector", detector, "--config", settings, "--out", out)
    assert ran.code == 0
    assert ran.out.splitlines()[-1].startswith(f"report {out / 'report' / 'report.html'}")
    metrics = json.loads((out / "report" / "metrics.json").read_text())
    assert set(metrics["samples"]) == {"ar", "diffusion"}
    assert metrics["left_out"] == 30
    with open_showers(out / "showers.h5") as shots, open_showers(out / "ar.h5") as made:
        assert (len(shots), len(made)) == (50, 20)
        assert np.isin(made.energy, shots.energy).all()
    again = command("design", "--detector", detector, "--config", settings, "--out", out)
    assert (again.code, again.out) == (2, "")
    assert "exists already; give --force" in again.err
    (out / "diffusion.h5").unlink()
    resumed = command("design", "--detector", detector, "--config", settings, "--out", out, "--resume")
    assert resumed.code == 0
    assert re.search(r"\(diffusion \d+\)$", resumed.out.splitlines()[-1])
    other = command("design", "--detector", detector, "--config", settings, "--out", out, "--resume", "--seed", 5)
    assert "the unfinished design had other settings" in other.err


@needs_geant4
def test_design_replaces_nothing_but_a_design(command, detector, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "precious.txt").write_text("mine")
    ran = command("design", "--detector", detector, "--out", tmp_path / "notes", "--force")
    assert (ran.code, ran.out) == (2, "")
    assert "notes: is no design, and --force replaces nothing else" in ran.err
    assert (tmp_path / "notes" / "precious.txt").read_text() == "mine"
