"""`metacalo inspect`: a file on one screen, as JSON, and as a picture."""

from __future__ import annotations

import io
import json

import h5py
import numpy as np
from rich.console import Console

from metacalo.inspection.inspection_table import MeanShower
from metacalo.showers import Grid, data_folder
from tests.samples import write_plain

FAMILY = data_folder("tasks") / "family" / "showers.h5"


def test_a_good_file(command, sample, pblar):
    ran = command("inspect", sample)
    assert (ran.code, ran.err) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in ran.out.splitlines() if line[:1].isalpha() and " " in line.strip())
    assert facts["convention"].strip() == "par04"
    assert facts["showers"].strip() == "120"
    assert facts["mesh"].strip() == "9 x 16 x 45 in r, phi, z; dr 17.7 mm, dz 12 mm"
    assert facts["detector"].startswith("PbLAr: 90 x (2 mm Pb + 4 mm lAr); X0 15.59 mm, R_M 34.8 mm, E_c 9.51 MeV")
    assert facts["energy"].strip() == f"{pblar.energy.min() / 1e3:.4g} to {pblar.energy.max() / 1e3:.4g} GeV"
    assert "deposits divided by the sampling fraction" in facts["response"]
    assert "no problems found" in ran.out
    assert len(ran.out.splitlines()) < 45


def test_a_bad_file_is_reported_and_fails(command, tmp_path, pblar):
    path = write_plain(tmp_path / "bad [1].h5", pblar[:30])
    with h5py.File(path, "a") as file:
        file["showers"][7, 1, 2, 3] = np.nan
        file["incident_energy"][3] = 0
    ran = command("inspect", path)
    assert (ran.code, ran.err) == (1, "")
    assert "bad [1].h5" in ran.out
    problems = ran.out[ran.out.index("4 problems") :].splitlines()[1:]
    assert [line.split()[0] for line in problems if line.startswith("- ")] == ["-"] * 4
    text = " ".join(problems)
    for words in (
        "'incident_energy' row 3 is 0",
        "(row 7)",
        "its detector is unknown",
        "only 30 showers",
    ):
        assert words in text


def test_json(command, sample):
    ran = command("inspect", sample, "--json", "--showers", 20)
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["showers"], found["inspected"], found["problems"]) == (120, 20, [])
    assert found["grid"] == {"n_r": 9, "n_phi": 16, "n_z": 45, "dr_mm": 17.7, "dz_mm": 12.0}


def test_a_picture(command, sample, tmp_path):
    picture = tmp_path / "mean.png"
    assert command("inspect", sample, "--picture", picture, "--quiet").out == ""
    assert picture.read_bytes().startswith(b"\x89PNG")
    ran = command("inspect", sample, "--picture", picture)
    assert (ran.code, ran.out) == (2, "")
    assert f"metacalo: {picture}: exists already; give --force" in ran.err
    assert command("inspect", sample, "--picture", picture, "--force").code == 0
    assert list(tmp_path.iterdir()) == [picture]


def test_what_is_no_shower_file(refused, tmp_path):
    path = tmp_path / "bad.h5"
    path.write_bytes(b"root" + bytes(99))
    message = f"metacalo: {path}: a ROOT file; make it HDF5 by 'metacalo convert bad.h5 "
    assert refused("inspect", path, "--picture", tmp_path / "mean.png").startswith(message)


def test_one_detector_of_several(command, refused):
    assert "choose one with group= (--group): Cu-LAr-09, " in refused("inspect", FAMILY)
    ran = command("inspect", FAMILY, "--group", "Cu-LAr-09", "--showers", "50")
    assert (ran.code, ran.err) == (0, "")
    assert "showers.h5, group Cu-LAr-09" in ran.out
    assert "130, 50 of them looked at" in ran.out


def drawn(mean: np.ndarray, grid: Grid, **options) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=100, **options).print(MeanShower(mean, grid))
    return text.getvalue().splitlines()


def test_the_picture_has_the_axis_below_and_depth_to_the_right():
    mean = np.zeros((3, 4, 45))
    mean[0, :, 10] = 100.0
    mean[1, :, 20] = 1.0
    mean[2, :, 30] = 1e-9
    title, outer, middle, axis, *profile = drawn(mean, Grid(3, 4, 45, dr_mm=5.0))
    assert "MeV per cell, r (up) against z" in title
    assert outer.strip() == "15 mm"
    assert (middle.index("▒"), axis.index("█")) == (8 + 20, 8 + 10)
    assert len(profile) == 3
    assert profile[0][8 + 10] == profile[2][8 + 10] == "█"
    assert not set(profile[2]) & set("▁▂▃▄▅▆▇") or profile[2][8 + 20] == "▁"


def test_the_picture_without_unicode_colour_or_deposits():
    mean = np.random.default_rng(1).random((2, 4, 300))
    text = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(file=text, width=80).print(MeanShower(mean, Grid(2, 4, 300)))
    text.seek(0)
    lines = text.read().splitlines()
    assert "#" in lines[2]
    assert max(map(len, lines)) <= 80
    assert drawn(np.zeros((2, 4, 3)), Grid(2, 4, 3))[1].strip() == "no deposit"
    assert any("\x1b[" in line for line in drawn(mean, Grid(2, 4, 300), force_terminal=True, color_system="truecolor"))
