"""The published CaloDiT as a preset: a recipe, a base of its own kind, and every command with it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from metacalo.adapt import AdaptSettings, adapt
from metacalo.cli import main
from metacalo.errors import ConfigError, UnknownNameError
from metacalo.evaluate import EvaluateSettings, evaluate_files
from metacalo.generate import GenerateSettings, generate
from metacalo.generators.diffusion import CALODIT, Diffusion
from metacalo.model_folders.adapted import load_model, zero_shot
from metacalo.model_folders.base import Base
from metacalo.normaliser.latents import Latents
from metacalo.normaliser.log_normaliser import LogNormaliser
from metacalo.pretrain import PretrainSettings
from metacalo.pretraining.presets import PRESETS, resolve_recipe
from metacalo.showers import discover_tasks, open_showers
from tests.samples import write_task
from tests.small import CONDITIONS, seeded

TINY = """
[diffusion]
prediction = "v" # three steps of training are nothing, and then this one is sane
steps = 3
[diffusion.dit]
patch = [9, 16, 15]
width = 12
blocks = 1
heads = 2
rank = 1
embedding = 2
[train_diffusion]
steps = 3
batch = 6
"""


def test_calodit_is_the_published_configuration() -> None:
    settings = resolve_recipe("calodit", name="calodit")
    assert settings.name == "calodit"
    assert settings.diffusion == CALODIT
    dit = settings.diffusion.dit
    assert (dit.patch, dit.width, dit.heads, dit.blocks, dit.modulation) == ((3, 2, 3), 144, 8, 4, "per-block")
    assert (settings.diffusion.sampler, settings.diffusion.steps, settings.diffusion.schedule) == (
        "ddpm",
        400,
        "cosine",
    )
    assert settings.diffusion.prediction == "noise"
    assert (settings.stages, settings.preprocessing, settings.meta.start) == (("diffusion",), "log", 1.0)


def test_a_file_is_laid_over_a_preset_table_by_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TINY, encoding="utf-8")
    settings = resolve_recipe("calodit", path, seed=5, holdout=None)
    assert settings.diffusion.dit.width == 12
    assert settings.diffusion.dit.modulation == "per-block"  # of the preset
    assert settings.diffusion.sampler == "ddpm"
    assert (settings.train_diffusion.steps, settings.train_diffusion.learning_rate) == (3, 1e-3)
    assert (settings.seed, settings.holdout) == (5, ())
    assert resolve_recipe(None, path).diffusion.sampler == "heun"
    assert PRESETS["calodit"]["diffusion"]["dit"]["width"] == 144  # as it was


def test_mistakes_are_reported(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown preset 'calodt' \(known: calodit, tiny\); did you mean 'calodit'\?"
    ):
        resolve_recipe("calodt")
    path = tmp_path / "mine.toml"
    path.write_text("[diffusion]\nsampler = 'heun'\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.toml: .*prediction = 'noise' says nothing of the data"):
        resolve_recipe("calodit", path)


def test_parts_without_weight_do_not_exist_for_the_network() -> None:
    torch.manual_seed(0)
    model = Diffusion(CALODIT, (3, 2, 3), CONDITIONS)
    torch.nn.init.normal_(model.dit.write.weight, std=0.1)
    latents, other = (Latents.noise(2, (3, 2, 3), seeded(seed)) for seed in (1, 2))
    mixed = Latents(*other.components()[:4], latents.cells)
    time, conditions = torch.full((2,), 0.4), torch.zeros(2, CONDITIONS)
    ours, theirs = (model.denoise(given, time, conditions) for given in (latents, mixed))
    assert torch.equal(ours.cells, theirs.cells)
    assert ours.cells.abs().max() > 0.01
    assert not ours.structure().any()


def test_estimates_of_the_data_are_clipped() -> None:
    """An untrained network takes all of its input for data, over and over."""
    torch.manual_seed(0)
    conditions = torch.zeros(5, CONDITIONS)
    largest = []
    for settings in (CALODIT, CALODIT.model_copy(update={"clip": None})):
        model = Diffusion(settings, (3, 2, 3), CONDITIONS)
        model.choose(steps=20)
        largest.append(float(model.sample(conditions, seeded()).cells.abs().max()))
    assert largest[0] <= 6.0 + 1e-4
    assert largest[1] > 20


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sixty showers of SiW as a task."""
    folder = write_task(tmp_path_factory.mktemp("tasks"), "siw", 60)
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base(sample: Path) -> Base:
    """What `metacalo pretrain --preset calodit` writes, of a tiny network."""
    out = sample / "calodit"
    message = [
        "pretrain",
        "--preset",
        "calodit",
        "--config",
        sample / "tiny.toml",
        "--tasks",
        sample,
        "--name",
        "calodit",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["metacalo", *map(str, message), "--out", str(out)])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return Base.load(out)


def test_its_base_has_a_diffusion_generator_and_the_usual_preprocessing(base: Base, sample: Path) -> None:
    stems = {"diffusion", "hyperprior", "seen"}
    assert {file.stem for file in base.path.glob("*.safetensors")} == stems
    assert (base.config.generators, base.config.preprocessing) == (("diffusion",), "log")
    assert base.config.pretrain == PretrainSettings.build(base.config.pretrain).model_dump(mode="json")
    model = zero_shot(base, discover_tasks(sample)["siw"].detector)
    assert isinstance(model.normaliser, LogNormaliser)
    assert set(model.generators) == {"diffusion"}


@pytest.mark.usefixtures("no_pictures")
def test_every_command_works_with_it(base: Base, sample: Path, tmp_path: Path) -> None:
    settings = AdaptSettings(
        base=str(base.path), shots=30, generator="diffusion", steps=2, check_every=1, compared_showers=20
    )
    result = adapt(sample / "siw", tmp_path / "model", settings)
    assert set(result.metrics["generators"]) == {"diffusion"}
    again = load_model(tmp_path / "model", base=base.path)
    assert again.normaliser == result.model.normaliser
    assert isinstance(again.normaliser, LogNormaliser)
    wanted = GenerateSettings(conditions=str(sample / "siw" / "showers.h5"), showers=25)
    made = generate(tmp_path / "model", tmp_path / "made.h5", wanted, base=base.path)
    with open_showers(made) as file:
        showers = file.load()
    assert np.isfinite(showers.showers).all()
    hit = showers.showers[showers.showers > 0]
    assert len(hit)
    assert hit.min() >= again.normaliser.threshold
    metrics = evaluate_files(
        made,
        sample / "siw" / "showers.h5",
        tmp_path / "judged",
        settings=EvaluateSettings(classifiers=False, pages=False),
    )
    (found,) = metrics["samples"].values()
    assert np.isfinite(found["mean_w1"]["value"])


def test_what_it_lacks_is_reported(base: Base, sample: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown generator 'ar' \(known: diffusion\)"):
        adapt(sample / "siw", tmp_path / "model", AdaptSettings(base=str(base.path), shots=30, generator="ar"))
    detector = discover_tasks(sample)["siw"].detector
    with pytest.raises(ConfigError, match=r"^sampling: sampler = 'shortcut' needs a distilled network"):
        generate(base.path, tmp_path / "x.h5", GenerateSettings(sampler="shortcut"), detector=detector)
