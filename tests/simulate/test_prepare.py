from __future__ import annotations

from pathlib import Path

import pytest

from metacalo.detectors.geant4_names import nist_name
from metacalo.detectors.template import write_template
from metacalo.errors import ConfigError, DetectorError
from metacalo.showers import Detector, data_folder, find_material
from metacalo.simulate.prepare import prepare
from tests.geant4 import SMALL


def described(tmp_path, text: str):
    path = tmp_path / "detector.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_mesh_follows_the_material(tmp_path):
    job = prepare(described(tmp_path, SMALL)).job
    detector = Detector.from_layers("Pb:5", "PVT:5")
    assert (job.n_r, job.n_phi, job.n_z) == (9, 16, 45)
    assert job.dr_mm == pytest.approx(0.5 * detector.R_M_mm)
    assert job.dz_mm / detector.X0_mm == pytest.approx(0.8, abs=0.5 * detector.period_mm / detector.X0_mm)
    assert sum(sheet.thickness_mm for sheet in job.sheets) == pytest.approx(45 * job.dz_mm)
    assert [sheet.role for sheet in job.sheets[:2]] == ["passive", "active"]
    assert job.length_mm == 4000


def test_shipped_tasks_are_described_as_before_and_can_be_simulated():
    made = prepare(data_folder("tasks") / "pblar" / "detector.toml")
    assert made.detector == Detector.from_toml(data_folder("tasks") / "pblar" / "detector.toml")
    assert (made.job.inner_radius_mm, made.job.particle, made.job.production_cut_mm) == (800, "e-", 0.7)
    assert made.job.substances["Pb"].nist == "G4_Pb"


def test_the_example_of_the_documentation():
    made = prepare(Path(__file__).parents[2] / "docs" / "examples" / "tungsten-scintillator.toml")
    assert (made.detector.absorber, made.detector.active) == ("W", "polystyrene")
    assert made.job.inner_radius_mm == 1500


def test_a_stack_of_many_sheets_with_gaps_plates_and_a_material_of_its_own(tmp_path):
    text = SMALL + (
        '[[layers]]\nmaterial = "air"\nthickness_mm = 1\n[[layers]]\nmaterial = "mine"\nthickness_mm = 0.5\n'
        "[materials.mine]\ndensity_g_cm3 = 1.8\ncomposition = { C = 0.9, H = 0.1 }\n"
        '[geometry]\nshape = "planar"\ninner_radius_mm = 500\n'
        '[[geometry.front]]\nmaterial = "Al"\nthickness_mm = 20\n'
    )
    text = text.replace('[beam]\nenergy_GeV = "0.1:0.5"\n', "")
    job = prepare(described(tmp_path, text)).job
    assert [sheet.material for sheet in job.sheets[:5]] == ["Al", "Pb", "PVT", "air", "mine"]
    assert [sheet.role for sheet in job.sheets[:5]] == ["front", "passive", "active", "passive", "passive"]
    assert job.substances["mine"].nist == ""
    assert job.substances["mine"].composition == {"C": 0.9, "H": 0.1}


def test_cylinders_are_as_long_as_the_angles_ask_for(tmp_path):
    job = prepare(described(tmp_path, SMALL), beam={"theta": "0.2:1.5"}).job
    assert job.length_mm / 2 > 800 / 0.2027  # tan 0.2


def test_the_template_is_valid_and_names_the_detector_as_its_file(tmp_path):
    made = prepare(write_template(tmp_path / "mine.toml"))
    assert made.detector.name == "mine"
    assert made.detector.absorber == "W"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('"Pb"', '"Pbb"'), "unknown material 'Pbb'; did you mean 'Pb'?"),
        (("thickness_mm = 5\n", "thickness_mm = 0\n"), "'layers.0.thickness_mm' = 0 is not valid"),
        (("active = true", ""), "has no active layer"),
        (('name = "small"', 'name = "small"\nn_layers = 3'), "the mesh is 450 mm deep"),
        (('name = "small"', 'name = "small"\nn_layers = 3'), "give n_layers = 45, or leave it out, or grid.n_z = 3"),
        (("[beam]", "[beam]\nenergi = 3"), "[beam]: unknown key 'energi'; did you mean 'energy_GeV'?"),
        (('"0.1:0.5"', '"5:1"'), "'5:1' is neither a number nor a range"),
        (('"0.1:0.5"', "-3"), "energies must lie above 0 and up to 10000 GeV"),
        (("[beam]", "[beam]\ntheta = 90"), "theta must lie between 0 and pi rad, neither included (degrees?)"),
        (("[beam]", '[beam]\nparticle = "electron"'), "'beam.particle' = 'electron' is not valid"),
        (("[beam]", '[beam]\nparticle = "pi-"'), "a pi- needs hadronic physics"),
        (("[beam]", "[geometry]\nlength_mm = 500\n[beam]"), "passes the end"),
        (("[beam]", '[geometry]\nshape = "planar"\n[beam]\nphi = 1'), "a planar stack is met at phi = 0"),
        (("[beam]", "[geometry]\ninner_radius = 5\n[beam]"), "did you mean 'inner_radius_mm'?"),
        (
            ("[beam]", '[[geometry.front]]\nmaterial = "Al"\nthickness_mm = 900\n[beam]'),
            "the plates in front are 900 mm thick and overlap the origin",
        ),
        (
            ("[beam]", '[[geometry.front]]\nmaterial = "Alu"\nthickness_mm = 9\n[beam]'),
            "unknown material 'Alu'; did you mean 'Au' or 'Al'?",
        ),
    ],
)
def test_a_wrong_description_is_one_sentence_that_names_file_and_key(tmp_path, change, words):
    path = described(tmp_path, SMALL.replace(*change, 1))
    with pytest.raises((DetectorError, ConfigError)) as caught:
        prepare(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_an_empty_stack(tmp_path):
    for text in ('name = "nothing"\nlayers = []\n', 'name = "nothing"\n'):
        with pytest.raises(DetectorError, match=r"the stack is empty; give a \[\[layers\]\] with material"):
            prepare(described(tmp_path, text))


def test_a_missing_key(tmp_path):
    with pytest.raises(DetectorError, match=r"'name' is missing; give it$"):
        prepare(described(tmp_path, SMALL.replace('name = "small"', "")))


def test_settings_of_the_command_win(tmp_path):
    made = prepare(described(tmp_path, SMALL), beam={"energy_GeV": "10", "theta": None}, physics="G4EmLivermorePhysics")
    assert made.beam.energies_GeV == (10,)
    assert made.beam.theta == "0.87:2.27"
    assert made.job.physics == "G4EmLivermorePhysics"
    with pytest.raises(ConfigError, match="energies must lie above 0"):
        prepare(described(tmp_path, SMALL), beam={"energy_GeV": "0"})


def test_geant4_s_own_materials_have_the_names_recorded():
    assert nist_name(find_material("Pb")) == "G4_Pb"
    assert nist_name(find_material("liquid argon")) == "G4_lAr"
    assert nist_name(find_material("steel")) == ""
