"""The user's matplotlib settings neither end a command nor change, and a picture that fails costs nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from metacalo.adapt import AdaptSettings, adapt
from metacalo.evaluate.figures.catalogue import CATALOGUE
from metacalo.evaluate.figures.style import new_figure
from metacalo.evaluate.pages import write_pages
from metacalo.runtime import pictures
from tests.samples import PBLAR, shipped

INLINE = "module://matplotlib_inline.backend_inline"
SETTINGS = "text.usetex: True\nfont.family: NoSuchFont\naxes.labelsize: 300\nfigure.autolayout: True\n"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Environment of a process that a notebook started, whose user sets letters by LaTeX that is not there."""
    folder = tmp_path_factory.mktemp("config")
    (folder / "matplotlibrc").write_text(SETTINGS, encoding="utf-8")
    nothing = folder / "bin"
    nothing.mkdir()
    kept = {**os.environ, "MPLCONFIGDIR": str(folder), "OMP_NUM_THREADS": "1"}
    return {**kept, "MATPLOTLIBRC": str(folder), "MPLBACKEND": INLINE, "PATH": str(nothing)}


def run(hostile, *arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env=hostile, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def frozen(hostile, tmp_path_factory):
    out = tmp_path_factory.mktemp("hostile") / "model"
    given = ("--detector", PBLAR, "--generator", "frozen", "--shots", 60, "--out", out)
    return run(hostile, "-m", "metacalo", "adapt", *given), out


def test_adapt_keeps_its_model_and_draws_its_picture(frozen):
    done, out = frozen
    assert done.returncode == 0, done.stderr
    assert "was not drawn" not in done.stderr
    assert (out / "frozen.safetensors").is_file()
    assert (out / "profiles.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "profiles.pdf").read_bytes().startswith(b"%PDF")


def test_evaluate_and_inspect_draw(hostile, tmp_path):
    out = tmp_path / "evaluation"
    given = ("--generated", PBLAR, "--reference", PBLAR, "--max-showers", 40, "--no-classifiers", "--no-pages")
    done = run(hostile, "-m", "metacalo", "evaluate", *given, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "was not drawn" not in done.stderr
    assert (out / "profiles.png").read_bytes().startswith(b"\x89PNG")
    done = run(hostile, "-m", "metacalo", "inspect", PBLAR, "--showers", 20, "--picture", tmp_path / "mean.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mean.png").stat().st_size > 10_000


@pytest.mark.parametrize("backend", [INLINE, "svg"])
def test_importing_leaves_the_users_settings(hostile, backend):
    code = """
import os, sys
import metacalo.sweep.trial_figures
import matplotlib
assert os.environ["MPLBACKEND"] == sys.argv[1]
assert matplotlib.rcParams["text.usetex"] and matplotlib.rcParams["font.family"] == ["NoSuchFont"]
print(matplotlib.rcParams._get("backend"))
"""
    done = run({**hostile, "MPLBACKEND": backend}, "-c", code, backend)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip() == "svg") == (backend == "svg")


def test_drawing_leaves_the_users_settings(tmp_path):
    with matplotlib.rc_context({"text.usetex": True, "font.family": "NoSuchFont", "lines.linewidth": 17.0}):
        before = dict(matplotlib.rcParams)
        with pictures.drawing("x.png"):
            assert not matplotlib.rcParams["text.usetex"]
            figure = new_figure(3, 2)
            figure.add_subplot().set_xlabel("$E$ (MeV)")
            pictures.save_picture(figure, tmp_path / "x.png", tmp_path / "x.pdf")
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def broken(*_, **__):
    raise RuntimeError("no such font")


def test_a_picture_that_fails_is_a_warning_and_the_model_stays(monkeypatch, tmp_path):
    monkeypatch.setattr("metacalo.adaptation.before_after.profile_figure", broken)
    settings = AdaptSettings(generator="frozen", shots=60, compared_showers=20)
    with pytest.warns(pictures.PictureWarning, match=r"profiles\.png was not drawn \(RuntimeError: no such font\)"):
        result = adapt(PBLAR, tmp_path / "model", settings, quiet=True)
    assert (result.out / "frozen.safetensors").is_file()
    assert result.metrics["fidelity"]["frozen library"]["mean_w1"]["value"] > 0
    assert not list(result.out.glob("profiles.*"))


def test_a_figure_that_fails_is_left_out_of_the_report(monkeypatch, tmp_path):
    samples = {"Geant4": shipped("pblar", slice(0, 40)), "other": shipped("pblar", slice(40, 80))}
    monkeypatch.setattr("metacalo.evaluate.figures.distributions.spectrum", broken)
    monkeypatch.setattr("metacalo.evaluate.pages.CATALOGUE", [e for e in CATALOGUE if e.name.startswith(("cell", "o"))])
    with pytest.warns(pictures.PictureWarning, match=r"figures/cell_spectrum\.png was not drawn"):
        write_pages(tmp_path, samples, {"other": {}}, title="x")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"occupancy.png", "occupancy.pdf"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="occupancy"' in page
    assert 'id="cell_spectrum"' not in page
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_a_figure_of_a_sweep_that_fails_is_left_out(monkeypatch):
    from metacalo.sweep import trial_figures as figures

    monkeypatch.setattr(figures, "_history", broken)
    found = {"trials": [], "objectives": ["w1"], "importances": {"steps": 0.7, "rate": 0.3}, "best": {"params": {}}}
    with pytest.warns(pictures.PictureWarning, match="figure history of the report was not drawn"):
        drawings = figures.draw_findings(found)
    assert "importances" in {drawing.name for drawing in drawings}


def test_a_picture_that_cannot_be_drawn_is_not_half_written(tmp_path):
    figure = new_figure(3, 2)
    figure.add_subplot().set_title("$\\nonsense$")
    with pytest.warns(pictures.PictureWarning, match=r"^x\.png was not drawn \(ValueError"), pictures.drawing("x.png"):
        pictures.save_picture(figure, tmp_path / "x.png", tmp_path / "x.pdf")
    assert not list(Path(tmp_path).iterdir())
    assert np.isfinite(matplotlib.rcParams["font.size"])
