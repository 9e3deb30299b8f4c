"""`metacalo convert`: what a user types, and what lies there afterwards."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from metacalo.showers import Grid, open_showers
from tests.ntuple import write_ntuple
from tests.samples import write_plain


def load(path):
    with open_showers(path) as file:
        return file.load()


def test_there_and_back(command, sample, tmp_path, pblar):
    flat, back = tmp_path / "flat.h5", tmp_path / "back.h5"
    ran = command("convert", sample, "--format", "calochallenge", "--out", flat)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"120 showers of 9 x 16 x 45 cells written to {flat} (calochallenge)\n"
    with h5py.File(flat) as file:
        assert file["showers"].shape == (120, 6480)
        assert file.attrs["converted_by"].startswith(f"metacalo convert {sample} --format calochallenge")
    assert command("convert", flat, "--format", "par04", "--out", back, "--quiet").out == ""
    np.testing.assert_array_equal(load(back).showers, pblar.showers)
    np.testing.assert_array_equal(load(back).theta, pblar.theta)


def test_a_coarser_mesh_another_scale_and_some_rows(command, sample, tmp_path, pblar):
    out, cells = tmp_path / "coarse.h5", pblar.detector.grid
    wanted = ("--grid", "3x4x9", "--scale", 0.5, "--rows", "3:9")
    ran = command("convert", sample, "--format", "par04", "--out", out, *wanted)
    assert ran.out.startswith("6 showers of 3 x 4 x 9 cells")
    found = load(out)
    assert found.detector.grid == Grid(3, 4, 9, 3 * cells.dr_mm, 5 * cells.dz_mm)
    expected = 0.5 * pblar.showers[3:9].reshape(6, 3, 3, 4, 4, 9, 5).sum(axis=(2, 4, 6), dtype=np.float64)
    np.testing.assert_allclose(found.showers, expected, rtol=1e-6)
    np.testing.assert_array_equal(found.energy, pblar.energy[3:9])


@pytest.mark.parametrize(
    "message",
    [
        ("--detector", "pblar"),
        ("--detector", "tasks/pblar/detector.toml"),
        ("--description", "tasks/pblar/detector.toml"),
        ("--absorber", "Pb:2.0", "--active", "lAr:4.0"),
    ],
)
@pytest.mark.filterwarnings("default:.*states the cell sizes")
def test_a_detector_is_written_into_the_file(command, tmp_path, pblar, message):
    path, out = write_plain(tmp_path / "plain.h5", pblar[:5]), tmp_path / "out.h5"
    assert command("convert", path, "--format", "par04", "--out", out, *message).code == 0
    assert load(out).detector.layers == pblar.detector.layers
    assert "2 mm Pb + 4 mm lAr" in command("inspect", out).out


@pytest.mark.filterwarnings("always::metacalo.ntuples.ntuple.NtupleWarning")
def test_a_root_ntuple(command, tmp_path, pblar):
    path, out = write_ntuple(tmp_path / "par04.root", pblar[:10], angles=False), tmp_path / "out.h5"
    ran = command("convert", path, "--format", "par04", "--out", out, "--detector", "pblar", "--showers", 8)
    assert ran.code == 0
    assert f"warning: {path}: tree 'global' has no ThetaMC and PhiMC; theta = pi/2 and phi = 0 are" in ran.err
    np.testing.assert_array_equal(load(out).showers, pblar.showers[:8])
    np.testing.assert_array_equal(load(out).theta, np.float32(np.pi / 2))


MISTAKES = {
    "convention": (("--format", "par4"), "--format = 'par4' is not valid", "did you mean 'par04'?"),
    "axis": (("--grid", "9x10x45"), "--grid 9x10x45: 16 cells in phi cannot be added up to 10"),
    "mesh": (("--grid", "9-16-45"), "'9-16-45' is no mesh"),
    "scale": (("--scale", 0), "--scale = 0.0 is not valid"),
    "rows": (("--rows", "100:200"), "--rows 100:200: ", "has rows 0:120"),
    "showers": (("--showers", 0), "--showers = 0 is not valid"),
    "hgcal": (("--format", "hgcal"), "hgcal keeps one angle per file, in its name (90 here); convert to par04"),
    "absorber alone": (("--absorber", "Pb:2"), "give --active too"),
    "task": (("--detector", "pblr"), "did you mean 'pblar'?"),
    "group": (("--group", "nowhere"), "there is no group 'nowhere'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence_and_leave_nothing(refused, sample, tmp_path, mistake):
    options, *words = MISTAKES[mistake]
    message = refused("convert", sample, "--format", "par04", "--out", tmp_path / "out.h5", *options)
    assert [word for word in words if word not in message] == []


def test_an_existing_file_is_kept_unless_forced(command, sample, tmp_path):
    out = tmp_path / "out.h5"
    out.write_text("mine")
    arguments = ("convert", sample, "--format", "par04", "--out", out, "--showers", 2)
    assert "exists already; give --force" in command(*arguments).err
    assert out.read_text() == "mine"
    assert command(*arguments, "--force").code == 0
    assert len(load(out)) == 2
