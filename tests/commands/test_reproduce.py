"""Results say where they come from, and come out the same when they are made again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import pytest

from metacalo.errors import ModelFolderError
from metacalo.reproduction.reproduce import reproduce
from metacalo.storage.checkpoint import load_json, load_tensors, save_json, save_tensors, tensor_hash
from metacalo.storage.provenance import FILE, load_provenance, provenance, shown_path
from tests.commands.conftest import BASE


@pytest.fixture
def made(command, sample, tmp_path) -> Path:
    """A model of two steps of one generator on a file that lies beside it."""
    shutil.copy(sample, tmp_path / "new.h5")
    message = ("--base", BASE, "--shots", 20, "--generator", "diffusion", "--steps", 2)
    settings = tmp_path / "quick.toml"
    settings.write_text("compared_showers = 0\n", encoding="utf-8")
    out = tmp_path / "model"
    ran = command("adapt", "--detector", tmp_path / "new.h5", *message, "--config", settings, "--out", out, "--quiet")
    assert ran.code == 0, ran.err
    return out


def test_a_model_is_made_again_bit_for_bit(command, made, tmp_path):
    ran = command("reproduce", made)
    assert ran.code == 0, ran.out + ran.err
    assert ran.out.endswith("made again, bit for bit\n")
    assert " no " not in ran.out
    message = load_provenance(made)
    assert message["function"] == "adapt"
    assert message["command"].startswith("metacalo adapt --detector ")
    assert message["inputs"]["detector"]["name"] == "new.h5"
    assert len(message["inputs"]["detector"]["sha256"]) == 64
    assert {"torch", "numpy", "h5py", "python", "processor", "threads"} <= set(message["environment"])
    # a weight that is another one, and an input that has moved
    weights, _ = load_tensors(made / "adapters-diffusion.safetensors")
    save_tensors(made / "adapters-diffusion.safetensors", {name: tensor + 1e-6 for name, tensor in weights.items()})
    moved = tmp_path / "elsewhere" / "new.h5"
    moved.parent.mkdir()
    (tmp_path / "new.h5").rename(moved)
    ran = command("reproduce", made)
    assert ran.code == 2
    assert "its input 'detector'" in ran.err
    assert ran.err.endswith("is not there; say where it lies by --detector\n")
    ran = command("reproduce", made, "--detector", moved)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.endswith("comes out different\n")
    # as older versions left it
    (made / FILE).unlink()
    ran = command("reproduce", made)
    assert ran.code == 2
    assert "so that the path and the hash of its shower file are not known; say where the file lies" in ran.err
    found = reproduce(made, detector=str(moved))
    assert {part.what for part in found.parts if not part.same} == {"adapters-diffusion.safetensors"}


def test_showers_evaluations_and_conversions_are_made_again(command, made, sample, tmp_path):
    showers, flat, judged = tmp_path / "showers.h5", tmp_path / "flat.h5", tmp_path / "judged"
    for arguments in (
        ("generate", "--model", made, "--conditions", sample, "--showers", 30, "--out", showers, "--quiet"),
        ("convert", showers, "--format", "calochallenge", "--out", flat, "--quiet"),
        ("evaluate", "--generated", showers, "--reference", sample, "--no-classifiers", "--no-pages", "--out", judged),
    ):
        assert command(*arguments).code == 0
    again = ("generate", "--model", made, "--conditions", sample, "--showers", 30, "--out", showers, "--force")
    contents = [showers.read_bytes() for _ in range(2) if command(*again).code == 0]
    assert contents[0] == contents[1]
    for result, function in ((showers, "generate"), (flat, "convert"), (judged, "evaluate")):
        assert load_provenance(result)["function"] == function
        ran = command("reproduce", result)
        assert ran.code == 0, ran.out + ran.err
    with h5py.File(showers, "a") as file:
        file["showers"][3, 4, 5, 6] += 1
    found = reproduce(showers)
    assert [part.what for part in found.parts if not part.same] == ["showers"]
    assert "input" in next(part.what for part in reproduce(flat).parts if not part.same)


def test_what_is_no_result_is_reported(tmp_path, sample):
    with pytest.raises(ModelFolderError, match="there is no such result"):
        reproduce(tmp_path / "nothing")
    with pytest.raises(ModelFolderError, match="has no provenance"):
        reproduce(sample)
    save_json(tmp_path / FILE, {"function": "os.system", "settings": {}})
    with pytest.raises(ModelFolderError, match=r"names no function of metacalo \('os.system'\)"):
        reproduce(tmp_path)
    parts = {key: {} for key in ("settings", "arguments", "inputs", "environment")}
    save_json(tmp_path / FILE, {"function": "adapt", **parts})
    with pytest.raises(ModelFolderError, match="its provenance is not complete"):
        reproduce(tmp_path)


def test_the_same_run_leaves_the_same_provenance_and_no_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "someone"))
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "someone" / "data" / "x.h5") == "someone/data/x.h5"
    monkeypatch.chdir("/")
    assert shown_path(tmp_path / "someone" / "data" / "x.h5") in {
        "~/data/x.h5",
        str(tmp_path)[1:] + "/someone/data/x.h5",
    }
    assert shown_path("data/x.h5") == "data/x.h5"
    message = [provenance("adapt", "c", settings={"b": 1, "a": 2}, arguments={}, inputs={}) for _ in range(2)]
    assert json.dumps(message[0]) == json.dumps(message[1])


def test_a_base_has_a_hash_that_its_provenance_does_not_change(base, tmp_path):
    weights = {path.name: tensor_hash(load_tensors(path)[0]) for path in base.path.glob("*.safetensors")}
    folder = Path(shutil.copytree(base.path, tmp_path / "base"))
    save_json(folder / FILE, {"function": "pretrain"})
    assert type(base).load(folder).hash == base.hash
    assert weights
    assert load_json(folder / FILE)["function"] == "pretrain"
