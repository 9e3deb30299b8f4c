"""What stands beside an exported file: the sidecar and the macro."""

from __future__ import annotations

import json

import pytest

from metacalo.detectors.condition_range import ConditionRange
from metacalo.export.macro import par04_macro
from metacalo.showers import Detector, Grid, resolve_task
from tests.export.conftest import SHORT

SHIPPED = ConditionRange.shipped()


def test_the_sidecar_tells_what_the_file_is(exported, model):
    path = exported(**SHORT)
    sidecar = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    assert sidecar["interface"]["name"] == "par04"
    assert list(sidecar["interface"]["inputs"]) == ["conditions"]
    assert (sidecar["mesh"]["n_phi"], sidecar["mesh"]["dz_mm"]) == (16, 12.0)
    assert sidecar["base"] == {"name": "base-no-pblar", "hash": model.base.hash}
    assert sidecar["sampling"] == {"sampler": "euler", "steps": 1}
    assert sidecar["settings"]["seed"] == 5
    assert len(sidecar["model_hash"]) == 64
    grid = Grid(*(sidecar["mesh"][axis] for axis in ("n_r", "n_phi", "n_z")))
    assert Detector.from_attributes(sidecar["detector"], grid, "") == model.detector


def test_only_par04_has_a_macro(exported):
    for settings, wanted in ((SHORT, True), ({"generator": "diffusion", "interface": "named"}, False)):
        path = exported(**settings)
        assert path.with_name(f"{path.name}.mac").exists() == wanted


def test_the_macro_sets_up_the_detector_and_its_mesh():
    lines = par04_macro(resolve_task("pblar").detector, "m.onnx", "onnx", SHIPPED).splitlines()
    commands = dict(line.split(" ", 1) for line in lines if line.startswith("/") and " " in line)
    assert "/Par04/detector/setAbsorber 0 G4_Pb 2 mm true" in lines
    assert "/Par04/detector/setAbsorber 1 G4_lAr 4 mm true" in lines
    for place in ("mesh", "inference"):
        assert commands[f"/Par04/{place}/setSizeOfRhoCells"] == "17.7 mm"
        assert commands[f"/Par04/{place}/setSizeOfZCells"] == "12 mm"
        assert commands[f"/Par04/{place}/setNbOfPhiCells"] == "16"
    assert commands["/Par04/inference/setModelType"] == "CaloDiT-2"
    assert lines.index("/run/initialize") < lines.index("/Par04/inference/setModelPathName m.onnx")
    order = [f"/Par04/inference/{name}" for name in ("setModelPathName m.onnx", "setInferenceLibrary ONNX")]
    assert lines.index(order[0]) < lines.index(order[1]), "the file is read when the library is named"
    assert lines.index("/param/ActivateModel defineMesh") < lines.index("/param/ActivateModel inferenceModel")


def test_the_macro_for_libtorch():
    text = par04_macro(resolve_task("siw").detector, "m.pt", "torchscript", SHIPPED)
    assert "/Par04/inference/setInferenceLibrary TORCH\n" in text
    assert "OptimizationFlag" not in text


@pytest.mark.parametrize(
    ("absorber", "active", "lines"),
    [
        (None, "PbWO4:7.0", ["0 G4_PbWO4 3.5 mm true", "1 G4_PbWO4 3.5 mm true"]),
        ("steel:5.0", "Sci:2.0", ["0 G4_STAINLESS-STEEL 5 mm true", "1 G4_POLYSTYRENE 2 mm true"]),
    ],
)
def test_names_of_materials_are_those_of_geant4(absorber, active, lines):
    text = par04_macro(Detector.from_layers(absorber, active), "m.onnx", "onnx", SHIPPED)
    for line in lines:
        assert f"\n/Par04/detector/setAbsorber {line}\n" in text


def test_what_par04_cannot_build_is_a_remark():
    text = par04_macro(Detector.from_layers("WCu:2.0,steel:1.0", "Si:0.3"), "m.onnx", "onnx", SHIPPED)
    assert "# Geant4 has no material of this name; build it in the detector construction: /Par04" in text
    assert "# Par04 knows two sheets in a period; its detector has to be extended for: /Par04" in text
