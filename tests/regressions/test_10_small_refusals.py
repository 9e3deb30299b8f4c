"""Values that are right are not refused for the way they are written."""

from __future__ import annotations

import math

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacalo.cli.options import described_detector
from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.detectors.ranges import parse_angles
from metacalo.detectors.simulation_settings import BeamSettings
from metacalo.errors import DetectorError, ShowerFileError
from metacalo.generate import GenerateSettings, generate
from metacalo.model_folders.adapted import load_model
from metacalo.normaliser.preprocessing import PREPROCESSING
from metacalo.showers import data_folder, open_showers
from metacalo.showers.tasks import resolve_task
from metacalo.storage.provenance import load_provenance
from metacalo.training_data.few_shots import FewShotSettings, draw_few_shots
from tests.samples import attributes_of, shipped, write_plain


def test_attributes_of_shape_1_and_bytes_are_scalars(tmp_path):
    attributes = {
        key: np.array([value.encode()], dtype="S64") if isinstance(value, str) else np.array([value])
        for key, value in attributes_of("siw").items()
    }
    showers = shipped("siw", slice(0, 3))
    with open_showers(write_plain(tmp_path / "matlab.h5", showers, **attributes)) as file:
        assert file.detector == showers.detector
        assert all(np.isscalar(value) for value in file.attributes.values())


@pytest.mark.parametrize("stored", [np.array([b'{"seed": 1}']), np.bytes_(b'{"seed": 1}'), '{"seed": 1}'])
def test_provenance_of_shape_1_and_bytes_is_read(tmp_path, stored):
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file.attrs["provenance"] = stored
    assert load_provenance(tmp_path / "out.h5") == {"seed": 1}


@pytest.mark.parametrize(("axis", "text"), [("phi", "0:6.2832"), ("theta", "0:3.1416"), ("phi", "-6.2832:6.2832")])
def test_ends_that_were_rounded_are_held_to_the_limit(axis, text):
    low, high = parse_angles(axis, text)
    assert high == (math.pi if axis == "theta" else 2 * math.pi)
    assert low in (0.0, -2 * math.pi)


def test_generate_takes_what_the_template_suggests(tmp_path):
    model = load_model("base", detector=resolve_task("siw").detector)
    settings = GenerateSettings(energy="10", phi="0:6.2832", theta="0.87:2.27", showers=3, generator="diffusion")
    out = generate("base", tmp_path / "showers.h5", settings, detector=model.detector)
    with open_showers(out) as file:
        assert len(file) == 3
    BeamSettings(phi="0:6.2832")


@pytest.mark.parametrize(("axis", "text"), [("phi", "0:6.4"), ("theta", "0:90"), ("theta", "-0.1:1")])
def test_angles_beyond_the_limits_are_refused(axis, text):
    with pytest.raises(ValueError, match="must lie between"):
        parse_angles(axis, text)


def test_two_descriptions_are_refused():
    toml = data_folder("tasks") / "pblar" / "detector.toml"
    with pytest.raises(DetectorError, match=r"--description .* and --absorber or --active both describe the detector"):
        described_detector("Pb:2.0", "lAr:4.0", toml)
    with pytest.raises(DetectorError, match="both describe"):
        described_detector(None, "lAr:4.0", toml)


@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), numpy=st.booleans())
def test_any_name_and_numpy_scalars_come_back_from_toml(tmp_path_factory, name, numpy):
    of = np.float32 if numpy else float
    grid = Grid(np.int64(9) if numpy else 9, 16, 45, of(17.5), of(12.0))
    detector = Detector.from_layers("Pb:2.0", "lAr:4.0", n_layers=np.int32(90), grid=grid, name=name)
    path = tmp_path_factory.mktemp("toml") / "detector.toml"
    path.write_text(detector.to_toml(), encoding="utf-8")
    again = Detector.from_toml(path)
    assert again == detector
    assert again.name == name


def test_few_shots_of_few_showers_are_one_sentence():
    task = resolve_task("siw")
    with task.open() as file:
        two = file.load(slice(0, 2))
    with pytest.raises(ShowerFileError, match="has 2 showers to train on, and episodes of few shots need 4"):
        draw_few_shots(task, two, None, PREPROCESSING["tables"], FewShotSettings(draws=1), np.random.default_rng(0))
