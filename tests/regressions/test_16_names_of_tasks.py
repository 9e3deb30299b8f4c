"""The name of a task stands for its shower file wherever a command takes a file, from any folder."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from metacalo.errors import ShowerFileError, UnknownNameError
from metacalo.showers import Detector, open_showers
from metacalo.showers.tasks import description_path, shower_location, shower_path
from tests.samples import PBLAR, SIW


@pytest.fixture
def run(command, tmp_path, monkeypatch):
    """What `metacalo` prints in a folder that holds no task."""
    monkeypatch.chdir(tmp_path)

    def ran(*arguments):
        done = command(*arguments)
        assert done.code == 0, done.err
        return done.out

    return ran


def test_inspect_and_convert(run, tmp_path):
    found = json.loads(run("inspect", "siw", "--showers", 20, "--json"))
    assert found["path"] == str(SIW)
    run("convert", "family/W-Si-00", "--format", "par04", "--showers", 3, "--out", "member.h5")
    with open_showers(tmp_path / "member.h5") as file:
        assert (len(file), file.detector.absorber) == (3, "W")


@pytest.mark.usefixtures("no_pictures")
def test_conditions_and_reference(run, tmp_path):
    model = ("--model", "base-no-pblar", "--detector", "pblar")
    run("generate", *model, "--conditions", "pblar", "--showers", 25, "--sampler-steps", 1, "--out", "like.h5")
    with h5py.File(tmp_path / "like.h5") as made, open_showers(PBLAR) as real:
        np.testing.assert_allclose(made["incident_energy"][:].ravel(), real.energy[:25], rtol=1e-6)
    judged = ("--generated", "like.h5", "--no-classifiers", "--no-pages", "--showers", 50)
    run("evaluate", "--reference", "pblar", *judged, "--out", "report")
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["files"]["reference"].endswith(
        "pblar/showers.h5"
    )


def test_a_path_that_exists_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "siw").mkdir()
    assert str(shower_path("siw")) == "siw"
    assert str(description_path("siw")) == "siw"
    assert str(shower_path("none.h5")) == "none.h5"


def test_descriptions_and_members():
    assert Detector.from_toml(description_path("siw")).absorber == "W"
    assert shower_location("family/W-Si-00")[1] == "W-Si-00"
    with pytest.raises(ShowerFileError, match="metacalo convert family/W-Si-00"):
        shower_path("family/W-Si-00")
    with pytest.raises(UnknownNameError, match="did you mean 'siw'"):
        shower_path("siww")
