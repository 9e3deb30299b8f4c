"""The comparison of `adapt` holds for files sorted by energy, says what it compares with, and tells a bad model."""

from __future__ import annotations

import json
import warnings

import h5py
import numpy as np
import pytest
from rich.console import Console

from metacalo.adapt import AdaptSettings, adapt
from metacalo.adaptation.before_after import FEWEST, GeantSample, summary_table, warn_if_far
from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.errors import ShowerFileError
from metacalo.generators.sampling_options import SamplingOptions
from metacalo.showers import open_showers
from tests.samples import SIW, attributes_of, shipped, write_plain


@pytest.fixture(scope="module")
def by_energy(tmp_path_factory):
    """As the HGCal set has it: one dataset for each energy, so that rows are sorted by energy."""
    path = tmp_path_factory.mktemp("hgcal") / "SiW_angle_90.h5"
    with open_showers(SIW) as source, h5py.File(path, "w") as file:
        showers = source.load()
        for key, value in source.attributes.items():
            file.attrs[key] = value
        for energy in (2, 8, 32, 64):
            near = np.argsort(np.abs(np.log(showers.energy / (1000 * energy))))[:60]
            scaled = showers.showers[near] * (1000 * energy / showers.energy[near])[:, None, None, None]
            file[str(energy)] = np.where(scaled > 0.0152, scaled, 0)
    return path


def test_halves_of_a_sorted_file_have_the_same_energies(by_energy):
    with open_showers(by_energy) as file:
        sample = GeantSample.draw(file, np.arange(0, 240, 12), 100, seed=1)
        assert sample.unseen
        first, second = (np.log(half.energy) for half in (sample.conditions, sample.others))
        assert len(first) == len(second) == 100
        assert abs(first.mean() - second.mean()) < 4 * first.std() * (2 / 100) ** 0.5
        shots = file.hashes(np.arange(0, 240, 12))
        assert not np.isin(shots, [*sample.conditions.hashes(), *sample.others.hashes()]).any()


@pytest.mark.usefixtures("no_pictures")
def test_adapting_to_a_sorted_file(by_energy, tmp_path):
    settings = AdaptSettings(
        base="base-no-pblar", shots=100, generator="diffusion", steps=2, check_every=2, compared_showers=60
    )
    metrics = adapt(by_energy, tmp_path / "model", settings, quiet=True).metrics
    after = metrics["fidelity"]["after (diffusion)"]["mean_w1"]
    assert after["value"] < 1.8 * after["floor"]
    assert metrics["fidelity"]["far_from_geant4"] == []
    console = Console(width=80, record=True)
    console.print(summary_table(metrics))
    text = console.export_text()
    assert "60 showers each against 60 of Geant4, unseen; in brackets errors" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


@pytest.mark.usefixtures("no_pictures")
def test_a_comparison_with_the_shots_says_so(tmp_path):
    few = write_plain(tmp_path / "few60.h5", shipped("siw", slice(0, 60)), **attributes_of("siw"))
    settings = AdaptSettings(base="base-no-pblar", shots=60, generator="diffusion", steps=0)
    metrics = adapt(few, tmp_path / "model", settings, quiet=True).metrics
    assert metrics["fidelity"]["unseen"] is False
    assert metrics["fidelity"]["showers"] == 30
    assert "against 30 of the shots, as there are no others" in summary_table(metrics).caption


def test_too_few_showers_are_not_compared():
    with open_showers(SIW) as file:
        file.energy = file.energy[: 2 * FEWEST - 1]
        assert GeantSample.draw(file, np.arange(10), 200, seed=1) is None


@pytest.mark.usefixtures("no_pictures")
def test_before_and_after_are_sampled_alike(tmp_path, monkeypatch):
    seen = []

    def made(model, name, conditions, stop, **_):
        seen.append((name, model.generator(name).sampling))
        return conditions

    monkeypatch.setattr("metacalo.adaptation.before_after._generate_like", made)
    settings = AdaptSettings(
        base="base-no-pblar", shots=40, steps=0, generator="ar", sampling=SamplingOptions(temperature=0.5)
    )
    adapt("siw", tmp_path / "model", settings, quiet=True)
    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0][1].temperature == 0.5


@pytest.mark.parametrize(("far", "printed"), [((1.0, 1.2), 0), ((1.5, 2.0), 1), ((44.0, 1.2), 1), ((44.0, 2.3), 2)])
def test_a_model_far_from_geant4_is_reported(far, printed, tmp_path):
    entries = {
        f"{when} (ar)": {"mean_w1": {"value": 0.1 * times, "floor": 0.1}}
        for when, times in zip(("before", "after"), far, strict=True)
    }
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warn_if_far({"showers": 200, "unseen": True, "response": {}, **entries}, tmp_path / "new.h5")
    assert len(found) == printed


@pytest.mark.usefixtures("no_pictures")
def test_a_wrong_mesh_is_reported(tmp_path):
    detector = Detector.from_layers("Pb:2", "lAr:4", n_layers=90, grid=Grid(9, 16, 45, 4.65, 3.4))
    settings = AdaptSettings(base="base-no-pblar", shots=60, generator="diffusion", steps=0, compared_showers=60)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        metrics = adapt("pblar", tmp_path / "model", settings, described=detector, quiet=True).metrics
    printed = "\n".join(str(one.message) for one in found)
    assert "which is used; correct the one that is wrong" in printed
    assert "showers are not those of the described detector" in printed
    assert "do not use this model" in printed
    assert metrics["fidelity"]["far_from_geant4"] == ["before (diffusion)", "after (diffusion)"]
    assert json.loads((tmp_path / "model" / "metrics.json").read_text())["fidelity"] == metrics["fidelity"]


def test_shots_that_are_one_shower_are_refused(tmp_path):
    path = write_plain(tmp_path / "same.h5", shipped("siw", np.full(30, 3)), **attributes_of("siw"))
    with pytest.raises(
        ShowerFileError, match=r"same.h5: its 20 shots are copies of one shower; give showers that differ$"
    ):
        adapt(path, tmp_path / "model", AdaptSettings(base="base-no-pblar", shots=20), quiet=True)
    assert not (tmp_path / "model").exists()


def test_a_model_of_no_finite_showers_is_far():
    nothing = {"after (ar)": {"mean_w1": {"value": float("nan"), "floor": 0.1}}}
    with pytest.warns(UserWarning, match="do not use this model"):
        warn_if_far(nothing, SIW)
