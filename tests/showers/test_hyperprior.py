from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metacalo.detectors.detector import DESCRIPTORS
from metacalo.normaliser import hyperprior as module
from metacalo.normaliser.copula import Components, Copula
from metacalo.normaliser.energy_dependence import ENERGY_KNOTS, EnergyDependence
from metacalo.normaliser.fitting import fit_normaliser
from metacalo.normaliser.hyperprior import Hyperprior, fit_hyperprior
from metacalo.normaliser.latents import Latents
from metacalo.normaliser.longitudinal import Longitudinal
from metacalo.normaliser.marginals import LEVELS, ConditionalMarginals
from metacalo.normaliser.normaliser import STAGES, Normaliser
from metacalo.normaliser.response import Response
from metacalo.normaliser.spectrum import LOG_CELL_KNOTS, Spectrum
from metacalo.showers import Showers, Task, training_tasks

SHAPES = {"layers": (3, 5), "rings": (6, 4), "hits": (4, 4), "shares": (5, 6)}
PLANES = {"hits": torch.tensor([7.0, 9.0])}  # two for each of two sites
N_STRUCTURE = 7
N_RINGS, N_PAIRS = 2, 6  # the spectrum's rows; correlations of a total and three layers
N_KNOTS = len(ENERGY_KNOTS)
LADDER = torch.linspace(0, 5, len(LEVELS))
VARYING = [DESCRIPTORS.index(name) for name in ("ln X0 / 10 mm", "homogeneous")]
"""Descriptors that the profile by rule of thumb does not know of."""


def linear_family(n: int, weight: float = 1e9, seed: int = 0) -> tuple[list[Normaliser], torch.Tensor]:
    """Normalisers whose parameters are all linear in two descriptors; those of even number are raw files."""
    generator = torch.Generator().manual_seed(seed)
    descriptors = torch.zeros(n, len(DESCRIPTORS))
    descriptors[:, VARYING] = torch.rand(n, 2, generator=generator) * 2 - 1
    slopes = {stage: torch.randn(3, *shape, generator=generator) for stage, shape in SHAPES.items()}
    response = torch.randn(3, 8, generator=generator)
    drifts = torch.randn(3, N_STRUCTURE, N_KNOTS, 2, generator=generator)
    spectra = 0.1 * torch.randn(3, N_RINGS, len(LOG_CELL_KNOTS), 1, generator=generator)
    correlations = 0.1 * torch.randn(3, N_PAIRS, N_KNOTS, 1, generator=generator)
    normalisers = []
    for number, row in enumerate(descriptors):
        features = torch.cat([torch.ones(1), row[VARYING]])
        tables = {}
        for stage, shape in SHAPES.items():
            level = torch.einsum("f,fsk->sk", features, slopes[stage])
            tables[stage] = ConditionalMarginals(
                torch.linspace(0, 1, shape[1]),
                0.3 * level,
                0.3 * level + 1,
                level[..., None] + LADDER,
                torch.full(shape, weight),
                stage == "layers",
                PLANES.get(stage, torch.zeros(1)),
            )
        vector = torch.cat([features @ response, LADDER])
        drift, spectrum, pairs = (
            torch.einsum("f,fskc->skc", features, slope) for slope in (drifts, spectra, correlations)
        )
        scale = 0.04
        if number % 2:  # the response of a calibrated file includes its scale
            scale, vector = 0.8, vector - torch.tensor([np.log(0.8)] + [0.0] * (len(vector) - 1))
        normalisers.append(
            Normaliser(
                total=Response.from_vector(vector.float(), weight),
                **tables,
                spectrum=Spectrum.from_columns(spectrum, torch.full((N_RINGS,), weight)),
                energy_dependence=EnergyDependence.from_columns(drift, torch.full((N_KNOTS,), weight)),
                longitudinal=Longitudinal.from_columns(pairs, torch.full((N_KNOTS,), weight)),
                scale=scale,
                threshold=0.05 * scale,
            )
        )
    return normalisers, descriptors


def largest_error(prior: Hyperprior, normalisers: list[Normaliser], descriptors: torch.Tensor) -> float:
    worst = 0.0
    for normaliser, row in zip(normalisers, descriptors, strict=True):
        predicted = prior.predict(row)
        for stage in STAGES:
            mine, theirs = getattr(predicted, stage), getattr(normaliser, stage)
            assert mine.extrapolate == theirs.extrapolate
            assert torch.equal(mine.planes, theirs.planes)
            worst = max(worst, float((mine.columns() - theirs.columns()).abs().max()))
        for part in ("spectrum", "energy_dependence", "longitudinal"):
            mine, theirs = (getattr(one, part).columns() for one in (predicted, normaliser))
            worst = max(worst, float((mine - theirs).abs().max()))
        response = normaliser.total.vector()
        if normaliser.scale > 0.5:
            response[0] += np.log(normaliser.scale)
        worst = max(worst, float((predicted.total.vector() - response).abs().max()))
    return worst


@pytest.fixture
def weak_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """So weak that a family of fifty is recovered within 0.03."""
    monkeypatch.setattr(module, "_RIDGE", dict.fromkeys(module._RIDGE, 0.1))


def test_a_linear_family_is_recovered(monkeypatch: pytest.MonkeyPatch, weak_ridge: None) -> None:
    normalisers, descriptors = linear_family(60)
    seen, unseen = slice(0, 50), slice(50, 60)
    prior = fit_hyperprior(normalisers[seen], descriptors[seen])
    ridge_error = largest_error(prior, normalisers[unseen], descriptors[unseen])
    assert ridge_error < 0.03  # the ridge pulls slopes down by about 0.1 in 50
    monkeypatch.setattr(module, "_RIDGE", dict.fromkeys(module._RIDGE, 1e-9))
    exact = fit_hyperprior(normalisers[seen], descriptors[seen])
    assert largest_error(exact, normalisers[unseen], descriptors[unseen]) < 1e-4


@pytest.mark.parametrize("stage", ["rings", "hits", "spectrum", "energy_dependence", "longitudinal"])
def test_ridges_draw_to_the_mean_of_the_detectors(stage: str) -> None:
    """Of n detectors that differ in one descriptor, departures from the mean shrink by n / (n + ridge)."""
    n = 20
    normalisers, descriptors = linear_family(n)
    sorted_by = descriptors[:, VARYING[0]].argsort()
    ends = [sorted_by[:10].tolist(), sorted_by[10:].tolist()]
    chosen = torch.zeros(n, len(DESCRIPTORS))
    chosen[ends[0], VARYING[0]], chosen[ends[1], VARYING[0]] = -1.0, 1.0
    columns = torch.stack([getattr(one, stage).columns() for one in normalisers])
    low, high = (columns[rows].mean(0) for rows in ends)
    prior = fit_hyperprior(normalisers, chosen)
    found = [getattr(prior.predict(chosen[rows[0]]), stage).columns() for rows in ends]
    share = n / (n + module._RIDGE[stage])
    for one, sign in zip(found, (-1, 1), strict=True):
        expected = (low + high) / 2 + sign * share * (high - low) / 2
        torch.testing.assert_close(one, expected, atol=5e-3, rtol=0)  # rows weigh 1.001
    assert (high - low).abs().max() > 0.05


def test_one_detector_is_its_own_prior() -> None:
    normalisers, descriptors = linear_family(1)
    assert largest_error(fit_hyperprior(normalisers, descriptors), normalisers, descriptors) < 1e-4


def test_rows_with_few_showers_count_less(weak_ridge: None) -> None:
    normalisers, descriptors = linear_family(40)
    wrong, _ = linear_family(1, weight=0.0, seed=9)
    clean = fit_hyperprior(normalisers, descriptors)
    spoilt = fit_hyperprior([*normalisers, *wrong], torch.cat([descriptors, descriptors[:1]]))
    assert largest_error(spoilt, normalisers, descriptors) < largest_error(clean, normalisers, descriptors) + 0.01
    heavy, _ = linear_family(1, seed=9)
    spoilt = fit_hyperprior([*normalisers, *heavy], torch.cat([descriptors, descriptors[:1]]))
    assert largest_error(spoilt, normalisers, descriptors) > largest_error(clean, normalisers, descriptors) + 0.05


def test_far_detectors_are_held_at_three_spreads() -> None:
    normalisers, descriptors = linear_family(30)
    prior = fit_hyperprior(normalisers, descriptors)
    edge = prior.predict(prior.mean + 3 * prior.spread).rings.quantiles
    torch.testing.assert_close(prior.predict(prior.mean + 50 * prior.spread).rings.quantiles, edge)
    assert not torch.allclose(prior.predict(prior.mean).rings.quantiles, edge, atol=0.1)


def test_the_convention_of_the_file_is_taken_over() -> None:
    normalisers, descriptors = linear_family(5)
    prior = fit_hyperprior(normalisers, descriptors)
    assert prior.threshold == pytest.approx(0.05)
    predicted = prior.predict(descriptors[0], scale=0.03)
    assert (predicted.scale, predicted.threshold) == (0.03, pytest.approx(0.0015))
    assert torch.equal(predicted.total.vector(), prior.predict(descriptors[0]).total.vector())


def test_predicted_quantiles_ascend_and_weigh_nothing() -> None:
    normalisers, descriptors = linear_family(3)
    prior = fit_hyperprior(normalisers, descriptors)
    generator = torch.Generator().manual_seed(0)
    rough = {stage: torch.randn(table.shape, generator=generator) for stage, table in prior.coefficients.items()}
    predicted = replace(prior, coefficients=rough).predict(descriptors[1])
    for table in (predicted.total.shape, *(getattr(predicted, stage) for stage in STAGES)):
        assert (table.quantiles.diff(dim=-1) >= 0).all()
        assert (table.weight == 0).all()
    assert predicted.total.weight == 0
    for part in (predicted.spectrum, predicted.energy_dependence, predicted.longitudinal):
        assert (part.weight == 0).all()
    assert predicted.spectrum.weight.shape == (N_RINGS,)
    correlation = predicted.longitudinal.correlation
    torch.testing.assert_close(correlation.diagonal(dim1=1, dim2=2), torch.ones(N_KNOTS, 4))
    assert torch.linalg.eigvalsh(correlation).min() > 1e-3


def small_copula() -> Copula:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.linalg.qr(torch.randn(N_STRUCTURE, 3, generator=generator))[0]
    one = Components(
        vectors, torch.randn(9, 3, generator=generator), torch.rand(N_STRUCTURE, generator=generator) + 0.5
    )
    return Copula(one, (one, one))


@pytest.mark.parametrize("copula", [None, small_copula()], ids=["alone", "with a copula"])
def test_tensors_round_trip(copula: Copula | None) -> None:
    normalisers, descriptors = linear_family(8)
    prior = fit_hyperprior(normalisers, descriptors, copula)
    tensors = prior.tensors()
    again = Hyperprior.from_tensors(tensors)
    for stage, table in prior.coefficients.items():
        assert tensors[f"{stage}.coefficients"].dtype == torch.float16
        # half precision: 11 bits
        torch.testing.assert_close(again.coefficients[stage], table, rtol=5e-4, atol=1e-6)
    for stage in STAGES:
        assert torch.equal(again.axes[stage]["knots"], prior.axes[stage]["knots"])
    assert again.threshold == prior.threshold
    assert largest_error(again, normalisers, descriptors) < largest_error(prior, normalisers, descriptors) + 0.02
    assert prior.predict(descriptors[0]).copula is copula
    if copula is None:
        assert again.copula is None
        return
    assert again.copula is not None
    for name, tensor in copula.tensors().items():
        torch.testing.assert_close(again.copula.tensors()[name], tensor, rtol=5e-4, atol=1e-6)
    # rounded vectors are not quite orthonormal any more
    structure = torch.randn(20, N_STRUCTURE, generator=torch.Generator().manual_seed(1))
    x = torch.full((20,), 9.0)
    one = again.copula.structure
    torch.testing.assert_close(one.forward(one.inverse(structure, x), x), structure, atol=5e-3, rtol=0)


# --- a real detector that was never seen ---


@pytest.fixture(scope="module")
def held_out(tasks: dict[str, Task]) -> tuple[Normaliser, Showers]:
    """What eight other detectors predict for PbLAr (calibrated), and its showers."""
    normalisers, descriptors = [], []
    for task in [*training_tasks(tasks, ["pblar"])[::4], tasks["siw"]]:
        with task.open() as file:
            showers = file.load(slice(0, 150))
        normalisers.append(fit_normaliser(showers.showers, showers.energy, showers.theta))
        descriptors.append(task.detector.descriptors())
    prior = fit_hyperprior(normalisers, torch.from_numpy(np.stack(descriptors)))
    with tasks["pblar"].open() as file:
        return prior.predict(torch.from_numpy(tasks["pblar"].detector.descriptors())), file.load(slice(0, 300))


def test_a_detector_never_seen_is_predicted_sanely(held_out: tuple[Normaliser, Showers]) -> None:
    normaliser, showers = held_out
    energy, theta = torch.from_numpy(showers.energy), torch.from_numpy(showers.theta)
    real = torch.from_numpy(showers.showers)
    noise = Latents.noise(len(real), tuple(real.shape[1:]), torch.Generator().manual_seed(0))
    decoded = normaliser.inverse(noise, energy, theta)
    assert torch.isfinite(decoded).all()
    ratio = float((decoded.sum((1, 2, 3)) / energy).mean() / (real.sum((1, 2, 3)) / energy).mean())
    assert ratio == pytest.approx(1, abs=0.03)
    assert float((decoded > 0).float().mean() / (real > 0).float().mean()) == pytest.approx(1, abs=0.15)
    for axes in ((0, 1, 2), (0, 2, 3)):  # longitudinal, lateral
        mine, theirs = (showers.sum(axes) / showers.sum() for showers in (decoded, real))
        assert 0.5 * float((mine - theirs).abs().sum()) < 0.06  # of the energy is elsewhere


def test_latents_of_a_detector_never_seen_are_of_order_one(held_out: tuple[Normaliser, Showers]) -> None:
    normaliser, showers = held_out
    tensors = (torch.from_numpy(array) for array in (showers.showers, showers.energy, showers.theta))
    latents = normaliser.forward(*tensors, torch.Generator().manual_seed(0))
    for part in latents.components():
        assert abs(float(part.mean())) < 0.3
        assert float(part.std()) == pytest.approx(1, abs=0.3)
