"""Showers of one energy are compared with those of a spectrum that are near it; none in common is one sentence."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from metacalo.cli import app
from metacalo.errors import ShowerFileError
from metacalo.evaluate import EvaluateSettings, compare
from metacalo.evaluate.checks import on_common_energies, on_shared_energies
from metacalo.showers import write_showers
from tests.samples import shipped

FAST = EvaluateSettings(classifiers=False, splits=1, pages=False)


@pytest.fixture(scope="module")
def spectrum():
    """1 to 100 GeV, 1,000 showers."""
    return shipped("siw", slice(0, 1000))


def of_energy(spectrum, gev, n=40):
    """Showers near an energy, brought to it."""
    near = spectrum.select(np.argsort(np.abs(np.log(spectrum.energy / (1000 * gev))))[:n])
    scale = np.float32(1000 * gev) / near.energy
    return replace(near, energy=np.full(n, 1000 * gev, np.float32), showers=near.showers * scale[:, None, None, None])


@pytest.mark.usefixtures("no_pictures")
def test_one_energy_against_a_spectrum(spectrum, tmp_path):
    ten = of_energy(spectrum, 10)
    write_showers(tmp_path / "ten.h5", ten)
    write_showers(tmp_path / "full.h5", spectrum)
    given = ["evaluate", "--generated", str(tmp_path / "ten.h5"), "--reference", str(tmp_path / "full.h5")]
    result = CliRunner().invoke(app, [*given, "--no-classifiers", "--no-pages", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    near = int(np.count_nonzero((spectrum.energy >= 9000) & (spectrum.energy <= 11_000)))
    assert 20 <= near < 100
    assert (
        "compared between 9 and 11 GeV only, within 10% of the energies that both samples have: 40 of 40 generated and "
        f"{near} of 1,000 reference showers; to compare all energies, generate with --conditions of the reference"
    ) in " ".join(result.stderr.split())
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())["samples"]["ten"]["showers"]
    assert (numbers["generated"], numbers["reference"]) == (40, near)


def test_the_other_way_round_and_no_wider_than_needed(spectrum):
    ten = of_energy(spectrum, 10)
    found = compare(spectrum, ten, FAST)
    assert found["showers"]["reference"] == 40
    many = replace(spectrum, energy=np.linspace(8000, 12_000, 1000).astype(np.float32))
    _, common, (message,) = on_common_energies(of_energy(spectrum, 10, 200), many)
    assert "between 9.8 and 10.2 GeV only, within 2% of" in message  # 5 % and 10 % hold more, and are not needed
    assert len(common) == np.count_nonzero((many.energy >= 9800) & (many.energy <= 10_200))


def test_figures_show_what_is_compared(spectrum):
    ten, twenty = of_energy(spectrum, 10), of_energy(spectrum, 20)
    shown = on_shared_energies({"Geant4": spectrum, "ten": ten})
    assert shown["Geant4"].energy.min() >= 9000
    assert shown["Geant4"].energy.max() <= 11_000
    assert len(shown["ten"]) == 40
    apart = on_shared_energies({"Geant4": spectrum, "ten": ten, "twenty": twenty})
    assert len(apart["Geant4"]) == 1000


def test_no_energies_in_common_is_one_sentence(spectrum, tmp_path):
    high = spectrum.select(np.flatnonzero(spectrum.energy > 20_000))
    with pytest.raises(ShowerFileError) as error:
        compare(of_energy(spectrum, 10), high, FAST)
    assert str(error.value) == (
        "generated showers are of 10 GeV, the reference is of 20 to 99.6 GeV: no energies that both have; generate "
        "with --conditions of the reference"
    )
    # neighbouring energies are not taken for one, although 10 % of either would hold the other
    with pytest.raises(ShowerFileError, match="no energies that both have"):
        compare(of_energy(spectrum, 10), of_energy(spectrum, 11), FAST)
    # ranges that share an end: few showers, and a wider end would compare lower energies with higher ones
    low = spectrum.select(np.flatnonzero(spectrum.energy < 10_000))
    above = spectrum.select(np.flatnonzero(spectrum.energy > 10_000))
    with pytest.raises(ShowerFileError, match=r"there are \d+ generated and \d+ reference showers, and at least 20"):
        compare(low, above, FAST)
