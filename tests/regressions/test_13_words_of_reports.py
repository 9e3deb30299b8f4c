"""One energy has one label, one shower is no plural, and angles that are not numbers are not printed as such."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import h5py
import numpy as np
import pytest
from rich.console import Console

from metacalo.evaluate.checks import warnings_of
from metacalo.evaluate.comparison import compare
from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.figures.conditions import profile_by_energy, response_means, response_widths
from metacalo.evaluate.metric_tables import table
from metacalo.evaluate.reference import EvaluateSettings, Reference
from metacalo.inspection.inspection import inspect
from metacalo.inspection.inspection_table import inspection_table
from metacalo.runtime.wording import counted, ranged
from metacalo.showers import write_showers
from tests.samples import shipped


@pytest.fixture(scope="module")
def one_energy():
    showers = shipped("pblar", slice(0, 120))
    share = np.float32(10_000) / showers.energy
    scaled = showers.showers * share[:, None, None, None]
    return replace(showers, showers=scaled, energy=np.full(len(showers), 10_000, np.float32))


def printed(shown) -> str:
    console = Console(width=150, file=StringIO())
    console.print(shown)
    return console.file.getvalue()


def test_a_table_of_one_energy_has_one_label(one_energy):
    reference = Reference(one_energy[:60], EvaluateSettings(classifiers=False))
    text = printed(table({"x": compare(one_energy[60:], reference)}))
    assert "mean, width at 10 GeV" in text
    assert "10 - 10" not in text


def test_no_figure_against_energy_of_one_energy(one_energy):
    compared = Compared.of({"Geant4": one_energy[:60], "x": one_energy[60:]})
    assert [draw(compared) for draw in (response_means, response_widths, profile_by_energy)] == [None] * 3
    assert "10 GeV" in compared.heading.beam.split(", ")


def test_inspect_names_an_energy_once(one_energy, tmp_path):
    write_showers(tmp_path / "one.h5", one_energy)
    found = inspect(tmp_path / "one.h5")
    assert [(low, high) for low, high, _ in found.response.by_energy] == [(10.0, 10.0)]
    two = replace(one_energy, energy=np.repeat(np.float32([10_000, 20_000]), [100, 20]))
    write_showers(tmp_path / "two.h5", two)
    assert [low for low, _, _ in inspect(tmp_path / "two.h5").response.by_energy] == [10.0, 20.0]


def test_one_shower_and_angles_that_are_no_numbers(one_energy, tmp_path):
    path = tmp_path / "one.h5"
    write_showers(path, one_energy[:1])
    with h5py.File(path, "r+") as file:
        for angle in ("incident_theta", "incident_phi"):
            file[angle][...] = np.nan
    text = printed(inspection_table(inspect(path)))
    assert "only 1 shower:" in " ".join(text.split())
    assert "nan rad" not in text
    assert "no finite value" in text


def test_a_warning_counts_one_shower(one_energy):
    assert any("only 1 generated shower:" in text for text in warnings_of(one_energy[:1], one_energy, 0))
    assert any("1 shower is in both" in text for text in warnings_of(one_energy, one_energy, 1))


def test_numbers_in_words():
    assert [counted(n, "shower") for n in (0, 1, 2000)] == ["0 showers", "1 shower", "2,000 showers"]
    assert ranged(10.0, 10.0, "GeV") == "10 GeV"
    assert ranged(1.0, 125.4, "GeV", between=" - ") == "1 - 125 GeV"
    assert ranged(np.nan, np.nan, "rad") == "no finite value"
