"""The name of a task stands for its shower file wherever a command takes a file, from any folder."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from metacalo.errors import ShowerFileError, UnknownNameError
from metacalo.showers import Detector, data_folder, open_showers
from metacalo.showers.tasks import description_path, shower_location, shower_path


def run(folder, *arguments):
    """Runs `metacalo` in a folder that holds no task."""
    done = subprocess.run(
        [sys.executable, "-m", "metacalo", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_inspect_and_convert(tmp_path):
    found = json.loads(run(tmp_path, "inspect", "siw", "--showers", 20, "--json"))
    assert found["path"] == str(data_folder("tasks") / "siw" / "showers.h5")
    run(tmp_path, "convert", "family/W-Si-00", "--format", "par04", "--showers", 3, "--out", "member.h5")
    with open_showers(tmp_path / "member.h5") as file:
        assert (len(file), file.detector.absorber) == (3, "W")


def test_conditions_and_reference(tmp_path):
    model = ("--model", data_folder("pretrained") / "base-no-pblar", "--detector", "pblar")
    run(
        tmp_path, "generate", *model, "--conditions", "pblar", "--showers", 25, "--sampler-steps", 1, "--out", "like.h5"
    )
    with h5py.File(tmp_path / "like.h5") as made, open_showers(data_folder("tasks") / "pblar" / "showers.h5") as real:
        np.testing.assert_allclose(made["incident_energy"][:].ravel(), real.energy[:25], rtol=1e-6)
    judged = ("--generated", "like.h5", "--no-classifiers", "--no-pages", "--showers", 50)
    run(tmp_path, "evaluate", "--reference", "pblar", *judged, "--out", "report")
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
