"""Energies and angles outside of those of the shots are named wherever showers are asked for or judged."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace

import h5py
import numpy as np
import pytest

from metacalo.adapt import AdaptSettings, adapt
from metacalo.detectors.condition_range import ConditionRange, OutsideRangeWarning
from metacalo.errors import ShowerFileError
from metacalo.evaluate import EvaluateSettings, evaluate_files
from metacalo.export.macro import par04_macro
from metacalo.export.verb import ExportSettings, _record
from metacalo.generate import GenerateSettings, generate
from metacalo.model_folders.adapted import load_model
from metacalo.model_folders.provenance_card import card_of
from metacalo.scoring.score_report import score_files
from metacalo.showers import open_showers, resolve_task
from metacalo.showers.writer import write_showers
from metacalo.storage.checkpoint import load_json, save_json

BASE = "base-no-pblar"


@pytest.fixture(scope="module")
def beam(tmp_path_factory):
    """A test beam: 60 showers of 1 to 5 GeV, all at a right angle."""
    path = tmp_path_factory.mktemp("beam") / "beam.h5"
    with resolve_task("pblar").open() as file:
        rows = np.flatnonzero((file.energy < 5000) & (np.abs(file.theta - math.pi / 2) < 0.3))[:60]
        showers = file.load(rows)
    write_showers(path, replace(showers, theta=np.full(60, math.pi / 2, np.float32)))
    return path


@pytest.fixture(scope="module")
def model(beam, tmp_path_factory):
    """A folder adapted to the test beam, by a library of frozen showers and no network."""
    out = tmp_path_factory.mktemp("model") / "m"
    adapt(beam, out, AdaptSettings(base=BASE, shots=60, generator="frozen", compared_showers=0), quiet=True)
    return out


def asked(model, out, **settings):
    return generate(model, out, GenerateSettings(generator="frozen", showers=20, **settings))


def test_the_range_is_kept_with_the_model(model, beam):
    kept = ConditionRange.model_validate(load_json(model / "config.json")["shots_range"])
    with open_showers(beam) as file:
        assert kept == ConditionRange.of(file.energy, file.theta, file.phi) == load_model(model).shots_range


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"energy": "90"}, r"^20 of 20 showers have energies outside 1\.\d+ to 4\.\d+ GeV, the range of the 60 shots"),
        (
            {"energy": "3", "theta": "3.0"},
            r"^20 of 20 showers have angles outside theta 1\.57 rad, the range of the 60",
        ),
        ({"energy": "3", "theta": "1.2"}, r"\(1\.2 rad\); adapt with shots there, or compare with Geant4 before use$"),
    ],
)
def test_generate_names_what_no_shot_has(model, tmp_path, settings, sentence):
    with pytest.warns(OutsideRangeWarning, match=sentence):
        asked(model, tmp_path / "x.h5", **settings)


@pytest.mark.parametrize("settings", [{"energy": "3"}, {"energy": "1:5"}, {"energy": "2", "theta": "1.5708"}])
def test_a_range_is_not_left_by_rounding_or_by_chance(model, tmp_path, settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked(model, tmp_path / "x.h5", **settings)


def test_python_hears_it_too(model):
    loaded, one = load_model(model), np.ones(1)
    with pytest.warns(OutsideRangeWarning, match="energies outside"):
        loaded.generate("frozen", 9e4 * one, math.pi / 2 * one, 0 * one)
    for energy in (0.0, -5.0, math.nan, math.inf, 1e-30):
        with pytest.raises(ShowerFileError, match="must be finite and above zero"):
            loaded.generate("frozen", energy * one, math.pi / 2 * one, 0 * one)


def test_older_folders_have_the_range_of_their_library_or_base(model, tmp_path):
    config = load_json(model / "config.json")
    del config["shots_range"]
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_json(tmp_path / "config.json", config)
    assert load_model(tmp_path).known_range.energy_MeV == load_model(model).known_range.energy_MeV
    zero_shots = load_model(BASE, detector=resolve_task("pblar").detector)
    assert (str(zero_shots.known_range), zero_shots.shots_range) == ("1 to 100 GeV, theta 0.87 to 2.27 rad", None)
    far = zero_shots.outside_range(np.array([1e3, 3e5]), np.array([1.57, 3.0]))
    assert [text.split(";")[0] for text in far] == [
        f"1 of 2 showers have energies outside 1 to 100 GeV, the range of training of base '{BASE}' (300 GeV)",
        f"1 of 2 showers have angles outside theta 0.87 to 2.27 rad, the range of training of base '{BASE}' (3 rad)",
    ]


@pytest.mark.usefixtures("no_pictures")
def test_generated_files_name_it_to_cards_and_evaluate(model, beam, tmp_path):
    with pytest.warns(OutsideRangeWarning):
        path = generate(model, tmp_path / "x.h5", GenerateSettings(generator="frozen", energy="1:20", showers=60))
    assert "the model has seen: 1.0" in card_of(path)
    settings = EvaluateSettings(classifiers=False, pages=False)
    found = evaluate_files(path, resolve_task("pblar").path, tmp_path / "e", settings=settings)
    (printed,) = (text for text in found["samples"]["x"]["warnings"] if "what their model has seen" in text)
    assert printed.split("outside")[0].endswith("generated showers have energies ")
    with h5py.File(path, "a") as file:
        file.attrs["model_range"] = "no JSON"
    assert "has seen" not in card_of(path)


def test_score_names_it(tmp_path):
    """One batch of five showers beyond the base's energies among twenty."""
    with resolve_task("pblar").open() as file:
        showers = file.load(slice(0, 20))
    energy = np.where(np.arange(20) < 5, 4e5, showers.energy).astype(np.float32)
    more = showers.showers * (energy / showers.energy)[:, None, None, None]
    write_showers(tmp_path / "high.h5", replace(showers, energy=energy, showers=more))
    with pytest.warns(OutsideRangeWarning, match=r"^5 of 20 showers of high\.h5 have energies outside 1 to 100 GeV"):
        score_files(
            BASE,
            tmp_path / "high.h5",
            tmp_path / "s.h5",
            detector=resolve_task("pblar").detector,
            quiet=True,
        )


def test_export_has_the_range_of_the_shots(model):
    """The sidecar has both ranges, and the macro a particle within them."""

    class Shown:
        inputs, output, meanings = (), "x", {"x": ""}

    seen = load_model(model).shots_range
    wanted = replace(load_model(BASE, detector=resolve_task("pblar").detector), shots_range=seen)
    sidecar = json.loads(json.dumps(_record(Shown, wanted, ExportSettings())))
    assert sidecar["energy_range_MeV"] == list(seen.energy_MeV)
    assert sidecar["theta_range_rad"] == list(seen.theta_rad) == [pytest.approx(math.pi / 2)] * 2
    assert (sidecar["phi_range_rad"], sidecar["ranges_of"]) == (list(seen.phi_rad), "shots")
    lines = par04_macro(wanted.detector, "m.onnx", "onnx", seen).splitlines()
    (energy,) = (float(line.split()[1]) for line in lines if line.startswith("/gun/energy"))
    assert seen.energy_MeV[0] < 1e3 * energy < seen.energy_MeV[1]
    assert "/gun/direction 0 1 0" in lines


def test_adapt_names_shots_beyond_the_base(beam, tmp_path):
    with open_showers(beam) as file:
        showers = file.load()
    far = replace(showers, energy=showers.energy / 10, showers=showers.showers / 10, theta=showers.theta + 0.9)
    write_showers(tmp_path / "far.h5", far)
    settings = AdaptSettings(base=BASE, shots=60, generator="frozen", compared_showers=0)
    with pytest.warns(OutsideRangeWarning) as found:
        adapt(tmp_path / "far.h5", tmp_path / "m", settings, quiet=True)
    assert [str(each.message).split(", the range")[0] for each in found if each.category is OutsideRangeWarning] == [
        "60 of 60 shots have energies outside 1 to 100 GeV",
        "60 of 60 shots have angles outside theta 0.87 to 2.27 rad",
    ]
