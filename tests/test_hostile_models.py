"""Model folders of strangers: no name leads out of them, and no number in them is believed before it is checked."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import pytest
import torch

import metacalo
from metacalo.adapt import AdaptSettings, adapt
from metacalo.errors import MetacaloError, ModelFolderError
from metacalo.generators.frozen import FrozenLibrary
from metacalo.model_folders.adapted import load_model
from metacalo.model_folders.base import Base, resolve_base
from metacalo.showers import data_folder, open_showers, write_showers
from metacalo.storage.checkpoint import load_json, load_tensors, save_tensors

BASE = "base-no-pblar"


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> Path:
    """A library and no generator, which takes no time."""
    folder = tmp_path_factory.mktemp("adapted")
    with open_showers(data_folder("tasks") / "pblar" / "showers.h5") as file:
        write_showers(folder / "sample.h5", file.load(slice(0, 1200, 40)))
    settings = AdaptSettings(base=BASE, shots=20, generator="frozen", compared_showers=0)
    return adapt(folder / "sample.h5", folder / "model", settings, quiet=True).out


def copy_of(source: Path, folder: Path) -> Path:
    """A folder with links to the files of another, for a test to replace some."""
    folder.mkdir()
    for path in source.iterdir():
        if path.is_file():
            (folder / path.name).symlink_to(path)
    return folder


def change(path: Path, **values: object) -> None:
    content = {**load_json(path), **values}
    path.unlink()
    path.write_text(json.dumps(content), encoding="utf-8")


def replace(path: Path, **tensors: torch.Tensor) -> None:
    content = {**load_tensors(path)[0], **tensors}
    path.unlink()
    save_tensors(path, content)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generators": ["../../x"]}, "'generators.0' = '../../x' is not valid"),
        ({"libraries": ["../frozen"]}, "'libraries.0' = '../frozen' is not valid"),
        ({"base": "../../etc"}, "'base' = '../../etc' is not valid"),
        ({"base": "/etc"}, "'base' = '/etc' is not valid"),
        ({"grid": [10**9, 16, 45]}, "'grid.0' = 1000000000 is not valid"),
        ({"detector": {}}, "describes no detector"),
        ({"sampling": {"steps": 10**9}}, "'sampling.steps' = 1000000000 is not valid"),
        ({"sampling": {"sampler": "../heun"}}, "'sampling.sampler' = '../heun' is not valid"),
    ],
)
def test_names_and_numbers_of_an_adapted_model(adapted, tmp_path, changes, words):
    folder = copy_of(adapted, tmp_path / "model")
    change(folder / "config.json", **changes)
    with pytest.raises(MetacaloError, match=words.replace("[", r"\[")):
        load_model(folder)


@pytest.mark.parametrize(
    ("part", "sizes", "words"),
    [
        ("prior", {"width": 4096, "blocks": 256}, r"does not fit its config.json \(tensor"),
        ("prior", {"width": 10**9}, "'prior.width' = 1000000000 is not valid"),
        ("tokenizer", {"patch": [0, 1, 1]}, "patch size 0 along r does not divide"),
        ("tokenizer", {"patch": [1, 1, 1], "width": 4096}, "does not fit its config.json"),
    ],
)
def test_sizes_are_compared_before_a_network_takes_memory(tmp_path, part, sizes, words):
    folder = copy_of(resolve_base(BASE).path, tmp_path / "base")
    config = load_json(folder / "config.json")
    change(folder / "config.json", **{part: {**config[part], **sizes}})
    with pytest.raises(MetacaloError, match=words):
        Base.load(folder).generator("ar")


def test_a_hyperprior_that_does_not_fit_is_reported(tmp_path):
    folder = copy_of(resolve_base(BASE).path, tmp_path / "base")
    replace(folder / "hyperprior.safetensors", **{"rings.knots": torch.zeros(0)})
    with open_showers(data_folder("tasks") / "pblar" / "showers.h5") as file:
        detector = file.detector
    with pytest.raises(ModelFolderError, match=r"hyperprior.safetensors: does not fit its config.json"):
        load_model(folder, detector=detector)


def test_a_normaliser_of_other_shapes_is_reported(adapted, tmp_path):
    folder = copy_of(adapted, tmp_path / "model")
    replace(folder / "normaliser.safetensors", **{"energy_dependence.mean": torch.zeros(3)})
    with pytest.raises(ModelFolderError, match=r"tensor 'energy_dependence.mean' is \(3,\)"):
        load_model(folder)


@pytest.mark.parametrize("hashes", [torch.zeros(3), torch.zeros(3, 3, dtype=torch.int64)])
def test_hashes_are_whole_numbers(adapted, tmp_path, hashes):
    folder = copy_of(adapted, tmp_path / "model")
    replace(folder / "shots.safetensors", hashes=hashes)
    with pytest.raises(ModelFolderError, match="no tensor 'hashes' of whole numbers"):
        load_model(folder)


@pytest.mark.parametrize("shape", [(2**20, 9, 16, 45), (-1, 9, 16, 45), (1, 1), (0, 9, 16, 45)])
def test_a_library_takes_no_more_memory_than_its_bits_stand_for(adapted, shape):
    tensors = load_tensors(adapted / "frozen.safetensors")[0]
    with pytest.raises(ValueError, match="do not fit together"):
        FrozenLibrary.from_tensors({**tensors, "shape": torch.tensor(shape)})


def test_files_of_a_model_are_regular_and_bounded(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(ModelFolderError, match="missing"):
        load_tensors(tmp_path / "pipe.safetensors")
    with (tmp_path / "large.safetensors").open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ModelFolderError, match=r"at most 1,073,741,824 are read"):
        load_tensors(tmp_path / "large.safetensors")
    save_tensors(tmp_path / "odd.safetensors", {"x": torch.zeros(3, dtype=torch.float8_e4m3fn)})
    with pytest.raises(ModelFolderError, match=r"has type torch\.float8_e4m3fn"):
        load_tensors(tmp_path / "odd.safetensors")


def test_nothing_that_can_run_code_is_ever_read():
    """No pickle: torch.load, pickle, joblib and numpy files with objects do not occur."""
    root = Path(metacalo.__path__[0])
    forbidden = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}
    for path in [*root.rglob("*.py"), *(root.parent / "benchmarks").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & forbidden, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in forbidden, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"torch.load", "eval", "exec", "yaml.load", "os.system"}, f"{path}: {called}"
                if called.endswith(("np.load", "numpy.load")):
                    message = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    assert message.get("allow_pickle") == "False", path


def test_a_model_with_a_thousand_generators_is_refused(adapted: Path, tmp_path: Path) -> None:
    folder = copy_of(adapted, tmp_path / "model")
    change(folder / "config.json", generators=1000 * ["ar", "diffusion"])
    with pytest.raises(
        MetacaloError, match=r"'generators' = .* is not valid: Tuple should have at most 2 items"
    ) as message:
        load_model(folder)
    assert len(str(message.value)) < 500
