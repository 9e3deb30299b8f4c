"""A library of frozen showers through the commands: adapt writes it, generate uses it, mistakes are reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metacalo.adapt import AdaptSettings, adapt, adapted_model
from metacalo.model_folders.adapted import load_model, seen_hashes, zero_shot
from metacalo.showers import open_showers
from metacalo.storage.checkpoint import load_tensors, save_tensors


@pytest.fixture(scope="module")
def library(tmp_path_factory, sample, base) -> Path:
    """The folder of a library of 60 of the 120 showers."""
    settings = AdaptSettings(base=str(base.path), shots=60, generator="frozen", compared_showers=0)
    return adapt(sample, tmp_path_factory.mktemp("frozen") / "model", settings).out


@pytest.fixture
def spoilt(tmp_path, library) -> Path:
    """A copy of the library's folder, for a test to spoil."""
    return Path(shutil.copytree(library, tmp_path / "model"))


def test_adapt_and_generate(command, sample, base, pblar, tmp_path):
    out, path = tmp_path / "model", tmp_path / "showers.h5"
    ran = command(
        *("adapt", "--detector", sample, "--base", base.path, "--shots", 60, "--generator", "frozen", "--out", out)
    )
    assert (ran.code, ran.err) == (0, "")
    for words in ("PbLAr: 60 shots, base base-no-pblar", "frozen library", "Geant4", "frozen: library of 60 showers"):
        assert words in ran.out
    assert "before" not in ran.out
    parts = {
        "config.json",
        "metrics.json",
        "provenance.json",
        "profiles.pdf",
        "profiles.png",
        "normaliser.safetensors",
        "shots.safetensors",
    }
    assert {path.name for path in out.iterdir()} == {*parts, "frozen.safetensors"}
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    threshold = float(pblar.showers[pblar.showers > 0].min())
    assert metrics["generators"]["frozen"]["showers"] == 60
    assert metrics["generators"]["frozen"]["threshold_MeV"] >= threshold
    assert set(metrics["fidelity"]["response"]) == {"Geant4", "frozen library"}
    assert metrics["fidelity"]["frozen library"]["mean_w1"]["value"] > 0

    ran = command("generate", "--model", out, "--generator", "frozen", "--conditions", sample, "--out", path)
    assert (ran.code, ran.out, ran.err) == (0, f"showers written to {path}\n", "")
    with open_showers(path) as file:
        made = file.load()
    for name in ("energy", "theta", "phi"):
        np.testing.assert_array_equal(getattr(made, name), getattr(pblar, name))
    assert made.detector == pblar.detector
    response = made.showers.sum((1, 2, 3), dtype=np.float64) / made.energy
    assert response.mean() == pytest.approx(1, abs=0.05)


def test_the_folder_holds_the_shots_themselves(library, pblar):
    metrics = json.loads((library / "metrics.json").read_text(encoding="utf-8"))
    shots = pblar[np.array(metrics["shots"]["rows"])]
    kept = load_model(library).libraries["frozen"]
    for name in ("showers", "energy", "theta"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(shots, name))
    assert np.isin(shots.hashes(), seen_hashes(library)).all()
    assert (library / "frozen.safetensors").stat().st_size < 0.25 * shots.showers.nbytes


def test_showers_of_an_adapted_model_in_memory_and_of_its_folder(library, base, pblar):
    rows = np.array(json.loads((library / "metrics.json").read_text(encoding="utf-8"))["shots"]["rows"])
    model, runs = adapted_model(zero_shot(base, pblar.detector), pblar[rows], AdaptSettings(generator="frozen"))
    assert (list(runs), dict(model.generators)) == (["frozen"], {})
    wanted = pblar.energy[:7], pblar.theta[:7], pblar.phi[:7]
    ours, theirs = (
        np.concatenate([part.showers for part in each.generate("frozen", *wanted, seed=4, batch_size=3)])
        for each in (model, load_model(library))
    )
    np.testing.assert_array_equal(ours, theirs)
    noise = torch.Generator().manual_seed(4)
    first = model.libraries["frozen"].sample(pblar.energy[:3], pblar.theta[:3], noise)
    np.testing.assert_array_equal(ours[:3], first)


def test_names_that_a_model_does_not_have(refused, library, base, tmp_path):
    zero_shots = (base.path, "--detector", "pblar")
    for model, name, known in (((library,), "diffusion", "frozen"), (zero_shots, "frozen", "ar, diffusion")):
        message = refused("generate", "--model", *model, "--generator", name, "--out", tmp_path / "x.h5")
        assert message.startswith(f"metacalo: unknown generator '{name}' (known: {known})")


@pytest.fixture
def refusal(refused, spoilt) -> Callable[[], str]:
    """What `generate` says of the spoilt folder."""
    return lambda: refused("generate", "--model", spoilt, "--generator", "frozen", "--out", spoilt.parent / "x.h5")


def test_a_library_that_is_missing_cut_or_another_s(spoilt, refusal):
    path = spoilt / "frozen.safetensors"
    whole = path.read_bytes()
    tensors = {name: tensor.clone() for name, tensor in load_tensors(path)[0].items()}
    path.write_bytes(whole[:-40])
    assert f"{path}: not a readable safetensors file" in refusal()
    path.write_bytes((spoilt / "shots.safetensors").read_bytes())
    assert f"{path}: not a complete library ('shape'); adapt again" in refusal()
    save_tensors(path, tensors | {"cells": tensors["cells"][1:]})
    assert f"{path}: not a complete library (" in refusal()
    save_tensors(path, tensors | {"shape": torch.tensor([60, 9, 45, 16])})
    assert f"{path}: holds showers on another mesh than config.json says; adapt again" in refusal()
    path.unlink()
    assert f"{path}: missing" in refusal()
