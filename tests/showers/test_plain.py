from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from metacalo.errors import ShowerFileError
from metacalo.normaliser.log_normaliser import LogNormaliser, LogPrior, fit_log_normaliser, fit_log_prior
from metacalo.normaliser.preprocessing import PREPROCESSING
from metacalo.showers import Showers
from tests.samples import shipped
from tests.small import seeded

LOG = PREPROCESSING["log"]


@pytest.fixture(scope="module")
def shots() -> Showers:
    return shipped("siw", slice(0, 60))


def tensors(shots: Showers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    energy, theta = (torch.from_numpy(np.asarray(x, np.float32)) for x in (shots.energy, shots.theta))
    return torch.from_numpy(shots.showers), energy, theta


def test_cells_come_back_and_zeros_are_exact(shots: Showers) -> None:
    normaliser = LOG.fit(shots)
    showers, energy, theta = tensors(shots)
    latents = normaliser.encode(showers, energy, theta).dequantise(seeded())
    again = normaliser.inverse(latents, energy, theta)
    assert torch.equal(again > 0, showers > 0)
    torch.testing.assert_close(again, showers, rtol=1e-2, atol=1e-3)
    bright = showers > 1e-3 * energy[:, None, None, None]
    torch.testing.assert_close(again[bright], showers[bright], rtol=1e-4, atol=0)


def test_the_latents_by_hand(shots: Showers) -> None:
    normaliser = LogNormaliser(mean=-10.0, width=2.0, scale=1.0, threshold=0.1, grid=(9, 16, 45))
    showers, energy, theta = tensors(shots)
    cells = normaliser.encode(showers, energy, theta).dequantise(seeded()).cells
    part = showers[3, 0, 0, 10].double() / (1.5 * energy[3].double())
    p = 1e-6 + (1 - 2e-6) * float(part)
    assert float(cells[3, 0, 0, 10]) == pytest.approx((math.log(p / (1 - p)) + 10) / 2, rel=1e-4)
    empty = (math.log(1e-6 / (1 - 1e-6)) + 10) / 2
    assert cells[showers == 0].unique().tolist() == pytest.approx([empty], rel=1e-4)


def test_only_the_cells_say_anything_and_have_one_standardisation(shots: Showers) -> None:
    normaliser = LOG.fit(shots)
    latents = normaliser.encode(*tensors(shots)).dequantise(seeded())
    assert not latents.structure().any()
    assert float(latents.cells.mean()) == pytest.approx(0, abs=1e-3)
    assert float(latents.cells.std()) == pytest.approx(1, abs=1e-3)
    assert not torch.allclose(latents.cells.mean((0, 2)), torch.zeros(9, 45), atol=0.3)  # of a ring it knows nothing
    assert normaliser.copula is None


def test_raw_and_calibrated_deposits_have_the_same_latents(shots: Showers) -> None:
    raw = replace(shots, showers=np.float32(0.03) * shots.showers)
    ours, theirs = LOG.fit(shots), LOG.fit(raw)
    assert theirs.scale == pytest.approx(0.03 * ours.scale)
    assert theirs.threshold == pytest.approx(0.03 * ours.threshold)
    latents = [LOG.fit(each).encode(*tensors(each)).cells for each in (shots, raw)]
    torch.testing.assert_close(*latents, rtol=0, atol=1e-3)


def test_one_standardisation_for_all_detectors(shots: Showers) -> None:
    parts = [shots.select(slice(0, 16)), shots.select(slice(16, 60))]
    descriptors = [np.zeros(3, np.float32), np.ones(3, np.float32)]
    normalisers, prior = LOG.fit_detectors(zip(parts, descriptors, strict=True))
    fitted = [LOG.fit(part) for part in parts]
    assert isinstance(prior, LogPrior)
    mean = (4 * fitted[0].mean + 44**0.5 * fitted[1].mean) / (4 + 44**0.5)
    assert prior.normaliser.mean == pytest.approx(mean)
    for normaliser, alone in zip(normalisers, fitted, strict=True):
        assert (normaliser.mean, normaliser.width) == (prior.normaliser.mean, prior.normaliser.width)
        assert (normaliser.scale, normaliser.threshold) == (alone.scale, alone.threshold)
    unseen = prior.predict(torch.full((3,), 7.0), scale=0.03)
    assert unseen == replace(prior.normaliser, scale=0.03, threshold=0.03 * prior.normaliser.threshold)
    assert LOG.fit(parts[0], prior=unseen) == replace(fitted[0], mean=unseen.mean, width=unseen.width)


def test_the_width_over_detectors_has_what_their_means_differ_by() -> None:
    grid = (1, 1, 1)
    two = [LogNormaliser(mean, 1.0, 1.0, 0.1, grid) for mean in (-2.0, 2.0)]
    assert fit_log_prior(two, [5, 5]).normaliser == LogNormaliser(0.0, 5.0**0.5, 1.0, 0.1, grid)


def test_it_is_read_as_it_was_written(shots: Showers) -> None:
    normaliser = LOG.fit(shots)
    assert LOG.load(normaliser.tensors(), LogPrior(normaliser)) == normaliser
    assert LOG.load_prior(LogPrior(normaliser).tensors()) == LogPrior(normaliser)
    assert normaliser.to("cpu") is normaliser


def test_empty_showers_are_refused() -> None:
    with pytest.raises(ShowerFileError, match="every shower given to fit the normaliser is empty"):
        fit_log_normaliser(np.zeros((3, 1, 2, 3), np.float32), np.ones(3))
