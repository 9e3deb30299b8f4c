"""`metacalo export` and `metacalo benchmark` as a user runs them, and each mistake reported in one sentence."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import pytest

onnxruntime = pytest.importorskip("onnxruntime")


def test_an_adapted_model_is_one_file_with_what_is_reported_of_it(adapted, command, tmp_path):
    out = tmp_path / "m.onnx"
    ran = command("export", "--model", adapted.out, "--out", out, "--sampler", "euler", "--sampler-steps", 1)
    assert (ran.code, ran.out, ran.err) == (0, f"generator written to {out}, described in {out}.json\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "m.onnx.json", "m.onnx.mac"]
    message = json.loads((tmp_path / "m.onnx.json").read_text(encoding="utf-8"))
    assert message["command"].startswith("metacalo export --model")
    assert (message["sampling"], message["shots"]) == ({"sampler": "euler", "steps": 1}, 60)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (energies,) = session.run(None, {"conditions": [[30.0, 0.0, 1.57, 0, 0, 0, 0, 1]]})
    assert energies.sum() == pytest.approx(30, rel=0.25)


@pytest.fixture
def refused(refused, tmp_path):
    """The sentence of an export that must fail."""
    return lambda *arguments: refused("export", *arguments, "--out", tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--interface", "par4"), "did you mean 'par04'?"),
        (("--format", "onxx"), "did you mean 'onnx'?"),
        (("--generator", "frozen"), "a frozen library is showers, not a network, and is not exported"),
        (("--opset", 11), "too old: the generators' operators are written in opsets 18 to 20"),
        (("--opset", 99), "too new"),
        (
            ("--sampler", "ddpm", "--sampler-steps", 10),
            "sampler 'ddpm' draws noise at each of many steps and is not exported",
        ),
        (("--sampler", "shortcut"), "needs a distilled network"),
        (("--interface", "named", "--seed", 3), "leave it out and give the seed as an input"),
        (("--format", "torchscript", "--seed", 3), "leave it out and call torch::manual_seed there"),
    ],
)
def test_what_cannot_be_exported_is_reported(options, message, adapted, refused):
    assert message in refused("--model", adapted.out, *options)


@pytest.mark.parametrize("name", ["m.onnx", "m.onnx.json"])
def test_an_existing_file_is_not_replaced(name, adapted, refused, tmp_path):
    (tmp_path / name).write_text("mine", encoding="utf-8")
    assert "exists already; give --force" in refused("--model", adapted.out)


def test_another_mesh_than_the_interfaces_is_reported(adapted, refused, monkeypatch):
    detector = adapted.model.detector
    other = replace(detector, grid=replace(detector.grid, n_r=18, n_phi=50))
    monkeypatch.setattr("metacalo.export.verb.load_model", lambda *_, **__: replace(adapted.model, detector=other))
    message = refused("--model", adapted.out)
    assert "the interface 'par04' is of a mesh of 9 x 16 x 45 cells and the model has 18 x 50 x 45" in message


def test_a_missing_library_is_reported_with_the_line_that_installs_it(adapted, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "which is not installed: pip install 'metacalo[onnx]'" in refused("--model", adapted.out)


def test_what_a_shower_costs(adapted, command, monkeypatch):
    one = replace(adapted.model, generators={"diffusion": adapted.model.generator("diffusion")})
    monkeypatch.setattr("metacalo.benchmark.load_model", lambda *_, **__: one)
    monkeypatch.setattr("metacalo.benchmark._SECONDS", 0.0)
    ran = command("benchmark", "--model", adapted.out, "--showers", 2, "--energy", 10)
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split("│")[1:5] for line in ran.out.splitlines() if "diffusion" in line]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [
        (way, batch) for way in ("PyTorch", "ONNX Runtime") for batch in ("1", "2")
    ]
    assert all(float(row[3]) > 0 for row in rows)
    assert re.search(r"Geant4, measured once elsewhere.*\b220\b", ran.out)
