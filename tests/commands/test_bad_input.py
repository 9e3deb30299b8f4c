"""Every mistake a user can make is one sentence on stderr and exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from metacalo.model_folders.adapted import ShowerModel
from metacalo.storage.checkpoint import load_tensors, save_tensors
from tests.samples import write_plain

SHOTS = 30


@pytest.fixture
def refused(refused, tmp_path):
    """With an output."""
    return lambda *arguments, out=tmp_path / "out": refused(*arguments, "--out", out)


@pytest.fixture
def bad_file(tmp_path, pblar):
    """A file of 30 showers of PbLAr, for a test to spoil."""
    return write_plain(tmp_path / "bad.h5", pblar[:SHOTS])


@pytest.fixture
def model(tmp_path, adapted) -> Path:
    """A copy of the adapted model, for a test to spoil."""
    return Path(shutil.copytree(adapted.out, tmp_path / "model"))


def adapt_to(path: object, base) -> tuple[object, ...]:
    message = ("--absorber", "Pb:2.0", "--active", "lAr:4.0")
    return ("adapt", "--detector", path, "--base", base.path, "--shots", SHOTS, "--steps", 1, *message)


def put(path: Path, name: str, values: np.ndarray | None) -> None:
    with h5py.File(path, "a") as file:
        del file[name]
        if values is not None:
            file[name] = values


def spoil_voxel(value: float):
    def spoil(path: Path) -> None:
        with h5py.File(path, "a") as file:
            file["showers"][7, 1, 2, 3] = value

    return spoil


SPOILT = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-5000]), "the file is truncated"),
    "no hdf5": (lambda path: path.write_text("showers"), "not an HDF5 file"),
    "empty": (lambda path: path.write_bytes(b""), "not an HDF5 file"),
    "no energies": (lambda path: put(path, "incident_energy", None), "dataset 'incident_energy' is missing"),
    "no showers dataset": (lambda path: put(path, "showers", None), "not a shower file: found 'incident_energy'"),
    "6481 voxels": (lambda path: put(path, "showers", np.zeros((SHOTS, 6481), "f4")), "6481 voxels per row"),
    "44 layers": (
        lambda path: put(path, "showers", np.ones((SHOTS, 9, 16, 44), "f4")),
        "has a mesh of 9 x 16 x 44 cells, base 'base-no-pblar' was trained on 9 x 16 x 45",
    ),
    "nan": (spoil_voxel(np.nan), "'showers' row 7 has a voxel of nan MeV"),
    "infinite": (spoil_voxel(np.inf), "'showers' row 7 has a voxel of inf MeV"),
    "negative": (spoil_voxel(-2.5), "'showers' row 7 has a voxel of -2.5 MeV"),
    "no rows": (lambda path: put(path, "showers", np.zeros((0, 9, 16, 45), "f4")), "'showers' holds no showers"),
    "all empty": (
        lambda path: put(path, "showers", np.zeros((SHOTS, 9, 16, 45), "f4")),
        "every shower given to fit the normaliser is empty",
    ),
    "zero energy": (
        lambda path: put(path, "incident_energy", np.zeros(SHOTS, "f4")),
        "'incident_energy' row 0 is 0; an energy above 0 MeV is needed",
    ),
}


@pytest.mark.parametrize("mistake", SPOILT)
@pytest.mark.filterwarnings("ignore:.*(neither the file nor the description|without a deposit):UserWarning")
def test_adapt_refuses_spoilt_files(refused, bad_file, base, mistake):
    spoil, words = SPOILT[mistake]
    spoil(bad_file)
    sentence = refused(*adapt_to(bad_file, base))
    assert words in sentence
    if mistake not in {"44 layers", "all empty"}:
        assert str(bad_file) in sentence


@pytest.mark.filterwarnings("ignore:.*neither the file nor the description:UserWarning")
def test_fewer_showers_than_shots(refused, bad_file, base):
    sentence = refused(*adapt_to(bad_file, base), "--shots", 31)
    assert f"{bad_file}: holds 30 showers, --shots 31 wants more; ask for at most 30" in sentence


@pytest.mark.parametrize("mistake", ["truncated", "no hdf5", "no energies"])
def test_generate_refuses_spoilt_conditions(refused, bad_file, adapted, mistake):
    spoil, words = SPOILT[mistake]
    spoil(bad_file)
    sentence = refused("generate", "--model", adapted.out, "--conditions", bad_file)
    assert words in sentence
    assert str(bad_file) in sentence


@pytest.mark.parametrize("which", ["generated", "reference"])
@pytest.mark.parametrize("mistake", ["truncated", "no energies", "nan"])
def test_evaluate_refuses_spoilt_files(refused, bad_file, sample, mistake, which):
    spoil, words = SPOILT[mistake]
    spoil(bad_file)
    files = {"--generated": sample, "--reference": sample, f"--{which}": bad_file}
    sentence = refused("evaluate", *(part for item in files.items() for part in item), "--no-classifiers")
    assert words in sentence
    assert str(bad_file) in sentence


def test_missing_files_have_a_near_match(refused, bad_file, adapted, base):
    typed = bad_file.with_name("bat.h5")
    for arguments in (
        ("generate", "--model", adapted.out, "--conditions", typed),
        ("evaluate", "--generated", typed, "--reference", bad_file),
        adapt_to(typed, base),
    ):
        assert f"{typed}: there is no such file; did you mean 'bad.h5'?" in refused(*arguments)


ADAPT = ("adapt", "--detector", "pblar", "--base", "base-no-pblar", "--shots", SHOTS, "--steps", 1)
UNUSABLE_OPTIONS = {
    "base": ((*ADAPT, "--base", "base-no-pblr"), "unknown base 'base-no-pblr' (", "did you mean 'base-no-pblar'?"),
    "task": ((*ADAPT, "--detector", "pblr"), "unknown task 'pblr' (", "did you mean 'pblar'?"),
    "adapt generator": ((*ADAPT, "--generator", "difusion"), "--generator = 'difusion'", "did you mean 'diffusion'?"),
    "method": ((*ADAPT, "--method", "ful"), "--method = 'ful' is not valid", "did you mean 'full'?"),
    "no shots": ((*ADAPT, "--shots", 0), "--shots = 0 is not valid"),
    "negative steps": ((*ADAPT, "--steps", -1), "--steps = -1 is not valid"),
    "adapt seed": ((*ADAPT, "--seed", -1), "--seed = -1 is not valid"),
    "adapt device": ((*ADAPT, "--device", "gpu"), "--device = 'gpu' is not valid", "use 'cpu'"),
    "absorber alone": ((*ADAPT, "--absorber", "Pb:2"), "--absorber Pb:2 alone", "give --active too"),
    "material": ((*ADAPT, "--active", "PbWO3:9"), "unknown material 'PbWO3'", "did you mean 'PbWO4'?"),
    "thickness": ((*ADAPT, "--active", "lAr"), "'lAr'"),
    "description": ((*ADAPT, "--description", "no.toml"), "no.toml: there is no such detector file"),
    "base for model": (("generate", "--model", "base-no-pblar"), "base-no-pblar is a base; say for which detector"),
    "detector of a base": (("generate", "--model", "base-no-pblar", "--detector", "siww"), "did you mean 'siw'?"),
    "model": (("generate", "--model", "no/such/model"), "no/such/model: there is no such model folder"),
}


@pytest.mark.parametrize("mistake", UNUSABLE_OPTIONS)
def test_unusable_options(refused, mistake):
    arguments, *words = UNUSABLE_OPTIONS[mistake]
    sentence = refused(*arguments)
    for word in words:
        assert word in sentence


UNUSABLE_WISHES = {
    "zero energy": (("--energy", 0), "--energy 0:"),
    "negative energy": (("--energy", -5), "--energy -5:"),
    "range from zero": (("--energy", "0:100"), "--energy 0:100:"),
    "energy in words": (("--energy", "abc"), "--energy = 'abc'", "neither a number nor a range such as 1:100"),
    "endless energy": (("--energy", "inf"), "--energy = 'inf'"),
    "reversed range": (("--energy", "100:1"), "--energy = '100:1'"),
    "beyond use": (("--energy", "1e30"), "--energy 1e30:"),
    "theta in degrees": (("--theta", 90), "--theta 90:", "(degrees?)"),
    "phi in degrees": (("--phi", "0:360"), "--phi 0:360:", "(degrees?)"),
    "no showers": (("--showers", 0), "--showers = 0 is not valid"),
    "generator": (("--generator", "difusion"), "--generator = 'difusion'", "did you mean 'diffusion'?"),
    "format": (("--format", "root"), "--format = 'root'", "'par04' or 'calochallenge'"),
    "batch": (("--batch-size", 0), "--batch-size = 0 is not valid"),
    "seed": (("--seed", -1), "--seed = -1 is not valid"),
    "large seed": (("--seed", 10**22), "--seed = "),
    "device": (("--device", "gpu"), "--device = 'gpu' is not valid", "use 'cpu'"),
    "unseen of nothing": (("--unseen-by", "base-no-pblar"), "give --conditions too"),
    "another base": (("--base", "no/such/base"), "no/such/base: there is no such"),
}


@pytest.mark.parametrize("mistake", UNUSABLE_WISHES)
def test_wishes_that_cannot_be_met(refused, adapted, mistake):
    options, *words = UNUSABLE_WISHES[mistake]
    sentence = refused("generate", "--model", adapted.out, "--showers", 2, *options)
    for word in words:
        assert word in sentence


def test_more_showers_than_conditions(refused, adapted, sample):
    message = ("generate", "--model", adapted.out, "--conditions", sample)
    assert f"{sample}: has 120 rows, --showers 121 wants more" in refused(*message, "--showers", 121)
    unseen = ("--unseen-by", adapted.out, "--showers", 61)
    assert f"{sample}: has 60 unseen rows, --showers 61 wants more" in refused(*message, *unseen)


def test_a_reference_of_shots_alone(refused, adapted, pblar, sample, tmp_path):
    shots = write_plain(tmp_path / "shots.h5", pblar[np.array(adapted.metrics["shots"]["rows"])])
    sentence = refused("evaluate", "--generated", sample, "--reference", shots, "--unseen-by", adapted.out)
    assert f"{shots}: every shower was used for the adaptation" in sentence


def all_commands(adapted, sample) -> dict[str, tuple[object, ...]]:
    return {
        "adapt": ADAPT,
        "generate": ("generate", "--model", adapted.out, "--showers", 1),
        "evaluate": ("evaluate", "--generated", sample, "--reference", sample, "--no-classifiers"),
    }


@pytest.mark.parametrize("verb", ["adapt", "generate", "evaluate"])
def test_output_below_a_file(refused, adapted, sample, tmp_path, verb):
    (tmp_path / "file").write_text("mine")
    arguments = all_commands(adapted, sample)[verb]
    for out in (tmp_path / "file" / "out", tmp_path / "file" / "deeper" / "out"):
        sentence = refused(*arguments, "--force", out=out)
        assert f"{out}: cannot be written" in sentence


@pytest.mark.parametrize("verb", ["adapt", "generate", "evaluate"])
@pytest.mark.parametrize("there", ["file", "folder"])
def test_an_existing_result_is_kept(refused, adapted, sample, tmp_path, verb, there):
    out = tmp_path / "mine"
    (out / "figures" if there == "folder" else tmp_path).mkdir(parents=True, exist_ok=True)
    (out / "figures" / "a.txt" if there == "folder" else out).write_text("mine")
    sentence = refused(*all_commands(adapted, sample)[verb], out=out)
    assert f"{out}: exists already; give --force to replace it or another --out" in sentence


def test_a_folder_is_not_replaced_by_a_file(refused, adapted, sample, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    sentence = refused(*all_commands(adapted, sample)["generate"], "--force", out=tmp_path / "mine")
    assert f"{tmp_path / 'mine'}: cannot be written" in sentence


PARTS = ("adapters-ar", "adapters-diffusion", "normaliser", "shots")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_model_that_is_cut_missing_or_another(refused, model, part):
    path, other = model / f"{part}.safetensors", "shots" if part != "shots" else "normaliser"
    path.write_bytes(path.read_bytes()[:-40])
    assert f"{path}: not a readable safetensors file" in refused("generate", "--model", model, "--showers", 1)
    path.write_bytes((model / f"{other}.safetensors").read_bytes())
    assert str(path) in refused("generate", "--model", model, "--showers", 1)
    path.unlink()
    assert f"{path}: missing" in refused("generate", "--model", model, "--showers", 1)


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_weights_that_are_not_finite(refused, model, name):
    path = model / f"adapters-{name}.safetensors"
    save_tensors(path, {key: tensor * float("nan") for key, tensor in load_tensors(path)[0].items()})
    sentence = refused("generate", "--model", model, "--generator", name, "--showers", 2, "--batch-size", 1)
    assert str(model) in sentence


def test_a_failure_half_way_leaves_nothing(refused, adapted, monkeypatch):
    whole = ShowerModel.batches

    def spoilt_at_the_end(self, *arguments, **options):
        parts = list(whole(self, *arguments, **options))
        yield from parts[:-1]
        yield replace(parts[-1], showers=parts[-1].showers * np.float32(np.nan))

    monkeypatch.setattr(ShowerModel, "batches", spoilt_at_the_end)
    sentence = refused("generate", "--model", adapted.out, "--showers", 3, "--batch-size", 1)
    assert "non-finite" in sentence


CONFIGS = {
    "kind": ({"kind": "sweep"}, "is a folder of kind 'sweep'"),
    "base": ({"base": "gone"}, "unknown base 'gone'", "--base"),
    "hash": ({"base_hash": "0123456789abcdef"}, "with hash 0123456789ab, but", "give the right one with --base"),
    "key": ({"generator": ["ar"]}, "config.json: unknown key 'generator'; did you mean 'generators'?"),
    "type": ({"grid": "large"}, "config.json: 'grid' = 'large' is not valid"),
    "method": ({"method": "ful"}, "config.json: 'method' = 'ful' is not valid", "did you mean 'full'?"),
    "not asked for": ({"generators": ["ar"]}, "unknown generator 'diffusion' (known: ar)"),
}


@pytest.mark.parametrize("mistake", CONFIGS)
def test_a_config_that_is_not_right(refused, model, mistake):
    changes, *words = CONFIGS[mistake]
    values = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(values | changes), encoding="utf-8")
    sentence = refused("generate", "--model", model, "--showers", 1)
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "{}"])
def test_a_config_that_is_no_config(refused, model, text):
    (model / "config.json").write_text(text)
    assert str(model) in refused("generate", "--model", model, "--showers", 1)


def test_a_folder_that_is_no_model(refused, tmp_path):
    assert f"{tmp_path}" in refused("generate", "--model", tmp_path, "--showers", 1)


def test_the_model_of_another_base(refused, model, base, tmp_path):
    other = Path(shutil.copytree(base.path, tmp_path / "base"))
    shutil.copy(model / "adapters-ar.safetensors", other / "ar.safetensors")
    sentence = refused("generate", "--model", model, "--base", other, "--showers", 1)
    assert f"{model}: was adapted from base 'base-no-pblar' with hash {base.hash[:12]}, but {other} has " in sentence


TOMLS = {
    "key": ("shotz = 5\n", "unknown key 'shotz'; did you mean 'shots'?"),
    "table": ("[adapt]\nsteps = 5\n", "unknown key 'adapt'"),
}


@pytest.mark.parametrize("mistake", TOMLS)
def test_settings_files_that_are_not_right(refused, tmp_path, mistake):
    text, words = TOMLS[mistake]
    config = tmp_path / "settings.toml"
    config.write_text(text, encoding="utf-8")
    sentence = refused(*ADAPT[:5], "--config", config)
    assert f"metacalo: {config}: " in sentence
    assert words in sentence


def test_a_settings_file_that_is_not_there(refused, tmp_path):
    config = tmp_path / "settings.toml"
    for verb in (("generate", "--model", "x"), ADAPT, ("evaluate", "--generated", "x", "--reference", "y")):
        assert f"{config}: there is no such settings file" in refused(*verb, "--config", config)


def test_unknown_tasks_and_folders(command, tmp_path):
    ran = command("tasks", "family/Pb-LAr4")
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(r"metacalo: unknown task 'family/Pb-LAr4' .*did you mean 'family/Pb-LAr-\d4'\?\n", ran.err)
    ran = command("tasks", "--tasks", tmp_path / "none")
    assert (ran.code, ran.err) == (2, f"metacalo: {tmp_path / 'none'}: there is no such folder of tasks\n")


def test_a_process_of_its_own_says_the_same(process, tmp_path):
    out = tmp_path / "out.h5"
    ran = process("generate", "--model", tmp_path / "none", "--out", out)
    assert (ran.code, ran.out, out.exists()) == (2, "", False)
    assert re.fullmatch(r"metacalo: .*none.*\n", ran.err)
