from __future__ import annotations

import numpy as np
import pytest
import torch

from metacalo.showers import hyperprior as module
from metacalo.showers.hyperprior import Hyperprior, fit_hyperprior
from metacalo.showers.marginals import LEVELS, ConditionalMarginals
from metacalo.showers.normalise import Normaliser

SITES = {"total": 1, "layer": 3, "voxel": 6}
KNOTS = {"total": 5, "layer": 5, "voxel": 4}
N_LEVELS = len(LEVELS)


def linear_family(n: int, weight: float = 1e9, seed: int = 0) -> tuple[list[Normaliser], torch.Tensor]:
    """Normalisers whose tables are linear in two descriptors."""
    generator = torch.Generator().manual_seed(seed)
    descriptors = torch.rand(n, 2, generator=generator) * 2 - 1
    shapes = {stage: (SITES[stage], KNOTS[stage]) for stage in SITES}
    slopes = {stage: torch.randn(3, *shape, generator=generator) for stage, shape in shapes.items()}
    ladder = torch.linspace(0, 5, N_LEVELS)
    normalisers = []
    for row in descriptors:
        stages = {}
        for stage, shape in shapes.items():
            level = slopes[stage][0] + row[0] * slopes[stage][1] + row[1] * slopes[stage][2]
            stages[stage] = ConditionalMarginals(
                torch.linspace(0, 1, KNOTS[stage]),
                0.3 * level,
                level[..., None] + ladder,
                torch.full(shape, weight),
                stage != "voxel",
            )
        normalisers.append(Normaliser(**stages, scale=0.5, threshold=0.02))
    return normalisers, descriptors


def largest_error(prior: Hyperprior, normalisers: list[Normaliser], descriptors: torch.Tensor) -> float:
    worst = 0.0
    for normaliser, row in zip(normalisers, descriptors, strict=True):
        predicted = prior.predict(row)
        for stage in SITES:
            mine, theirs = getattr(predicted, stage), getattr(normaliser, stage)
            worst = max(worst, float((mine.log_quantiles - theirs.log_quantiles).abs().max()))
            worst = max(worst, float((mine.t0 - theirs.t0).abs().max()))
    return worst


def test_a_linear_family_is_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    normalisers, descriptors = linear_family(60)
    seen, unseen = slice(0, 50), slice(50, 60)
    prior = fit_hyperprior(normalisers[seen], descriptors[seen])
    ridge_error = largest_error(prior, normalisers[unseen], descriptors[unseen])
    assert ridge_error < 0.02  # the ridge pulls slopes down by about 0.1 in 50
    monkeypatch.setattr(module, "_RIDGE", 1e-9)
    exact = fit_hyperprior(normalisers[seen], descriptors[seen])
    assert largest_error(exact, normalisers[unseen], descriptors[unseen]) < 1e-4


def test_one_detector_is_its_own_prior() -> None:
    normalisers, descriptors = linear_family(1)
    assert largest_error(fit_hyperprior(normalisers, descriptors), normalisers, descriptors) < 1e-4


def test_rows_with_few_showers_count_less() -> None:
    normalisers, descriptors = linear_family(40)
    wrong, _ = linear_family(1, weight=0.0, seed=9)
    clean = fit_hyperprior(normalisers, descriptors)
    spoilt = fit_hyperprior([*normalisers, *wrong], torch.cat([descriptors, descriptors[:1]]))
    assert largest_error(spoilt, normalisers, descriptors) < largest_error(clean, normalisers, descriptors) + 0.01


def test_far_detectors_are_held_at_three_spreads() -> None:
    normalisers, descriptors = linear_family(30)
    prior = fit_hyperprior(normalisers, descriptors)
    edge = prior.predict(prior.mean + 3 * prior.spread).total.log_quantiles
    torch.testing.assert_close(prior.predict(prior.mean + 50 * prior.spread).total.log_quantiles, edge)
    assert not torch.allclose(prior.predict(prior.mean).total.log_quantiles, edge, atol=0.1)


def test_the_convention_of_the_file_is_taken_over() -> None:
    normalisers, descriptors = linear_family(5)
    prior = fit_hyperprior(normalisers, descriptors)
    assert prior.threshold == pytest.approx(0.04)  # 0.02 MeV at scale 0.5
    predicted = prior.predict(descriptors[0], scale=0.03)
    assert (predicted.scale, predicted.threshold) == (0.03, pytest.approx(0.0012))


def test_predicted_quantiles_ascend() -> None:
    normalisers, descriptors = linear_family(3)
    prior = fit_hyperprior(normalisers, descriptors)
    generator = torch.Generator().manual_seed(0)
    rough = {stage: torch.randn(table.shape, generator=generator) for stage, table in prior.coefficients.items()}
    predicted = Hyperprior(rough, prior.knots, prior.mean, prior.spread, prior.threshold).predict(descriptors[1])
    for stage in SITES:
        assert (getattr(predicted, stage).log_quantiles.diff(dim=-1) >= 0).all()
        assert (getattr(predicted, stage).weight == 0).all()


def test_tensors_round_trip() -> None:
    normalisers, descriptors = linear_family(8)
    prior = fit_hyperprior(normalisers, descriptors)
    again = Hyperprior.from_tensors(prior.tensors())
    for stage in SITES:
        # half precision: 11 bits
        torch.testing.assert_close(again.coefficients[stage], prior.coefficients[stage], rtol=5e-4, atol=1e-6)
        assert torch.equal(again.knots[stage], prior.knots[stage])
    np.testing.assert_allclose(again.threshold, prior.threshold)
    assert largest_error(again, normalisers, descriptors) < largest_error(prior, normalisers, descriptors) + 0.02
