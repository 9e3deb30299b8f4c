"""The usual preprocessing that the adaptation benchmark trains from scratch with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.adaptation import plain_normaliser
from metacalo.normaliser.fitting import fit_normaliser
from metacalo.normaliser.normaliser import STAGES, Normaliser
from metacalo.showers import Showers, data_folder, open_showers
from tests.small import seeded


@pytest.fixture(scope="module")
def shots() -> Showers:
    with open_showers(data_folder("tasks") / "pblar" / "showers.h5") as file:
        return file.load(slice(0, 150))


@pytest.fixture(scope="module")
def plain(shots: Showers) -> Normaliser:
    return plain_normaliser(fit_normaliser(shots.showers, shots.energy, shots.theta), shots)


def test_it_knows_neither_place_nor_energy(plain: Normaliser) -> None:
    for stage in STAGES:
        columns = getattr(plain, stage).columns()
        assert torch.equal(columns, columns[:1, :1].expand_as(columns))
    energy, theta = torch.tensor([1e3, 1e4, 1e5, 1e4]), torch.tensor([1.5, 1.5, 1.5, 0.8])
    response = plain.total.inverse(torch.full((4,), 0.7), energy, theta)
    torch.testing.assert_close(response, response[:1].expand(4), rtol=1e-4, atol=0)
    assert not plain.energy_dependence.mean.any()
    assert not plain.energy_dependence.log_width.any()
    assert plain.copula is None


def test_its_latents_are_standard_normal_over_all(plain: Normaliser, shots: Showers) -> None:
    energy, theta = torch.from_numpy(shots.energy), torch.from_numpy(shots.theta)
    latents = plain.forward(torch.from_numpy(shots.showers), energy, theta, seeded())
    for part in latents.components():
        assert float(part.mean()) == pytest.approx(0, abs=0.1)
        assert float(part.std()) == pytest.approx(1, abs=0.1)
    # but not at each place: the fringe has less than the core
    assert latents.layers.mean(0).std() > 0.3


def test_it_gives_the_energy_back(plain: Normaliser, shots: Showers) -> None:
    energy, theta = torch.from_numpy(shots.energy), torch.from_numpy(shots.theta)
    latents = plain.forward(torch.from_numpy(shots.showers), energy, theta, seeded())
    back = plain.inverse(latents, energy, theta).sum((1, 2, 3)).numpy()
    np.testing.assert_allclose(back, shots.showers.sum((1, 2, 3)), rtol=1e-3)
