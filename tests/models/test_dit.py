from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Literal

import numpy as np
import pytest
import torch

from metacalo.models.dit import DiT, DiTSettings, time_features
from metacalo.normaliser.latents import Latents
from tests.small import CONDITIONS, GRID, PATCH, disturb, draw_latents, seeded

Modulation = Literal["shared", "per-block"]


def make(modulation: Modulation = "shared", *, blocks: int = 2) -> DiT:
    torch.manual_seed(0)
    settings = DiTSettings(patch=PATCH, width=24, blocks=blocks, heads=2, rank=1, embedding=4, modulation=modulation)
    return DiT(settings, GRID, CONDITIONS)


def inputs(n: int = 3) -> tuple[Latents, torch.Tensor, torch.Tensor]:
    return draw_latents(n), torch.linspace(0.1, 0.9, n), torch.randn(n, CONDITIONS, generator=seeded(4))


@pytest.mark.parametrize("modulation", ["shared", "per-block"])
def test_it_is_exactly_zero_at_first(modulation: Modulation) -> None:
    latents, time, conditions = inputs()
    result = make(modulation)(latents, time, conditions)
    assert (result.flat() == 0).all()
    assert [part.shape for part in result.components()] == [part.shape for part in latents.components()]


@pytest.mark.parametrize("modulation", ["shared", "per-block"])
def test_it_depends_on_all_that_it_is_given(modulation: Modulation) -> None:
    model = make(modulation)
    disturb(model)
    latents, time, conditions = inputs()
    before = model(latents, time, conditions).flat()
    moved = {
        field.name: replace(latents, **{field.name: getattr(latents, field.name) + 1}) for field in fields(Latents)
    }
    others = {
        **{name: (other, time, conditions) for name, other in moved.items()},
        "time": (latents, time + 0.05, conditions),
        "conditions": (latents, time, conditions + 0.1),
    }
    for name, arguments in others.items():
        assert ((model(*arguments).flat() - before).abs().amax(1) > 1e-4).all(), name
    with torch.no_grad():
        model.embedding += 0.1
    assert ((model(latents, time, conditions).flat() - before).abs().amax(1) > 1e-4).all()


def test_showers_of_a_batch_do_not_mix() -> None:
    model = make()
    disturb(model)
    latents, time, conditions = inputs()
    alone = model(latents[1:2], time[1:2], conditions[1:2]).flat()
    torch.testing.assert_close(model(latents, time, conditions).flat()[1:2], alone, atol=1e-5, rtol=1e-5)


def test_modulations_are_shared_or_one_for_each_block() -> None:
    width = 24
    assert make("shared", blocks=5).modulation.out_features == 6 * width
    assert make("per-block", blocks=5).modulation.out_features == 5 * 6 * width


def test_a_shared_modulation_differs_by_the_offsets_of_the_blocks() -> None:
    model = make("shared")
    with torch.no_grad():
        torch.nn.init.normal_(model.modulation.weight)
        model.offsets[1] = 1.0
    first, second = model._modulations(torch.randn(3, 24, generator=seeded()))
    for a, b in zip(first, second, strict=True):
        assert a.shape == (3, 1, 24)
        torch.testing.assert_close(b, a + 1)


def test_time_features() -> None:
    features = time_features(torch.tensor([0.0, 0.25]))
    frequencies = np.geomspace(1, 1000, 16)
    np.testing.assert_allclose(features[0], [0.0] * 16 + [1.0] * 16)
    np.testing.assert_allclose(features[1], [*np.sin(frequencies / 4), *np.cos(frequencies / 4)], atol=1e-4)
    assert math.isclose(float(features[1].square().sum()), 16, rel_tol=1e-5)
