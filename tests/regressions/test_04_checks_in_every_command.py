"""What `inspect` sees, every command that reads showers says; good files give no warning."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from metacalo.adapt import AdaptSettings, adapt
from metacalo.convert import ConvertSettings, convert
from metacalo.evaluate import EvaluateSettings, evaluate_files
from metacalo.generate import GenerateSettings, generate
from metacalo.inspection.inspection import inspect
from metacalo.scoring.score_report import score_files
from metacalo.scoring.scores import ScoreSettings
from metacalo.showers import open_showers
from metacalo.showers.sample_checks import warn_of_file
from metacalo.showers.tasks import discover_tasks
from metacalo.sweep import SweepSettings, sweep
from tests.samples import SIW, attributes_of, shipped, write_plain

N = 300


def copies(showers, energy):
    showers[50:], energy[50:] = showers[:1], energy[:1]


def reversed_r(showers, energy):
    showers[:] = showers[:, ::-1].copy()


def reversed_z(showers, energy):
    showers[:] = showers[..., ::-1].copy()


def empty(showers, energy):
    showers[::10] = 0


def empty_at_the_end(showers, energy):
    showers[-60:] = 0


def all_in_gev(showers, energy):
    showers /= 1000
    energy /= 1000


def deposits_in_gev(showers, energy):
    showers /= 1000


def raw_deposits_in_gev(showers, energy):
    showers *= 0.03 / 1000


def noise(showers, energy):
    showers += np.random.default_rng(0).exponential(1e-6, showers.shape).astype(np.float32)


def nothing(showers, energy):
    showers[:] = 0


def one_shower(showers, energy):
    showers[:], energy[:] = showers[:1], energy[:1]


def below_zero(showers, energy):
    showers[150, 0, 0, 0] = -1


def energies_in_gev(showers, energy):
    energy /= 1000


FAULTS = {
    copies: "showers equal to an earlier one",
    reversed_r: "most energy lies in the outer half of r",
    reversed_z: "most energy lies in the last half of z",
    empty: "30 showers without a deposit",
    all_in_gev: r"energies and deposits seem to be in GeV .*\(metacalo convert FILE --energy-scale 1000 --scale 1000\)",
    deposits_in_gev: r"deposits seem to be in GeV and are needed in MeV \(metacalo convert FILE --scale 1000\)",
    raw_deposits_in_gev: "deposits seem to be in GeV",
    noise: "far below the threshold of any readout",
}


def written(path, fault=None, *, axes=(0, 1, 2, 3)):
    showers = shipped("siw", slice(0, N))
    if fault is not None:
        fault(showers.showers, showers.energy)
    return write_plain(path, replace(showers, showers=showers.showers.transpose(axes)), **attributes_of("siw"))


def said(function, *arguments, **named):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        function(*arguments, **named)
    return "\n".join(str(one.message) for one in found)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_what_looks_like_a_mistake_is_reported_by_inspect_and_by_reading_commands(fault, tmp_path):
    path = written(tmp_path / "new.h5", fault)
    assert any(re.search(FAULTS[fault], problem) for problem in inspect(path).problems)
    with open_showers(path) as file:
        printed = said(warn_of_file, file)
    assert re.search(f"^{re.escape(str(path))}: .*{FAULTS[fault]}", printed, re.MULTILINE)
    assert len(printed.splitlines()) <= 2


def test_phi_first_is_reported(tmp_path):
    path = written(tmp_path / "new.h5", axes=(0, 2, 1, 3))
    assert any("axes must be (r, phi, z)" in problem for problem in inspect(path).problems)


@pytest.mark.usefixtures("no_pictures")
def test_every_command_asks(tmp_path):
    path, good = written(tmp_path / "new.h5", empty), written(tmp_path / "good.h5")
    settings = AdaptSettings(shots=100, generator="diffusion", steps=0, compared_showers=0)
    assert "showers without a deposit" in said(adapt, path, tmp_path / "model", settings, quiet=True)
    judged = EvaluateSettings(classifiers=False, pages=False)
    assert "new.h5: 30 showers without" in said(evaluate_files, path, good, tmp_path / "a", settings=judged)
    assert "new.h5: 30 showers without" in said(evaluate_files, good, path, tmp_path / "b", settings=judged)
    scored = ScoreSettings(at_most=20)
    assert "without a deposit" in said(
        score_files, tmp_path / "model", path, tmp_path / "scores.h5", scored, quiet=True
    )
    with pytest.MonkeyPatch.context() as patch:  # what comes after reading is not asked for here
        patch.setattr("metacalo.sweep.search.zero_shot", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError), pytest.warns(UserWarning, match="without a deposit"):
            sweep(path, tmp_path / "swept", SweepSettings(shots=100), quiet=True)


@pytest.mark.parametrize("name", sorted(discover_tasks()))
def test_good_files_give_no_warning(name):
    with discover_tasks()[name].open() as file:
        warn_of_file(file)  # a warning would be an error


def test_generate_and_convert_ask(tmp_path, monkeypatch):
    good, path = written(tmp_path / "good.h5"), written(tmp_path / "gev.h5", all_in_gev)
    adapt(good, tmp_path / "m", AdaptSettings(shots=50, generator="diffusion", steps=0, compared_showers=0), quiet=True)
    conditions = GenerateSettings(conditions=str(path), showers=2)
    assert "gev.h5: the median incident energy" in said(generate, tmp_path / "m", tmp_path / "g.h5", conditions)
    monkeypatch.setattr("metacalo.showers.sample_checks.CHECKED", 40)  # of 300 showers: what is wrong comes late
    late = written(tmp_path / "late.h5", empty_at_the_end)
    assert "10 showers without a deposit" in said(convert, late, tmp_path / "c.h5", ConvertSettings(to="par04"))


def test_inspect_fails_where_adapt_would(command, tmp_path):
    assert command("inspect", SIW).code == 0
    strange = written(tmp_path / "strange.h5", empty)
    assert command("inspect", strange).code == 0  # adapt warns, and goes on
    with h5py.File(strange, "a") as file:
        del file.attrs["active_material"]
        del file.attrs["absorber_material"]
    assert command("inspect", strange).code == 1  # its detector is unknown
    for name, fault in {"nothing": nothing, "one": one_shower, "below": below_zero, "gev": energies_in_gev}.items():
        assert command("inspect", written(tmp_path / f"{name}.h5", fault)).code == 1, name
    negative = written(tmp_path / "negative.h5")
    with h5py.File(negative, "a") as file:
        file["incident_energy"][5] = -1
    assert command("inspect", negative).code == 1
    assert command("adapt", "--detector", negative, "--shots", 50, "--out", tmp_path / "x").code == 2
    assert not Path(tmp_path / "x").exists()
