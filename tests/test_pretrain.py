from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metacalo.errors import ConfigError, ModelFolderError, OutputError, UnknownNameError
from metacalo.meta.outer_loop import OuterLoop
from metacalo.model_folders.base import Base, resolve_base, save_base
from metacalo.normaliser.condition_vector import encode_conditions
from metacalo.normaliser.longitudinal import fit_longitudinal
from metacalo.pretrain import PretrainSettings, pretrain
from metacalo.showers import data_folder, discover_tasks, write_showers
from metacalo.storage.checkpoint import load_json, tensor_hash
from metacalo.training_data.episodes import is_reserved
from metacalo.training_data.task_streams import pretraining_tasks, training_data
from tests.samples import shipped, write_task
from tests.small import seeded

pytestmark = pytest.mark.usefixtures("fits_are_remembered")

STAGE = {"steps": 54, "batch": 6, "warmup": 5}
SMALL = {
    "name": "small",
    "minutes_between_states": 0.0,
    "capacity": 45,  # less than the showers of a task: windows are part of the state
    "tokenizer": {"patch": (9, 16, 15), "width": 12, "blocks": 1, "quantizer": {"size": 8, "code_width": 4}},
    "prior": {"width": 12, "blocks": 1, "heads": 2, "rank": 1, "embedding": 2, "bins": 8},
    "diffusion": {"dit": {"patch": (9, 16, 15), "width": 12, "blocks": 1, "heads": 2, "rank": 1, "embedding": 2}},
    "train_tokenizer": STAGE,
    "train_ar": STAGE,
    "train_diffusion": STAGE,
    "meta": {"start": 0.96, "tasks": 2, "inner_steps": 1, "support": 2, "query": 2},
}


class StopHereError(Exception):
    pass


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sixty showers of SiW and of PbWO4 each."""
    folder = tmp_path_factory.mktemp("tasks")
    return write_task(write_task(folder, "siw", 60), "pbwo4", 60)


@pytest.fixture(scope="module")
def settings(tasks: Path) -> Callable[..., PretrainSettings]:
    def make(**changes: Any) -> PretrainSettings:
        return PretrainSettings.build({"tasks": (str(tasks),), **SMALL, **changes})

    return make


@pytest.fixture(scope="module")
def base(settings: Callable[..., PretrainSettings], tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base that was trained without interruption."""
    out = tmp_path_factory.mktemp("bases") / "small"
    assert pretrain(settings(), out, command="metacalo pretrain") == out
    return Base.load(out)


def test_the_folder_is_complete(base: Base, tasks: Path) -> None:
    names = {"config.json", "training.json", "provenance.json"} | {
        f"{stem}.safetensors" for stem in ("tokenizer", "ar", "diffusion", "hyperprior", "seen")
    }
    assert {file.name for file in base.path.iterdir()} == names
    assert list(base.path.parent.iterdir()) == [base.path]  # no work folder, no temporary files
    config = base.config
    assert (config.name, config.command, config.grid) == ("small", "metacalo pretrain", (9, 16, 45))
    assert config.pretrain == PretrainSettings.build({"tasks": (str(tasks),), **SMALL}).model_dump(mode="json")
    training = load_json(base.path / "training.json")
    assert {stage: len(record["losses"]) for stage, record in training.items()} == {
        "tokenizer": 1, "ar": 1, "diffusion": 1
    }  # fmt: skip
    assert all(1 <= value <= 8 for value in training["tokenizer"]["perplexity"])


def test_showers_that_were_trained_on_are_recorded(base: Base, tasks: Path) -> None:
    found = discover_tasks(tasks)
    hashes = {}
    for name, task in found.items():
        with task.open() as file:
            hashes[name] = file.hashes()
    kept = {name: values[~is_reserved(values, 10)] for name, values in hashes.items()}
    assert base.config.trained_on == {name: len(values) for name, values in kept.items()}
    assert base.seen.tolist() == sorted(np.concatenate(list(kept.values())).tolist())
    assert 0 < len(base.seen) < 120


def test_a_base_loads_to_the_same_weights_every_time(base: Base) -> None:
    again = Base.load(base.path)
    assert again.hash == base.hash
    assert resolve_base(base.path).hash == base.hash
    for name in ("ar", "diffusion"):
        first, second = base.generator(name), again.generator(name)
        assert tensor_hash(first.state_dict()) == tensor_hash(second.state_dict())
        assert not first.training
    assert not any(name.startswith("tokenizer") for name in base.weights["ar"])
    assert tensor_hash(base.generator("ar").frozen()) == tensor_hash(
        {f"tokenizer.{name}": tensor for name, tensor in base.weights["tokenizer"].items()}
    )


def test_the_hyperprior_and_its_copula_are_those_of_the_tasks(base: Base, tasks: Path) -> None:
    """As they were fitted, but for the half precision of the file; `training_data` fits them anew."""
    fitted = training_data(pretraining_tasks([tasks], ()), reserve_one_in=10, capacity=45, seed=1).hyperprior
    assert fitted.copula is not None
    assert base.hyperprior.copula is not None
    parts, read = fitted.copula.tensors(), base.hyperprior.copula.tensors()
    assert read.keys() == parts.keys()
    assert sum(name.startswith("copula.mode") for name in parts) > 0
    for name, tensor in parts.items():
        assert torch.equal(read[name], tensor.half().float()), name
    vector = torch.from_numpy(discover_tasks()["scipb"].detector.descriptors())
    ours, theirs = (hyperprior.predict(vector).tensors() for hyperprior in (base.hyperprior, fitted))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=0.02, rtol=0.01, msg=name)


def test_training_pools_lose_the_correlations_of_their_layers(tasks: Path) -> None:
    """Put back, they are those of the showers; nearly, since they are shrunk towards those of both tasks."""
    found = []
    for stream in training_data(pretraining_tasks([tasks], ()), reserve_one_in=10, capacity=60).streams:
        pool, rows = stream.draw_rows(1, seeded())[0], torch.arange(45)
        own, copula, x = pool.normaliser.longitudinal, pool.normaliser.copula, pool.encoded(rows).log_energy
        latents = copula.inverse(pool.batch(rows, seeded(), reflect=False).latents, x)
        again = fit_longitudinal(own.inverse(latents.structure(), x, copula), x, 46)
        row, column = np.triu_indices(46, 1)
        mine, theirs = (one.correlation[:, row, column].flatten() for one in (own, again))
        assert np.corrcoef(mine, theirs)[0, 1] > 0.5
        found.append(mine)
    assert not np.allclose(*found, atol=0.01)  # each task has others


def test_a_base_written_again_is_the_same(base: Base, tmp_path: Path) -> None:
    save_base(tmp_path, base.config, base.hyperprior, base.seen, base.weights)
    again = Base.load(tmp_path)
    assert again.hash == base.hash
    assert again.config == base.config
    assert again.seen.tolist() == base.seen.tolist()
    ours, theirs = (each.hyperprior.tensors() for each in (base, again))
    assert tensor_hash(ours) == tensor_hash(theirs)
    assert any(name.startswith("copula.") for name in ours)


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_its_generators_make_showers_of_a_detector_it_has_not_seen(base: Base, name: str) -> None:
    detector = discover_tasks()["scipb"].detector
    energy = np.array([2e3, 5e4])
    conditions = encode_conditions(energy, np.full(2, 1.3), np.zeros(2), detector.descriptors())
    latents = base.generator(name).sample(conditions, seeded())
    normaliser = base.hyperprior.predict(torch.from_numpy(detector.descriptors()))
    showers = normaliser.inverse(latents, torch.from_numpy(energy).float(), torch.full((2,), 1.3))
    assert showers.shape == (2, 9, 16, 45)
    assert torch.isfinite(showers).all()
    response = showers.sum((1, 2, 3)).numpy() / energy
    assert ((response > 0.5) & (response < 1.5)).all()


def interrupt(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    advance = OuterLoop._advance

    def stopping(self: OuterLoop) -> torch.Tensor:
        if (self.name, self.step) == (stage, step):
            raise StopHereError
        return advance(self)

    monkeypatch.setattr(OuterLoop, "_advance", stopping)


@pytest.mark.parametrize(("stage", "step"), [("tokenizer", 52), ("diffusion", 53)])
def test_a_resumed_run_gives_the_same_base(
    settings: Callable[..., PretrainSettings],
    base: Base,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    step: int,
) -> None:
    out = tmp_path / "small"
    with monkeypatch.context() as patch:
        interrupt(patch, stage, step)
        with pytest.raises(StopHereError):
            pretrain(settings(), out)
    assert not out.exists()
    with pytest.raises(OutputError, match="an unfinished run is here; give --resume"):
        pretrain(settings(), out)
    with pytest.raises(ConfigError, match="had other settings; resume with the same ones"):
        pretrain(settings(seed=2), out, resume=True)
    assert pretrain(settings(), out, resume=True) == out
    assert Base.load(out).hash == base.hash
    message, expected = (load_json(folder / "training.json")["diffusion"] for folder in (out, base.path))
    assert message["losses"] == expected["losses"]
    assert message["cost"].keys() == expected["cost"].keys()
    assert list(tmp_path.iterdir()) == [out]


def test_stages_one_by_one_give_the_same_base(
    settings: Callable[..., PretrainSettings], base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    with pytest.raises(ModelFolderError, match="the stage 'ar' needs a finished 'tokenizer'"):
        pretrain(settings(), out, stages=["ar"])
    assert pretrain(settings(), out, stages=["diffusion"]) is None
    assert pretrain(settings(), out, stages=["tokenizer"]) is None
    tokenizers: set[str] = set()
    advance = OuterLoop._advance

    def watched(self: OuterLoop) -> torch.Tensor:
        tokenizers.add(tensor_hash(self.model.tokenizer.state_dict()))
        return advance(self)

    monkeypatch.setattr(OuterLoop, "_advance", watched)
    assert pretrain(settings(), out, stages=["ar"]) == out
    assert Base.load(out).hash == base.hash
    assert tokenizers == {tensor_hash(base.weights["tokenizer"])}  # the prior learnt the codes that it will speak


def test_another_seed_gives_another_base_and_a_holdout_is_left_out(
    settings: Callable[..., PretrainSettings], base: Base, tmp_path: Path
) -> None:
    short = {"train_tokenizer": {"steps": 1}, "train_ar": {"steps": 0}, "train_diffusion": {"steps": 0}}
    one = pretrain(settings(holdout=("SiW",), **short), tmp_path / "one")
    two = pretrain(settings(holdout=("siw",), seed=2, **short), tmp_path / "two")
    assert one is not None
    assert two is not None
    assert set(Base.load(one).config.trained_on) == {"pbwo4"}
    assert Base.load(one).config.holdout == ("SiW",)
    assert Base.load(one).hash != Base.load(two).hash != base.hash


def test_going_on_from_a_base_takes_its_tokenizer_over(
    settings: Callable[..., PretrainSettings], base: Base, tmp_path: Path
) -> None:
    out = pretrain(
        settings(initial=str(base.path), train_ar={"steps": 0}, train_diffusion={"steps": 2}), tmp_path / "more"
    )
    assert out is not None
    more = Base.load(out)
    assert tensor_hash(more.weights["tokenizer"]) == tensor_hash(base.weights["tokenizer"])
    assert tensor_hash(more.weights["ar"]) == tensor_hash(base.weights["ar"])  # no step was taken
    assert tensor_hash(more.weights["diffusion"]) != tensor_hash(base.weights["diffusion"])


def test_going_on_from_a_base_takes_its_sizes_over(
    settings: Callable[..., PretrainSettings], base: Base, tmp_path: Path
) -> None:
    other = {"prior": {"width": 24}, "train_ar": {"steps": 1}, "train_diffusion": {"steps": 0}}
    out = pretrain(settings(initial=str(base.path), **other), tmp_path / "more")
    assert out is not None
    more = Base.load(out)
    assert more.config.prior == base.config.prior
    assert more.generator("ar").state_dict().keys() == base.generator("ar").state_dict().keys()


def test_going_on_with_showers_of_another_grid_is_refused(
    settings: Callable[..., PretrainSettings], base: Base, tmp_path: Path
) -> None:
    showers = shipped("siw", slice(0, 20))
    coarse = replace(showers, showers=np.ascontiguousarray(showers.showers[:, :, :, :15]), detector=None)
    write_showers(tmp_path / "tasks" / "coarse" / "showers.h5", coarse)
    detector = (data_folder("tasks") / "siw" / "detector.toml").read_text(encoding="utf-8")
    (tmp_path / "tasks" / "coarse" / "detector.toml").write_text(detector.replace("n_z = 45", "n_z = 15"))
    changed = settings(initial=str(base.path), tasks=(str(tmp_path / "tasks"),))
    with pytest.raises(ConfigError, match="base 'small' is for a grid"):
        pretrain(changed, tmp_path / "more")


def test_a_tokenizer_without_training_is_refused(settings: Callable[..., PretrainSettings], tmp_path: Path) -> None:
    """Its codebooks would be filled by the first batch that anyone encodes."""
    with pytest.raises(ConfigError, match=r"train_tokenizer.steps = 0 leaves the codebooks empty"):
        pretrain(settings(train_tokenizer={"steps": 0}), tmp_path / "x", stages=["tokenizer"])


def test_an_existing_base_is_not_touched_without_force(
    settings: Callable[..., PretrainSettings], base: Base, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    shutil.copytree(base.path, out)
    with pytest.raises(OutputError, match="exists already; give --force"):
        pretrain(settings(), out)
    assert list(tmp_path.iterdir()) == [out]
    short = {"train_tokenizer": {"steps": 1}, "train_ar": {"steps": 0}, "train_diffusion": {"steps": 0}}
    assert pretrain(settings(**short), out, force=True) == out
    assert Base.load(out).hash != base.hash


def test_a_run_that_could_not_start_is_not_in_the_way(
    settings: Callable[..., PretrainSettings], tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'siw'"):
        pretrain(settings(holdout=("siww",)), tmp_path / "x", stages=["tokenizer"])
    short = settings(holdout=("siw",), train_tokenizer={"steps": 1})
    assert pretrain(short, tmp_path / "x", stages=["tokenizer"]) is None


def test_all_tasks_held_out(settings: Callable[..., PretrainSettings], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no task is left to train on"):
        pretrain(settings(holdout=("siw", "pbwo4")), tmp_path / "x")


@pytest.mark.parametrize("device", ["tpu", "mps", "cuda:99", "cpu:x", ""])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ConfigError, match=r"'device' = .* is not valid: this machine has no such device; use 'cpu'$"):
        PretrainSettings.build({"device": device})


def test_a_damaged_base(base: Base, tmp_path: Path) -> None:
    for name in ("config.json", "ar.safetensors", "hyperprior.safetensors", "seen.safetensors"):
        copy = tmp_path / name
        shutil.copytree(base.path, copy)
        (copy / name).write_bytes((base.path / name).read_bytes()[:-40])
        with pytest.raises(ModelFolderError, match=name):
            Base.load(copy)
        (copy / name).unlink()
        with pytest.raises(ModelFolderError, match=f"{name}: missing"):
            Base.load(copy)
    with pytest.raises(ModelFolderError, match="there is no such base folder"):
        Base.load(tmp_path / "none")
    with pytest.raises(UnknownNameError, match="unknown base 'none'"):
        resolve_base("none")
