"""Distillation as a stage of pretraining, and the stages that a recipe has."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metacalo.errors import ConfigError, MissingExtraError, ModelFolderError, UnknownNameError
from metacalo.generators.diffusion import Diffusion
from metacalo.meta.outer_loop import OuterLoop
from metacalo.model_folders.base import Base, load_half
from metacalo.models import transformer
from metacalo.pretrain import PretrainSettings, pretrain
from metacalo.storage.checkpoint import load_json
from tests.samples import write_task
from tests.small import seeded

pytestmark = pytest.mark.usefixtures("fits_are_remembered")

SMALL = {
    "name": "small",
    "minutes_between_states": 0.0,
    "generators": ("diffusion",),
    "diffusion": {"dit": {"patch": (9, 16, 15), "width": 12, "blocks": 1, "heads": 2, "rank": 1, "embedding": 2}},
    "train_diffusion": {"steps": 4, "batch": 6, "warmup": 1},
    "distil": {"steps": 54, "batch": 6, "warmup": 2, "sampler_steps": 2},
}
Make = Callable[..., PretrainSettings]


class StopHereError(Exception):
    pass


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Settings with changes; their only task has thirty showers."""
    folder = write_task(tmp_path_factory.mktemp("tasks"), "siw", 30)
    return lambda **changes: PretrainSettings.build({"tasks": (str(folder),), **SMALL, **changes})


@pytest.fixture(scope="module")
def plain(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A base that was not distilled."""
    out = tmp_path_factory.mktemp("plain") / "small"
    assert pretrain(make(distil={}), out) == out
    return Base.load(out)


@pytest.fixture(scope="module")
def base(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A distilled base."""
    out = tmp_path_factory.mktemp("distilled") / "small"
    assert pretrain(make(), out) == out
    return Base.load(out)


def test_a_distilled_base_has_one_network_that_knows_steps(base: Base, plain: Base) -> None:
    names = {
        "config.json",
        "training.json",
        "provenance.json",
        *(f"{s}.safetensors" for s in ("diffusion", "hyperprior", "seen")),
    }
    assert {file.name for file in base.path.iterdir()} == names
    settings = base.config.diffusion
    assert (settings.dit.shortcuts, settings.sampler, settings.steps) == (True, "shortcut", 2)
    assert set(base.weights["diffusion"]) - set(plain.weights["diffusion"]) == {"dit.step.weight"}
    assert base.weights["diffusion"]["dit.step.weight"].abs().max() > 0
    assert {stage: len(record["losses"]) for stage, record in load_json(base.path / "training.json").items()} == {
        "diffusion": 0, "distil": 1
    }  # fmt: skip
    assert plain.config.diffusion == PretrainSettings.build({"diffusion": SMALL["diffusion"]}).diffusion


def test_it_is_sampled_in_as_many_evaluations_as_steps(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    model = base.generator("diffusion")
    assert isinstance(model, Diffusion)
    seen = []
    denoise = model.dit.forward
    monkeypatch.setattr(model.dit, "forward", lambda *given: seen.append(given[-1]) or denoise(*given))
    conditions = torch.zeros(3, base.config.condition_size)
    for steps in (2, 1, 8):
        seen.clear()
        model.choose(steps=steps)
        latents = model.sample(conditions, seeded())
        assert all(part.isfinite().all() for part in latents.components())
        assert [given.tolist() for given in seen] == [[1 / steps] * 3] * steps


def test_a_resumed_distillation_gives_the_same_base(
    make: Make, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    advance = OuterLoop._advance

    def stopping(self: OuterLoop) -> torch.Tensor:
        if (self.name, self.step) == ("distil", 52):
            raise StopHereError
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(OuterLoop, "_advance", stopping)
        with pytest.raises(StopHereError):
            pretrain(make(), out)
    assert (tmp_path / "small.work" / "distil.state").exists()
    assert pretrain(make(), out, resume=True) == out
    assert Base.load(out).hash == base.hash
    assert list(tmp_path.iterdir()) == [out]


def test_only_plain_steps_of_training_are_compiled(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither steps over episodes nor what is done with the base; what comes out is the same."""
    runs: list[int] = []
    monkeypatch.setattr(transformer, "_compiled_run", lambda: runs.append(1) or transformer._run)
    tokenizer = {"patch": (9, 16, 15), "width": 12, "blocks": 1, "quantizer": {"size": 8, "code_width": 4}}
    sizes = {
        "generators": ("ar", "diffusion"),
        "tokenizer": tokenizer,
        "prior": {"width": 12, "blocks": 1, "heads": 2, "rank": 1, "embedding": 2, "bins": 8},
        "train_tokenizer": {"steps": 3, "batch": 6},
        "train_ar": {"steps": 4, "batch": 6},
        "distil": {},
        "meta": {"start": 0.5, "tasks": 1, "inner_steps": 1, "support": 2, "query": 2},
    }
    plain, compiled = (pretrain(make(compile=value, **sizes), tmp_path / str(value)) for value in (False, True))
    # encoder and decoder of the tokenizer, its encoder and the prior, the denoiser; half the steps of the last two
    assert len(runs) == 3 * 2 + 2 * 2 + 2
    assert plain is not None
    assert compiled is not None
    base = Base.load(compiled)
    assert base.hash == Base.load(plain).hash
    for name in ("ar", "diffusion"):
        base.generator(name).sample(torch.zeros(2, base.config.condition_size), seeded())
    assert len(runs) == 12


META = {"start": 0.5, "tasks": 1, "inner_steps": 1, "support": 2, "query": 2, "windows": 0.5}


def test_a_base_carries_the_rates_that_were_learned(make: Make, plain: Base, tmp_path: Path) -> None:
    out = pretrain(make(distil={}, meta={"algorithm": "meta-sgd", **META}), tmp_path / "small")
    assert out is not None
    assert (out / "diffusion-rates.safetensors").exists()
    base = Base.load(out)
    assert base.config.learned_rates == ("diffusion",)
    rates = base.rates("diffusion")
    adaptable = base.generator("diffusion").subspace("adapters")
    assert {name: rate.shape for name, rate in rates.items()} == {name: p.shape for name, p in adaptable.items()}
    assert all((rate > 0).all() for rate in rates.values())
    assert any((rate - 0.02).abs().max() > 1e-5 for rate in rates.values())
    assert plain.rates("diffusion") == {}
    (out / "diffusion-rates.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=r"diffusion-rates\.safetensors: missing"):
        Base.load(out)


def test_the_context_of_a_cavia_base_is_zero(make: Make, tmp_path: Path) -> None:
    """Through mixed batches, episodes and distillation, whatever base it goes on from."""
    changes = {"distil": {**SMALL["distil"], "steps": 2}, "meta": {"algorithm": "cavia", **META}}
    out = pretrain(make(**changes), tmp_path / "small")
    assert out is not None
    (context,) = Base.load(out).generator("diffusion").subspace("context").values()
    assert context.tolist() == [0, 0]


def test_an_engine_that_is_not_installed_is_reported_before_long_work(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metacalo.meta.engines.learn2learn_engine.find_spec", lambda _: None)
    monkeypatch.delitem(sys.modules, "learn2learn.algorithms", raising=False)
    with pytest.raises(MissingExtraError, match="needs learn2learn"):
        pretrain(make(meta={"engine": "learn2learn"}), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_distilling_a_finished_base_gives_the_same(make: Make, base: Base, plain: Base, tmp_path: Path) -> None:
    settings = make(initial=str(plain.path), train_diffusion={"steps": 0})
    with pytest.raises(ModelFolderError, match="the stage 'distil' needs a finished 'diffusion'; run that stage first"):
        pretrain(settings, tmp_path / "x", stages=["distil"])
    assert pretrain(settings, tmp_path / "x", stages=["diffusion"]) is None
    left = load_half(tmp_path / "x.work" / "diffusion.safetensors")
    assert all(torch.equal(left[name], tensor) for name, tensor in plain.weights["diffusion"].items())
    out = pretrain(settings, tmp_path / "x", stages=["distil"], resume=True)
    assert out is not None
    assert Base.load(out).hash == base.hash


def test_training_that_would_leave_shortcuts_behind_is_refused(make: Make, base: Base, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has shortcuts, which would lead where old weights led; set distil\.steps"):
        pretrain(make(initial=str(base.path), distil={}), tmp_path / "x")
    message = {"dit": {**SMALL["diffusion"]["dit"], "shortcuts": True}}
    with pytest.raises(ConfigError, match=r"diffusion\.dit\.shortcuts would lead where old weights led"):
        pretrain(make(diffusion=message, distil={}), tmp_path / "x")
    out = pretrain(make(initial=str(base.path), train_diffusion={"steps": 0}, distil={}), tmp_path / "same")
    assert out is not None
    assert Base.load(out).config.diffusion == base.config.diffusion
    assert Base.load(out).hash == base.hash


def test_what_an_initial_base_lacks_is_reported(make: Make, base: Base, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown generator of base 'small' 'ar' \(known: diffusion\)"):
        pretrain(make(initial=str(base.path), generators=("ar", "diffusion")), tmp_path / "x")


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({}, ("tokenizer", "ar", "diffusion")),
        ({"distil": {"steps": 5}}, ("tokenizer", "ar", "diffusion", "distil")),
        ({"generators": ("diffusion",)}, ("diffusion",)),
        ({"generators": ("ar",)}, ("tokenizer", "ar")),
    ],
)
def test_the_stages_of_a_recipe(changes: dict[str, Any], stages: tuple[str, ...]) -> None:
    assert PretrainSettings.build(changes).stages == stages


def test_a_stage_that_is_not_in_the_recipe(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown stage 'distil' \(known: diffusion\)"):
        pretrain(make(distil={}), tmp_path / "x", stages=["distil"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"generators": ("ar",), "distil": {"steps": 5}}, "distil.steps is for the generator 'diffusion'"),
        ({"generators": ()}, "'generators' = .* is not valid"),
        ({"distil": {"sampler_steps": 3}}, r"'distil.sampler_steps' = 3 is not valid"),
        ({"compile": True}, "compile = true needs a C\\+\\+ compiler, and none was found; install g"),
        ({"preprocessing": "log"}, "preprocessing = 'log' has no energies for the generator 'ar'"),
        ({"meta": {"algorithm": "anil", "subspace": "bias"}}, "algorithm = 'anil': the inner loop .* moves .*'head'"),
        ({"meta": {"algorithm": "cavea"}}, "'meta.algorithm' = 'cavea' is not valid: .*did you mean 'cavia'"),
        ({"meta": {"engine": "highr"}}, "'meta.engine' = 'highr' is not valid: .*did you mean 'higher'"),
    ],
)
def test_recipes_that_cannot_be(changes: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)  # a machine without a compiler
    with pytest.raises(ConfigError, match=sentence):
        PretrainSettings.build(changes)


def test_only_a_network_that_predicts_v_is_distilled(make: Make, tmp_path: Path) -> None:
    diffusion = {**SMALL["diffusion"], "prediction": "data"}
    with pytest.raises(ConfigError, match="distil: the network predicts data, not v; leave the stage out"):
        pretrain(make(diffusion=diffusion), tmp_path / "x")
