"""Adaptation: what it writes, what it may not touch, and that it needs nothing but the detector."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from metacalo.adapt import AdaptSettings, adapt
from metacalo.adaptation.adapt_generator import adapt_generator
from metacalo.adaptation.before_after import summary_table
from metacalo.errors import DetectorError
from metacalo.model_folders.adapted import load_model, seen_hashes, zero_shot
from metacalo.model_folders.base import load_half
from metacalo.runtime.threads import side_by_side
from metacalo.showers import Showers, data_folder, open_showers
from metacalo.storage.checkpoint import load_tensors, tensor_hash
from metacalo.training_data.shower_pool import ShowerPool
from tests.samples import write_plain

GENERATORS = ("ar", "diffusion")


def quick(base, **changes) -> AdaptSettings:
    """Three steps of one generator on 30 shots, nothing compared."""
    few = {"shots": 30, "steps": 3, "check_every": 1, "generator": "diffusion", "compared_showers": 0}
    return AdaptSettings(base=str(base.path), **{**few, **changes})


def raw(showers: Showers) -> Showers:
    """As deposited in the active material."""
    return replace(showers, showers=np.float32(0.19) * showers.showers)


def adapters(folder: Path, name: str = "diffusion") -> dict[str, torch.Tensor]:
    return load_tensors(folder / f"adapters-{name}.safetensors")[0]


def test_folder_has_all_parts(adapted):
    parts = {path.name for path in adapted.out.iterdir()}
    assert parts == {
        "config.json",
        "metrics.json",
        "provenance.json",
        "profiles.pdf",
        "profiles.png",
        "normaliser.safetensors",
        "shots.safetensors",
        "adapters-ar.safetensors",
        "adapters-diffusion.safetensors",
    }
    assert (adapted.out / "profiles.png").read_bytes().startswith(b"\x89PNG")
    assert list(adapted.out.parent.iterdir()) == [adapted.out]
    assert sum(path.stat().st_size for path in adapted.out.iterdir()) < 2e6


def test_metrics(adapted, base):
    metrics = json.loads((adapted.out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == adapted.metrics
    assert metrics["base"] == {"name": "base-no-pblar", "hash": base.hash}
    assert metrics["detector"] == "PbLAr"
    assert metrics["command"] == "metacalo adapt --shots 60"
    assert metrics["settings"]["shots"] == metrics["shots"]["number"] == 60
    assert metrics["shots"]["seen_in_pretraining"] == 0
    assert set(metrics["generators"]) == set(GENERATORS)
    assert metrics["seconds"]["total"] > 0
    for name, run in metrics["generators"].items():
        assert run["steps"] == 6
        assert run["seconds"] > 0
        assert run["best_step"] in {0, 2, 4, 6}
        assert run["held_back_loss"]["after"] <= run["held_back_loss"]["before"]
        assert (run["held_back_loss"]["after"] < run["held_back_loss"]["before"]) == (run["best_step"] > 0)
        trainable, total = run["parameters"]["trainable"], run["parameters"]["total"]
        assert run["method"] == "conditioning+bias"
        assert trainable == sum(tensor.numel() for tensor in adapters(adapted.out, name).values())
        assert 0 < trainable < 0.2 * total


def test_both_generators_are_compared_before_and_after(adapted):
    fidelity = adapted.metrics["fidelity"]
    labels = {f"{when} ({name})" for when in ("before", "after") for name in GENERATORS}
    assert set(fidelity["response"]) == {"Geant4", *labels}
    assert (fidelity["showers"], fidelity["unseen"]) == (20, True)
    assert fidelity["response"]["Geant4"]["mean"] == pytest.approx(1, abs=0.05)
    for label in labels:
        assert min(fidelity[label]["mean_w1"].values()) > 0
        assert set(fidelity[label]["shift"]) == {"depth", "radius", "hits"}
    table = summary_table(adapted.metrics)
    assert list(table.columns[0].cells) == list(fidelity["response"])


def test_the_recorded_shots_are_rows_of_the_file(adapted, sample):
    message = adapted.metrics["shots"]
    assert len(set(message["rows"])) == 60
    with open_showers(sample) as file:
        hashes = np.sort(file.hashes(np.array(message["rows"])))
        others = file.hashes(np.setdiff1d(np.arange(len(file)), message["rows"]))
    assert hashlib.sha256(hashes.tobytes()).hexdigest() == message["hash"]
    np.testing.assert_array_equal(load_tensors(adapted.out / "shots.safetensors")[0]["hashes"].numpy(), hashes)
    seen = seen_hashes(adapted.out)
    assert np.isin(hashes, seen).all()
    assert not np.isin(others, seen).any()


@pytest.mark.parametrize("when", ["in memory", "loaded"])
def test_the_tokenizer_is_the_base_s_bit_for_bit(adapted, base, when):
    model = adapted.model if when == "in memory" else load_model(adapted.out)
    frozen = model.generator("ar").frozen()
    assert {name.split(".")[1] for name in frozen} >= {"encoder", "decoder", "quantizer"}
    shipped = {f"tokenizer.{name}": t for name, t in load_half(base.path / "tokenizer.safetensors").items()}
    assert tensor_hash(frozen) == tensor_hash(shipped)
    assert tensor_hash(frozen) == adapted.metrics["generators"]["ar"]["frozen_hash"]


def test_the_seed_decides_the_result(tmp_path, sample, base):
    seeds = {"a": 5, "b": 5, "c": 6}
    both = {out: quick(base, seed=seed, generator="both") for out, seed in seeds.items()}
    results = {out: adapt(sample, tmp_path / out, settings) for out, settings in both.items()}
    rows = {out: result.metrics["shots"]["rows"] for out, result in results.items()}
    assert rows["a"] == rows["b"] != rows["c"]
    normalisers = [(tmp_path / out / "normaliser.safetensors").read_bytes() for out in seeds]
    assert normalisers[0] == normalisers[1] != normalisers[2]
    for name in GENERATORS:
        a, b, c = (tensor_hash(adapters(tmp_path / out, name)) for out in seeds)
        assert a == b
        assert a != c or results["c"].metrics["generators"][name]["best_step"] == 0


def test_side_by_side_gives_the_same_as_one_after_the_other(pblar, base):
    """With one normaliser for both: its fit may round otherwise where it has two cores for itself."""
    pool = ShowerPool(pblar[:20], zero_shot(base, pblar.detector).normaliser, pblar.detector)
    settings, results = quick(base, shots=20, steps=2), []
    for cores in (1, 2):
        generators = [base.generator(name) for name in GENERATORS]
        torch.set_num_threads(cores)
        try:
            records = side_by_side([partial(adapt_generator, each, pool, settings) for each in generators], "cpu")
        finally:
            torch.set_num_threads(1)
        losses = [record["held_back_loss"] for record in records]
        results.append((losses, [tensor_hash(generator.state_dict()) for generator in generators]))
    assert results[0] == results[1]


def test_no_steps_leave_the_generator_as_it_was(tmp_path, base):
    result = adapt("pblar", tmp_path / "x", quick(base, steps=0))
    assert (result.metrics["detector"], result.metrics["shots"]["number"]) == ("PbLAr", 30)
    run = result.metrics["generators"]["diffusion"]
    assert (run["steps"], run["best_step"]) == (0, 0)
    assert run["held_back_loss"]["before"] == run["held_back_loss"]["after"]
    shipped = base.generator("diffusion").adaptable()
    assert tensor_hash(adapters(tmp_path / "x")) == tensor_hash(shipped)
    assert "fidelity" not in result.metrics
    assert not (tmp_path / "x" / "profiles.png").exists()
    assert summary_table(result.metrics).row_count == 0


@pytest.mark.usefixtures("no_pictures")
def test_a_method(tmp_path, sample, base, pblar, command):
    method, out, config = "modulation", tmp_path / "model", tmp_path / "quick.toml"
    config.write_text('generator = "ar"\nbatch = 8\ncheck_every = 1\ncompared_showers = 20\n', encoding="utf-8")
    options = ("--base", base.path, "--shots", 30, "--steps", 2, "--config", config, "--method", method)
    ran = command("adapt", "--detector", sample, "--out", out, *options)
    assert (ran.code, ran.err) == (0, "")
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    run, generator = metrics["generators"]["ar"], base.generator("ar")
    assert metrics["settings"]["method"] == run["method"] == method
    moved = adapters(out, "ar")
    assert set(moved) == set(generator.subspace(method))
    trainable, total = (sum(t.numel() for t in tensors) for tensors in (moved.values(), generator.parameters()))
    assert run["parameters"] == {"trainable": trainable, "total": total, "share": trainable / total}
    assert re.search(rf"ar: [12] steps? in [\d.]+ s, {method}: {100 * trainable / total:.1f} % of its param", ran.out)
    loaded = load_model(out)
    assert loaded.method == method
    assert tensor_hash(loaded.generator("ar").frozen()) == tensor_hash(generator.frozen()) == run["frozen_hash"]

    conditions = ("--conditions", sample, "--showers", 4, "--generator", "ar")
    ran = command("generate", "--model", out, *conditions, "--out", tmp_path / "showers.h5")
    assert (ran.code, ran.err) == (0, "")
    with open_showers(tmp_path / "showers.h5") as file:
        np.testing.assert_array_equal(file.energy, pblar.energy[:4])


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.filterwarnings("default:.*states the cell sizes")
def test_a_detector_described_by_options(tmp_path, pblar, base, command):
    path, out = write_plain(tmp_path / "new.h5", raw(pblar[:40])), tmp_path / "model"
    message = ("--absorber", "Pb:2.0", "--active", "lAr:4.0")
    config = tmp_path / "quick.toml"
    config.write_text('generator = "diffusion"\ncompared_showers = 20\nsteps = 50\n', encoding="utf-8")
    options = ("--base", base.path, "--shots", 40, "--steps", 2, "--config", config, *message)
    ran = command("adapt", "--detector", path, "--out", out, *options)
    assert ran.code == 0
    assert ran.err.count("\n") == ran.err.count("states the cell sizes; dr_mm = 17.38 and dz_mm = 12 are taken") == 1
    assert "40 shots, base base-no-pblar" in ran.out
    assert "20 showers each against 20 of the shots" in ran.out
    assert f"model {out}" in ran.out
    detector = load_model(out).detector
    assert (detector.absorber, detector.active, detector.period_mm) == ("Pb", "lAr", 6.0)
    np.testing.assert_allclose(detector.descriptors(), pblar.detector.descriptors(), atol=0.02)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["settings"]["steps"] == 2
    assert metrics["command"].startswith(f"metacalo adapt --detector {path} ")
    for label, response in metrics["fidelity"]["response"].items():
        assert response["mean"] == pytest.approx(0.19, rel=0.1), f"{label}: not on the scale of the file"
    with pytest.raises(DetectorError, match=r"new\.h5: its detector is unknown; describe it by --absorber"):
        adapt(path, tmp_path / "y", quick(base))


def test_a_detector_described_by_a_toml(tmp_path, pblar, base, command, monkeypatch):
    path, out, description = write_plain(tmp_path / "new.h5", pblar[:30]), tmp_path / "model", tmp_path / "mine.toml"
    text = (data_folder("tasks") / "pblar" / "detector.toml").read_text(encoding="utf-8")
    description.write_text(text.replace('name = "PbLAr"', 'name = "mine"'), encoding="utf-8")
    config = tmp_path / "quick.toml"
    config.write_text('generator = "diffusion"\ncompared_showers = 0\n', encoding="utf-8")
    options = ("--base", base.path, "--shots", 20, "--steps", 1, "--config", config, "--description", description)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal, where there would be bars
    ran = command("adapt", "--detector", path, "--out", out, "--quiet", *options)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    detector = load_model(out).detector
    assert (detector.name, detector.layers, detector.grid) == ("mine", pblar.detector.layers, pblar.detector.grid)


def test_raw_deposits_are_generated_as_raw_deposits(tmp_path, pblar, base):
    path = write_plain(tmp_path / "raw.h5", raw(pblar))
    settings = quick(base, shots=60, generator="both")
    model = adapt(path, tmp_path / "model", settings, described=pblar.detector).model
    wanted = 0.19 * pblar.showers.sum((1, 2, 3)) / pblar.energy
    for name in GENERATORS:
        parts = model.generate(name, pblar.energy, pblar.theta, pblar.phi)
        generated = np.concatenate([part.showers for part in parts]).sum((1, 2, 3)) / pblar.energy
        assert generated.mean() == pytest.approx(wanted.mean(), rel=0.05)
