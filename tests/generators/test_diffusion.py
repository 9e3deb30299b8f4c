from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from scipy.stats import kstest

from metacalo.errors import ConfigError
from metacalo.generators.base import Batch
from metacalo.generators.diffusion import CALODIT, Diffusion, DiffusionSettings, LossWeights
from metacalo.generators.samplers import SamplerName
from metacalo.generators.schedules import draw_angles
from metacalo.normaliser.latents import Latents
from tests.small import (
    CONDITIONS,
    GRID,
    disturb,
    draw_batch,
    draw_latents,
    seeded,
    small_diffusion,
    take_steps,
)

PREDICTIONS = ("v", "data", "noise")
PARTS = ("total", "layers", "rings", "hits", "cells")


@pytest.mark.parametrize("angle", [0.02, 0.3, 0.8, 1.3, 1.55])
def test_predictions_of_data_and_of_noise_give_the_same_velocity(angle: float) -> None:
    data, noise = torch.randn(2, 50, generator=seeded())
    x = math.sin(angle) * data + math.cos(angle) * noise
    v = math.cos(angle) * data - math.sin(angle) * noise
    for prediction, predicted in zip(PREDICTIONS, (v, data, noise), strict=True):
        model = small_diffusion(prediction=prediction)
        torch.testing.assert_close(model._velocity(x, predicted, angle), v, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["ddim", "euler", "heun", "ab2"])
def test_noise_cannot_be_predicted_for_deterministic_samplers(sampler: str) -> None:
    """At the first angle v = (x - noise) / sin(a), so that any error of the network explodes."""
    with pytest.raises(ConfigError, match=r"prediction = 'noise' .* use sampler = 'ddpm'"):
        DiffusionSettings.build({"prediction": "noise", "sampler": sampler})
    assert DiffusionSettings.build({"prediction": "noise", "sampler": "ddpm"}).prediction == "noise"


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("angle", [0.0, math.pi / 2])
def test_the_velocity_is_finite_at_the_ends(prediction: str, angle: float) -> None:
    x = torch.randn(50, generator=seeded())
    assert small_diffusion(prediction=prediction)._velocity(x, torch.zeros(50), angle).abs().max() < 1e3


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0, 1.0, 1.0), (0.0, 0.5, 2.5, 0.0, 0.1)])
def test_the_loss_of_an_untrained_model_by_hand(schedule: str, prediction: str, weights: tuple[float, ...]) -> None:
    """Its prediction is zero, so that the loss is the weighted mean square of the parts of the target."""
    named = LossWeights(**dict(zip(PARTS, weights, strict=True)))
    model = small_diffusion(schedule=schedule, prediction=prediction, weights=named)
    batch, generator = draw_batch(4), seeded(8)
    angle = draw_angles(schedule, 4, generator)
    noises = Latents.noise(4, GRID, generator)
    expected = torch.zeros(())
    for weight, data, noise in zip(weights, batch.latents.components(), noises.components(), strict=True):
        a = angle.reshape(-1, *[1] * (data.dim() - 1))
        target = {"v": a.cos() * data - a.sin() * noise, "data": data, "noise": noise}[prediction]
        expected = expected + weight * target.square().mean()
    torch.testing.assert_close(model.loss(batch, seeded(8)), expected)


def test_every_part_of_the_latents_has_a_weight() -> None:
    assert PARTS == tuple(LossWeights.model_fields) == tuple(field.name for field in fields(Latents))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_weight_does_not_change_the_loss(part: str) -> None:
    """Neither as what is predicted nor as what the network sees."""
    batch = draw_batch(4)
    changed = replace(batch.latents, **{part: getattr(batch.latents, part) + 1})
    for weight in (0.0, 0.5):
        model = small_diffusion(weights=LossWeights(**{part: weight}))
        disturb(model)
        losses = [model.loss(Batch(latents, batch.conditions), seeded()) for latents in (batch.latents, changed)]
        assert torch.equal(*losses) == (weight == 0)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_without_weight_does_not_exist_for_the_network(part: str) -> None:
    others = {name: 0.5 for name in PARTS if name != part}
    model = small_diffusion(weights=LossWeights(**{part: 0.0}, **others)).train()
    assert set(model.dit.patching.components) == set(others)
    assert model.dit.read.in_features == model.dit.write.out_features == model.dit.patching.token_size
    disturb(model)
    predicted = model.denoise(draw_latents(4), torch.full((4,), 0.5), draw_batch(4).conditions)
    assert {name for name in PARTS if (getattr(predicted, name) != 0).any()} == set(others)
    model.loss(draw_batch(4), seeded()).backward()
    assert (model.dit.write.bias.grad != 0).all()


def test_by_default_the_network_sees_all_but_the_cells() -> None:
    """Two times the rings, the layers, and the total."""
    dit = Diffusion(DiffusionSettings(), (9, 16, 45), CONDITIONS).dit
    assert dit.read.in_features == dit.write.out_features == 2 * 9 + 1 + 1


def samplings() -> list[dict[str, Any]]:
    deterministic = [{"sampler": name, "steps": 4} for name in ("ddim", "euler", "heun", "ab2")]
    shortcut = {"sampler": "shortcut", "steps": 2, "dit": {"shortcuts": True}}
    noise = {"sampler": "ddpm", "steps": 5, "prediction": "noise", "clip": 3.0}
    return [*deterministic, shortcut, {"sampler": "ddpm", "steps": 3}, noise, {"prediction": "data", "steps": 3}]


@pytest.mark.parametrize("settings", samplings(), ids=str)
def test_a_part_without_weight_is_sampled_as_independent_normals(settings: dict[str, Any]) -> None:
    model = small_diffusion(**settings)
    disturb(model)
    drawn = model.sample(draw_batch(40).conditions, seeded(3))
    assert torch.equal(drawn.cells, Latents.noise(40, GRID, seeded(3)).cells)
    assert kstest(drawn.cells.flatten().numpy(), "norm").pvalue > 0.01
    assert not torch.equal(drawn.rings, Latents.noise(40, GRID, seeded(3)).rings)


def test_a_weight_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'weights.hits' = -1 is not valid"):
        DiffusionSettings.build({"weights": {"hits": -1}})
    with pytest.raises(ConfigError, match="no component has a weight, so that nothing would be learnt"):
        DiffusionSettings.build({"weights": dict.fromkeys(PARTS, 0)})
    with pytest.raises(ConfigError, match=r"unknown key 'weights.cell'; did you mean 'cells'\?"):
        DiffusionSettings.build({"weights": {"cell": 1}})


@pytest.mark.parametrize("sampler", ["euler", "heun", "ab2"])
def test_an_untrained_velocity_samples_independent_normals(sampler: SamplerName) -> None:
    model = small_diffusion(sampler=sampler, steps=3)
    latents = model.sample(draw_batch(40).conditions, seeded(3))
    assert torch.equal(latents.flat(), Latents.noise(40, GRID, seeded(3)).flat())


def test_sampler_and_steps_can_be_chosen() -> None:
    model = small_diffusion()
    disturb(model)
    conditions = draw_batch(2).conditions
    reference = model.sample(conditions, seeded()).flat()
    model.steps = 3
    fewer = model.sample(conditions, seeded()).flat()
    model.sampler = "ddpm"
    drawn = model.sample(conditions, seeded()).flat()
    assert not torch.equal(reference, fewer)
    assert not torch.equal(fewer, drawn)


def test_correlations_of_cells_are_learnt() -> None:
    """The cells of a layer share half of their variance, so that the mean of a layer has a variance above one half."""
    only_cells = LossWeights(total=0, layers=0, rings=0, hits=0, cells=1)
    model, conditions = small_diffusion(weights=only_cells), torch.zeros(300, CONDITIONS)
    before = model.sample(conditions, seeded()).cells
    model.train()
    optimizer = torch.optim.Adam(model.trainable().values(), lr=5e-3)
    for step in range(300):
        optimizer.zero_grad()
        model.loss(Batch(draw_latents(48, seed=step), conditions[:48]), seeded(step)).backward()
        optimizer.step()
    after = model.eval().sample(conditions, seeded()).cells
    data = draw_latents(300).cells
    for cells, shared in ((before, 1 / 12), (data, 0.5 + 0.5 / 12), (after, 0.5 + 0.5 / 12)):
        assert float(cells.mean((1, 2)).var()) == pytest.approx(shared, rel=0.25)
        assert float(cells.var()) == pytest.approx(1, rel=0.15)


def test_the_published_configuration_trains() -> None:
    """CaloDiT: 400 steps, cosine schedule, width 144, 8 heads, patches 3 x 2 x 3, 2 + 2 blocks."""
    grid = (9, 16, 45)
    torch.manual_seed(0)
    model = Diffusion(CALODIT, grid, 22)
    assert model.dit.patching.n_tokens == 3 * 8 * 15
    assert len(model.dit.blocks) == 4
    losses = take_steps(model, draw_batch(1, grid=grid, conditions=22), 2)
    assert losses[1] < losses[0]


def test_the_published_sampler_runs() -> None:
    model = Diffusion(CALODIT, (3, 2, 3), CONDITIONS)
    assert (model.sampler, model.steps) == ("ddpm", 400)
    latents = model.sample(draw_batch(1).conditions, seeded())
    assert latents.cells.shape == (1, 3, 2, 3)
    assert torch.isfinite(latents.flat()).all()
