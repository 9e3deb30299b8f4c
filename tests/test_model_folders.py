"""The two kinds of model folder, written and read again: a base that was never trained, and a model adapted from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

import metacalo
from metacalo.adapt import AdaptSettings, adapted_model
from metacalo.adaptation.methods import Method
from metacalo.detectors.condition_range import TRAINED_ENERGY_MEV
from metacalo.errors import BaseMismatchError, ModelFolderError
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.diffusion import Diffusion, DiffusionSettings
from metacalo.generators.sampling_options import SamplingOptions
from metacalo.model_folders.adapted import ShowerModel, load_model, save_model, seen_hashes, zero_shot
from metacalo.model_folders.base import FORMAT, GENERATORS, Base, BaseConfig, build_generator, resolve_base, save_base
from metacalo.models.dit import DiTSettings
from metacalo.models.prior import PriorSettings, Sampling
from metacalo.models.quantizer import QuantizerSettings
from metacalo.models.vqvae import VQVAESettings
from metacalo.normaliser.condition_vector import condition_size
from metacalo.normaliser.fitting import fit_normaliser
from metacalo.normaliser.hyperprior import Hyperprior, fit_hyperprior
from metacalo.normaliser.longitudinal import Longitudinal
from metacalo.normaliser.spectrum import Spectrum
from metacalo.showers import DESCRIPTORS, Showers, data_folder, resolve_task
from metacalo.storage.checkpoint import load_tensors, save_tensors, tensor_hash
from tests.samples import shipped
from tests.small import disturb, draw_copula, draw_latents, seeded

GRID, PATCH = (9, 16, 45), (9, 16, 15)
SAMPLING = SamplingOptions(sampler="euler", steps=3, temperature=0.7, top_p=0.9)


def hyperprior() -> Hyperprior:
    """Of SiW and PbWO4, with correlations that are none of theirs."""
    tasks = [resolve_task(data_folder("tasks") / name) for name in ("siw", "pbwo4")]
    fitted = []
    for task in tasks:
        with task.open() as file:
            showers = file.load(slice(0, 40))
        fitted.append(fit_normaliser(showers.showers, showers.energy, showers.theta))
    descriptors = np.stack([task.detector.descriptors() for task in tasks])
    return fit_hyperprior(fitted, torch.from_numpy(descriptors), draw_copula(GRID))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """With generators as they are made, moved a little at random."""
    config = BaseConfig(
        name="untrained",
        version=metacalo.__version__,
        grid=GRID,
        condition_size=condition_size(len(DESCRIPTORS)),
        descriptors=DESCRIPTORS,
        energy_range_MeV=TRAINED_ENERGY_MEV,
        tokenizer=VQVAESettings(patch=PATCH, width=12, blocks=1, quantizer=QuantizerSettings(size=8, code_width=4)),
        prior=PriorSettings(width=12, blocks=1, rank=1, embedding=2, bins=16),
        diffusion=DiffusionSettings(dit=DiTSettings(patch=PATCH, width=12, blocks=1, rank=1, embedding=2), steps=2),
        generators=GENERATORS,
        trained_on={"siw": 3},
        holdout=(),
        pretrain={},
        command="",
    )
    torch.manual_seed(0)
    weights = {}
    for name in GENERATORS:
        generator = build_generator(name, config)
        if isinstance(generator, Autoregressive):
            # one pass in training mode fills the codebooks
            generator.tokenizer.train().loss(draw_latents(64, grid=GRID))
            weights["tokenizer"] = generator.tokenizer.state_dict()
        disturb(generator, by=0.05)
        frozen = generator.frozen()
        weights[name] = {key: tensor for key, tensor in generator.state_dict().items() if key not in frozen}
    folder = tmp_path_factory.mktemp("base")
    save_base(folder, config, hyperprior(), np.array([5, -7, 6]), weights)
    return Base.load(folder)


@pytest.fixture(scope="module")
def shots() -> Showers:
    """Thirty showers of PbLAr at all energies."""
    return shipped("pblar", slice(0, 3000, 100))


@pytest.fixture(scope="module")
def adapted(base: Base, shots: Showers) -> ShowerModel:
    """Both generators adapted, and then moved at random wherever adaptation may move them."""
    settings = AdaptSettings(shots=len(shots), steps=3, batch=8, check_every=1, sampling=SAMPLING)
    model, _ = adapted_model(zero_shot(base, shots.detector), shots, settings)
    for generator in model.generators.values():
        with torch.no_grad():
            for seed, parameter in enumerate(generator.adaptable().values()):
                parameter += 0.01 * torch.randn(parameter.shape, generator=seeded(seed))
    return model


@pytest.fixture(scope="module")
def folder(adapted: ShowerModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapted model, written."""
    path = tmp_path_factory.mktemp("model")
    save_model(path, adapted, {}, metacalo.__version__, "")
    return path


def generated(model: ShowerModel, name: str, like: Showers) -> np.ndarray:
    parts = model.generate(name, like.energy[:7], like.theta[:7], like.phi[:7], seed=4, batch_size=3)
    return np.concatenate([part.showers for part in parts])


@pytest.mark.parametrize("name", GENERATORS)
def test_an_adapted_model_read_back_makes_the_same_showers_bit_for_bit(
    adapted: ShowerModel, folder: Path, base: Base, shots: Showers, name: str
) -> None:
    loaded = load_model(folder, base=base.path)
    ours, theirs, before = (
        generated(model, name, shots) for model in (adapted, loaded, zero_shot(base, shots.detector))
    )
    np.testing.assert_array_equal(theirs, ours)
    assert (ours != before).any((1, 2, 3)).all()
    assert np.isfinite(ours).all()
    assert ours.sum((1, 2, 3)).min() > 0


def test_options_that_are_not_given_are_as_the_folder_says(folder: Path, base: Base) -> None:
    loaded = load_model(folder, base=base.path)
    diffusion, ar = loaded.generator("diffusion"), loaded.generator("ar")
    assert isinstance(diffusion, Diffusion)
    assert isinstance(ar, Autoregressive)
    for options, wanted in (
        ({}, ("euler", 3, Sampling(temperature=0.7, top_p=0.9))),
        ({"steps": 5, "top_k": 4, "temperature": 1.0}, ("euler", 5, Sampling(top_k=4, top_p=0.9))),
        ({"sampler": "heun", "top_p": 1.0}, ("heun", 5, Sampling(top_k=4))),
    ):
        for generator in (diffusion, ar):
            SamplingOptions(**options).choose(generator)
        assert (diffusion.sampler, diffusion.steps, ar.sampling) == wanted


def test_an_adapted_model_read_back_has_the_same_normaliser(
    adapted: ShowerModel, folder: Path, base: Base, shots: Showers
) -> None:
    loaded = load_model(folder, base=base.path)
    assert tensor_hash(loaded.normaliser.tensors()) == tensor_hash(adapted.normaliser.tensors())
    for model in (adapted, loaded):  # the correlations are the base's and are not written again
        assert tensor_hash(model.normaliser.copula.tensors()) == tensor_hash(base.hyperprior.copula.tensors())
    assert not any("copula" in name for name in adapted.normaliser.tensors())
    before = zero_shot(base, shots.detector).normaliser
    for ours, known in zip(
        (adapted.normaliser.longitudinal.correlation, adapted.normaliser.spectrum.offset),
        (before.longitudinal.correlation, before.spectrum.offset),
        strict=True,
    ):  # the detector's own, and written
        assert (ours - known).abs().max() > 0.01
    assert loaded.detector == adapted.detector == shots.detector
    assert np.sort(loaded.shots).tolist() == np.sort(shots.hashes()).tolist()
    assert set(seen_hashes(folder, base=base.path)) == {*shots.hashes(), 5, -7, 6}


@pytest.fixture(params=get_args(Method))
def moved(request: pytest.FixtureRequest, adapted: ShowerModel) -> ShowerModel:
    """With generators that differ from the base's wherever a method moves them, by what half precision cannot hold."""
    generators = {name: adapted.base.generator(name) for name in GENERATORS}
    for generator in generators.values():
        with torch.no_grad():
            for seed, parameter in enumerate(generator.subspace(request.param).values()):
                parameter += 0.01 * torch.randn(parameter.shape, generator=seeded(seed))
    return replace(adapted, generators=generators, method=request.param)


def test_all_that_moved_is_written_and_nothing_else(moved: ShowerModel, base: Base, tmp_path: Path) -> None:
    save_model(tmp_path, moved, {}, metacalo.__version__, "")
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["method"] == moved.method
    loaded = load_model(tmp_path, base=base.path)
    assert loaded.method == moved.method
    for name, generator in moved.generators.items():
        before, after = base.generator(name).state_dict(), generator.state_dict()
        differ = {key for key in before if not torch.equal(before[key], after[key])}
        written = load_tensors(tmp_path / f"adapters-{name}.safetensors")[0]
        assert set(written) == differ == set(generator.subspace(moved.method))
        assert {tensor.dtype for tensor in written.values()} == {torch.float32}
        assert tensor_hash(loaded.generator(name).state_dict()) == tensor_hash(after)
        assert tensor_hash(loaded.generator(name).frozen()) == tensor_hash(base.generator(name).frozen())


def test_a_method_is_written_with_the_model_that_it_made(base: Base, shots: Showers, tmp_path: Path) -> None:
    settings = AdaptSettings(
        shots=len(shots), generator="ar", method="full", steps=2, batch=8, check_every=1, learning_rate=1e-2
    )
    model, runs = adapted_model(zero_shot(base, shots.detector), shots, settings)
    save_model(tmp_path, model, {}, metacalo.__version__, "")
    loaded = load_model(tmp_path, base=base.path)
    assert (loaded.method, runs["ar"]["best_step"]) == ("full", 2)
    assert tensor_hash(loaded.generator("ar").state_dict()) == tensor_hash(model.generator("ar").state_dict())
    np.testing.assert_array_equal(generated(loaded, "ar", shots), generated(model, "ar", shots))


def test_a_folder_of_before_there_were_methods(base: Base, shots: Showers, tmp_path: Path) -> None:
    settings = AdaptSettings(shots=len(shots), method="adapters", steps=1, batch=8)
    adapted, _ = adapted_model(zero_shot(base, shots.detector), shots, settings)
    save_model(tmp_path, adapted, {}, metacalo.__version__, "")
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del values["method"]
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    loaded = load_model(tmp_path, base=base.path)
    assert loaded.method == "adapters"
    for name in GENERATORS:
        assert tensor_hash(loaded.generator(name).state_dict()) == tensor_hash(adapted.generator(name).state_dict())


MISFITS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (
        lambda tensors: tensors.pop("dit.embedding"),
        "no tensor 'dit.embedding', which method 'conditioning+bias' moves; adapt again",
    ),
    "left over": (
        lambda tensors: tensors.update({"dit.read.weight": torch.ones(2, 2)}),
        "method 'conditioning+bias' does not move tensor 'dit.read.weight'; adapt again",
    ),
    "shape": (
        lambda tensors: tensors.update({"dit.embedding": torch.ones(3)}),
        "tensor 'dit.embedding' has shape (3,), the base's (2,); adapt again",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_tensors_that_the_method_does_not_move(folder: Path, base: Base, tmp_path: Path, misfit: str) -> None:
    spoil, sentence = MISFITS[misfit]
    spoilt = Path(shutil.copytree(folder, tmp_path / "spoilt"))
    path = spoilt / "adapters-diffusion.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_tensors(path)[0].items()}
    spoil(tensors)
    save_tensors(path, tensors)
    with pytest.raises(ModelFolderError) as message:
        load_model(spoilt, base=base.path)
    assert str(message.value) == f"{path}: {sentence}"


def test_correlations_and_theta_shape_the_showers(adapted: ShowerModel, shots: Showers) -> None:
    showers = generated(adapted, "diffusion", shots)
    bare = replace(adapted, normaliser=replace(adapted.normaliser, copula=None))
    uncorrelated = Longitudinal.none(1 + GRID[2])
    loose = replace(adapted, normaliser=replace(adapted.normaliser, longitudinal=uncorrelated))
    blurred = replace(adapted, normaliser=replace(adapted.normaliser, spectrum=Spectrum.none(GRID[0])))
    slanted = replace(shots, theta=shots.theta * 0 + 1.0)
    for other in (
        *(generated(model, "diffusion", shots) for model in (bare, loose, blurred)),
        generated(adapted, "diffusion", slanted),
    ):
        assert (other != showers).any((1, 2, 3)).all()


def test_a_base_with_other_correlations_is_another_base(folder: Path, base: Base, tmp_path: Path) -> None:
    other = replace(base.hyperprior.copula, modes=base.hyperprior.copula.modes[:1])
    save_base(tmp_path, base.config, replace(base.hyperprior, copula=other), base.seen, base.weights)
    changed = Base.load(tmp_path)
    assert len(changed.hyperprior.copula.modes) == 1
    assert changed.hash != base.hash
    with pytest.raises(BaseMismatchError, match=f"with hash {base.hash[:12]}, but {tmp_path} has {changed.hash[:12]}"):
        load_model(folder, base=tmp_path)


def test_a_base_without_correlations_can_be_written(base: Base, tmp_path: Path) -> None:
    save_base(tmp_path, base.config, replace(base.hyperprior, copula=None), base.seen, base.weights)
    assert Base.load(tmp_path).hyperprior.copula is None


READERS: dict[str, Callable[[Path, Path], object]] = {
    "base": lambda base, _: Base.load(base),
    "base by its path": lambda base, _: resolve_base(base),
    "base at zero shots": lambda base, _: load_model(base),
    "showers a base has seen": lambda base, _: seen_hashes(base),
    "model": lambda base, model: load_model(model, base=base),
    "showers a model has seen": lambda base, model: seen_hashes(model, base=base),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("written", "words"),
    [
        (FORMAT - 1, rf"was written by an older metacalo \(format {FORMAT - 1}\); pretrain or adapt again$"),
        (FORMAT + 1, rf"has format {FORMAT + 1}, this metacalo reads {FORMAT}; use the version that made it$"),
        (None, rf"has format None, this metacalo reads {FORMAT}; use the version that made it$"),
    ],
)
def test_a_folder_of_another_format(
    base: Base, folder: Path, tmp_path: Path, reader: str, written: int | None, words: str
) -> None:
    """It is refused before any other key, which may have another meaning by then."""
    paths = [Path(shutil.copytree(path, tmp_path / path.name)) for path in (base.path, folder)]
    spoilt = paths[1] if "model" in reader else paths[0]
    values = json.loads((spoilt / "config.json").read_text(encoding="utf-8"))
    assert values["format"] == FORMAT
    (spoilt / "config.json").write_text(json.dumps(values | {"format": written, "unknown": 1}), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=f"^{spoilt}: {words}"):
        READERS[reader](*paths)
