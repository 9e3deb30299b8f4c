from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from metacalo.errors import ShowerFileError
from metacalo.normaliser import rings
from metacalo.normaliser.encoded import EncodedShowers
from metacalo.normaliser.fitting import LOG_ENERGY_KNOTS, fit_normaliser
from metacalo.normaliser.hits import count_hits, draw_hits
from metacalo.normaliser.latents import Latents
from metacalo.normaliser.longitudinal import fit_longitudinal
from metacalo.normaliser.marginals import LEVELS, ConditionalMarginals
from metacalo.normaliser.normaliser import PRIOR_STRENGTH, STAGES, Normaliser
from metacalo.normaliser.prior_weight import credibility
from metacalo.normaliser.spectrum import Spectrum
from metacalo.showers import Showers
from tests.samples import shipped
from tests.small import draw_copula, draw_longitudinal

GRID = (9, 16, 45)


@pytest.fixture(scope="module")
def shots() -> Showers:
    """300 showers of SiW, the first of them emptied, the second without its last 25 layers."""
    showers = shipped("siw", slice(0, 300))
    showers.showers[0] = 0
    showers.showers[1, :, :, 20:] = 0
    return showers


def fit(showers: Showers, prior: Normaliser | None = None) -> Normaliser:
    return fit_normaliser(showers.showers, showers.energy, showers.theta, prior)


def tensors_of(showers: Showers) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(array) for array in (showers.showers, showers.energy, showers.theta))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def plain(shots: Showers) -> Normaliser:
    """Fitted on the shots alone."""
    return fit(shots)


@pytest.fixture(scope="module")
def shrunk(shots: Showers) -> Normaliser:
    """As in an adaptation: shrunk towards another detector's, with common correlations."""
    other = shipped("scipb", slice(0, 300))
    return fit(shots, replace(fit(other), copula=draw_copula(GRID)))


@pytest.fixture(params=["plain", "shrunk"])
def normaliser(request: pytest.FixtureRequest) -> Normaliser:
    return request.getfixturevalue(request.param)


# --- there and back ---


def test_showers_come_back(shots: Showers, normaliser: Normaliser) -> None:
    """But for values far beyond their tables, which single precision does not resolve."""
    showers, energy, theta = tensors_of(shots)
    again = normaliser.inverse(normaliser.forward(showers, energy, theta, generator()), energy, theta)
    torch.testing.assert_close(again.sum((1, 2, 3)), showers.sum((1, 2, 3)), rtol=1e-5, atol=0)
    hit = showers > 0
    assert ((again > 0) != hit).sum() <= 5e-4 * hit.sum()
    for axes, tolerance in (((1, 2), 0.998), ((2,), 0.99)):  # layers, rings
        mine, theirs = again.sum(axes), showers.sum(axes)
        assert ((mine > 0) != (theirs > 0)).float().mean() < 3e-4
        error = (mine / theirs - 1).abs()[theirs > 0]
        assert error.median() < 1e-4
        assert (error < 1e-2).float().mean() > tolerance
    error = (again / showers - 1).abs()[hit]
    assert error.median() < 1e-4
    assert (error < 1e-2).float().mean() > 0.995


def test_empty_showers_and_layers_stay_empty(shots: Showers, normaliser: Normaliser) -> None:
    showers, energy, theta = tensors_of(shots[:20])
    for seed in range(5):
        again = normaliser.inverse(normaliser.forward(showers, energy, theta, generator(seed)), energy, theta)
        assert (again[0] == 0).all()
        assert (again[2:].sum((1, 2, 3)) > 0).all()
        assert (again[1, :, :, 20:] == 0).all()


def test_half_of_the_showers_may_be_empty(shots: Showers) -> None:
    half = replace(shots, showers=shots.showers * (np.arange(300) % 2)[:, None, None, None].astype(np.float32))
    fitted = fit(half)
    showers, energy, theta = tensors_of(half)
    again = fitted.inverse(fitted.forward(showers, energy, theta, generator()), energy, theta)
    assert torch.equal(again.sum((1, 2, 3)) > 0, showers.sum((1, 2, 3)) > 0)
    drawn = fitted.inverse(Latents.noise(300, GRID, generator()), energy, theta)
    assert stats.binomtest(int((drawn.sum((1, 2, 3)) == 0).sum()), 300, 0.5).pvalue > 1e-3


def test_latents_of_the_sample_are_standard_normal_at_all_energies(shots: Showers, plain: Normaliser) -> None:
    _, energy, _ = tensors_of(shots)
    latents = plain.forward(*tensors_of(shots), generator())
    x = torch.log(energy)
    for part, mean, width in zip(
        latents.components(), (0.2, 0.06, 0.06, 0.06, 0.02), (0.2, 0.08, 0.08, 0.08, 0.02), strict=True
    ):
        for low, high in ((6.9, 8.4), (8.4, 10.0), (10.0, 11.6)):
            chosen = part[(x > low) & (x < high)]
            assert abs(float(chosen.mean())) < mean
            assert abs(float(chosen.std()) - 1) < width


def test_unseen_showers_of_the_detector_have_nearly_normal_latents(plain: Normaliser) -> None:
    latents = plain.forward(*tensors_of(shipped("siw", slice(300, 600))), generator())
    for part, tolerance in zip(latents.components(), (0.15, 0.05, 0.05, 0.05, 0.02), strict=True):
        assert abs(float(part.mean())) < tolerance
        assert abs(float(part.std()) - 1) < 2 * tolerance


def test_latents_do_not_depend_on_the_scale_of_the_file(shots: Showers, plain: Normaliser) -> None:
    raw = replace(shots, showers=shots.showers * np.float32(0.03))
    fitted = fit(raw)
    assert fitted.scale == pytest.approx(0.03 * plain.scale, rel=1e-5)
    assert fitted.threshold == pytest.approx(0.03 * plain.threshold, rel=1e-5)
    mine = fitted.forward(*tensors_of(raw), generator())
    theirs = plain.forward(*tensors_of(shots), generator())
    difference = (mine.structure() - theirs.structure()).abs()
    assert (difference < 1e-3).float().mean() > 0.998  # rounding decides where values are equal
    # weights of cells have random totals, which rounding makes others
    full = (count_hits(tensors_of(shots)[0]) == GRID[1])[:, :, None].expand_as(mine.cells)
    assert torch.corrcoef(torch.stack([mine.cells[full], theirs.cells[full]]))[0, 1] > 0.9
    torch.testing.assert_close(mine.cells[full].std(), theirs.cells[full].std(), atol=0.01, rtol=0)
    _, energy, theta = tensors_of(shots)
    back, expected = fitted.inverse(theirs, energy, theta), 0.03 * plain.inverse(theirs, energy, theta)
    assert ((back > 0) == (expected > 0)).float().mean() > 0.9999
    torch.testing.assert_close(back.sum((1, 2, 3)), expected.sum((1, 2, 3)), rtol=1e-4, atol=0)


# --- any latents ---


@pytest.mark.parametrize("seed", [0, 1])
def test_each_stage_adds_up_to_the_one_before(shots: Showers, plain: Normaliser, seed: int) -> None:
    _, energy, theta = tensors_of(shots)
    drawn = Latents.noise(len(shots), GRID, generator(seed))
    decoded = plain.inverse(drawn, energy, theta) / plain.scale
    latents = drawn.with_structure(plain.energy_dependence.inverse(drawn.structure(), torch.log(energy)))
    total = plain.total.inverse(latents.total, energy, theta) * energy
    torch.testing.assert_close(decoded.sum((1, 2, 3)), total, rtol=1e-5, atol=0)
    in_layers, in_rings = decoded.sum((1, 2)), decoded.sum(2)
    # layers share the total in the ratios of the table
    x = torch.log(energy)[:, None].expand(-1, GRID[2])
    fractions = torch.exp(plain.layers.inverse(latents.layers[..., None], x)[..., 0])
    threshold = plain.threshold / plain.scale
    share = fractions / fractions.sum(1, keepdim=True)
    kept = share * total[:, None] >= threshold * (1 + 1e-5)
    share = share * kept / (share * kept).sum(1, keepdim=True)
    full = total > 1  # not of the empty shower's kind
    torch.testing.assert_close(in_layers[full], (share * total[:, None])[full], rtol=1e-3, atol=2 * threshold)
    # rings and hits are those of the later stages
    expected = rings.break_rings(plain.rings, latents.rings, in_layers, energy, threshold)
    torch.testing.assert_close(in_rings, expected, rtol=1e-3, atol=1e-2)
    hits = draw_hits(plain.hits, latents.hits, in_rings, energy, GRID[1], threshold)
    assert (count_hits(decoded) != hits).float().mean() < 1e-3  # at the edge of a count rounding decides
    assert (decoded[decoded > 0] > 0.98 * threshold).all()


def test_no_layer_has_less_than_a_cell_can_have(plain: Normaliser) -> None:
    """In showers of 30 MeV many a layer would."""
    n = 200
    energy, theta = torch.full((n,), 30.0), torch.full((n,), 1.2)
    decoded = plain.inverse(Latents.noise(n, GRID, generator()), energy, theta)
    in_layers = decoded.sum((1, 2))
    assert (in_layers[in_layers > 0] > 0.999 * plain.threshold).all()
    assert (in_layers == 0).float().mean() > 0.1


def test_independent_latents_already_have_the_occupancy_and_the_profiles(
    shots: Showers, normaliser: Normaliser
) -> None:
    showers, energy, theta = tensors_of(shots)
    uncorrelated = replace(normaliser, copula=None)
    decoded = uncorrelated.inverse(Latents.noise(len(shots), GRID, generator(3)), energy, theta)
    assert float((decoded > 0).float().mean()) == pytest.approx(float((showers > 0).float().mean()), rel=0.04)
    for axes in ((0, 1, 2), (0, 2, 3)):  # longitudinal, lateral
        expected = showers.sum(axes) / showers.sum()
        torch.testing.assert_close(decoded.sum(axes) / decoded.sum(), expected, atol=0.015, rtol=0)


def test_the_response_is_that_of_the_energy_and_the_angle(shots: Showers, plain: Normaliser) -> None:
    """One shower at other energies and angles."""
    energy, theta = torch.tensor([2e3, 8e4, 2e3]), torch.tensor([1.2, 1.2, 0.9])
    drawn = Latents.noise(1, GRID, generator())[torch.zeros(3, dtype=torch.long)]
    response = plain.inverse(drawn, energy, theta).sum((1, 2, 3)) / energy
    latent = plain.energy_dependence.inverse(drawn.structure(), torch.log(energy))[:, 0]
    torch.testing.assert_close(response, plain.scale * plain.total.inverse(latent, energy, theta), rtol=1e-5, atol=0)
    assert len(response.unique()) == 3


# --- fitting ---


def test_a_sample_of_empty_showers_cannot_be_fitted(shots: Showers) -> None:
    with pytest.raises(ShowerFileError, match="every shower given to fit the normaliser is empty"):
        fit(replace(shots, showers=0 * shots.showers))
    with pytest.raises(ShowerFileError, match="every shower"):
        fit(shots[0:0])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_showers_is_enough_to_fit(shots: Showers, shrunk: Normaliser, n: int) -> None:
    few = shots[10 : 10 + n]
    _, energy, theta = tensors_of(shots[:50])
    for fitted in (fit(few), fit(few, prior=shrunk)):
        latents = fitted.forward(*tensors_of(few), generator())
        assert torch.isfinite(latents.flat()).all()
        decoded = fitted.inverse(Latents.noise(50, GRID, generator(1)), energy, theta)
        assert torch.isfinite(decoded).all()
        assert (decoded >= 0).all()
        assert float(decoded.sum() / energy.sum()) == pytest.approx(fitted.scale, rel=0.2)


@pytest.mark.parametrize("energy", [10**4.5, float(np.exp(LOG_ENERGY_KNOTS[3])), 1e5])
def test_a_file_of_one_energy_can_be_fitted(shots: Showers, energy: float) -> None:
    beam = replace(shots, energy=np.full(300, energy, np.float32))
    fitted = fit(beam)
    assert torch.isfinite(fitted.forward(*tensors_of(beam), generator()).flat()).all()


def common_departure(fitted: ConditionalMarginals, prior: ConditionalMarginals) -> torch.Tensor:
    """By how much the medians of each ring, plane and knot depart from a prior at all depths; 30 values say 0."""
    weight, departure = (
        table.reshape(GRID[0] - 1, -1, len(fitted.planes), len(fitted.knots))
        for table in (fitted.weight, (fitted.quantiles - prior.quantiles)[..., LEVELS.index(0.5)])
    )
    mean = (weight * departure).sum(1, keepdim=True) / (weight.sum(1, keepdim=True) + 30)
    return mean.expand_as(weight).reshape(fitted.weight.shape)[..., None]


def test_shrinking_goes_from_the_prior_to_the_fit(shots: Showers, plain: Normaliser) -> None:
    prior = fit(shots[100:120])
    result = plain.shrunk_towards(prior, PRIOR_STRENGTH)
    for stage in STAGES:
        mine, theirs, table = (getattr(each, stage) for each in (plain, prior, result))
        share = (mine.weight / (mine.weight + PRIOR_STRENGTH[stage]))[..., None]
        moved = theirs.quantiles + (common_departure(mine, theirs) if stage == "rings" else 0)
        expected = share * mine.quantiles + (1 - share) * moved
        torch.testing.assert_close(table.quantiles, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(table.t0[mine.weight == 0], theirs.t0[mine.weight == 0])
        torch.testing.assert_close(
            getattr(plain.shrunk_towards(plain, PRIOR_STRENGTH), stage).columns(), mine.columns()
        )
    for part in ("spectrum", "energy_dependence", "longitudinal"):
        expected = getattr(plain, part).shrunk_towards(getattr(prior, part), PRIOR_STRENGTH[part])
        torch.testing.assert_close(getattr(result, part).columns(), expected.columns())
    assert (result.scale, result.threshold) == (plain.scale, plain.threshold)
    assert result.copula is prior.copula


def test_a_fit_with_a_prior_shrinks_its_tables_and_then_fits_what_drifts(
    shots: Showers, plain: Normaliser, shrunk: Normaliser
) -> None:
    again = fit(shots, shrunk)
    strengths = {stage: credibility(plain, shrunk) * values for stage, values in PRIOR_STRENGTH.items()}
    for stage in STAGES:
        expected = getattr(plain.shrunk_towards(shrunk, strengths), stage)
        torch.testing.assert_close(getattr(again, stage).columns(), expected.columns())
    assert again.copula is shrunk.copula
    torch.testing.assert_close(again.energy_dependence.weight, plain.energy_dependence.weight)
    structure = again.forward(*tensors_of(shots), generator()).structure()[:, 1:]
    # the drift is fitted on these very latents, but drawn anew and shrunk
    assert abs(float(structure.mean())) < 0.05
    assert float(structure.std()) == pytest.approx(1, abs=0.1)


# --- of the detector's own: correlations of its layers, spectrum of its cells ---


def test_correlations_of_layers_are_those_of_the_shots_and_of_the_prior(
    shots: Showers, plain: Normaliser, shrunk: Normaliser
) -> None:
    """Drawn anew, so not to the last digit."""
    prior = fit(shipped("scipb", slice(0, 300)))
    encoded = shrunk.encode(*tensors_of(shots))
    structure = encoded.dequantise(generator(5), shrunk.copula).structure()
    again = fit_longitudinal(structure, encoded.log_energy, 1 + GRID[2])
    torch.testing.assert_close(shrunk.longitudinal.weight, again.weight)
    strength = credibility(plain, prior) * PRIOR_STRENGTH["longitudinal"]
    expected = again.shrunk_towards(prior.longitudinal, strength)
    torch.testing.assert_close(shrunk.longitudinal.correlation, expected.correlation, atol=0.3, rtol=0)
    off, moved = (
        float((shrunk.longitudinal.correlation - other.correlation).abs().mean())
        for other in (expected, prior.longitudinal)
    )
    assert off < 0.5 * moved


def test_layers_of_noise_correlate_as_those_of_the_detector(shots: Showers, shrunk: Normaliser) -> None:
    wanted = replace(shrunk, longitudinal=draw_longitudinal(GRID))
    _, energy, theta = tensors_of(shots)
    many, angle = energy.repeat(4), theta.repeat(4)
    decoded = wanted.inverse(Latents.noise(len(many), GRID, generator()), many, angle)
    encoded = wanted.encode(decoded, many, angle)
    structure = encoded.dequantise(generator(1), wanted.copula).structure()
    found = fit_longitudinal(structure, encoded.log_energy, 1 + GRID[2]).columns().flatten()
    expected, other = (one.longitudinal.columns().flatten() for one in (wanted, shrunk))
    # layers without energy, and those of neighbouring energies, blur them
    assert np.corrcoef(found, expected)[0, 1] > 0.7
    assert abs(np.corrcoef(found, other)[0, 1]) < 0.2


def test_correlations_of_layers_go_first_and_come_back_last(shots: Showers, shrunk: Normaliser) -> None:
    _, energy, theta = tensors_of(shots)
    bare, x = replace(shrunk, copula=None), torch.log(energy)
    encoded = shrunk.encode(*tensors_of(shots))
    drawn = encoded.dequantise(generator(), shrunk.copula)
    lifted = drawn.with_structure(shrunk.longitudinal.forward(drawn.structure(), x, shrunk.copula))
    assert torch.equal(shrunk.draw(encoded, generator()).flat(), shrunk.copula.forward(lifted, x).flat())
    latents = Latents.noise(len(shots), GRID, generator())
    coloured = shrunk.copula.inverse(latents, x)
    coloured = coloured.with_structure(shrunk.longitudinal.inverse(coloured.structure(), x, shrunk.copula))
    assert torch.equal(shrunk.inverse(latents, energy, theta), bare.inverse(coloured, energy, theta))


def test_without_a_copula_latents_keep_all_correlations(shots: Showers, plain: Normaliser) -> None:
    other = replace(plain, longitudinal=draw_longitudinal(GRID))
    mine, theirs = (one.forward(*tensors_of(shots[:20]), generator()).flat() for one in (plain, other))
    assert torch.equal(mine, theirs)


def test_cells_of_noise_have_the_spectrum_of_the_shots(shots: Showers, shrunk: Normaliser) -> None:
    """Of true rings and hits, so that nothing else matters; nearer to it than shares relative to the ring are."""
    scaled = tensors_of(shots)[0] / shrunk.scale
    cells = Latents.noise(len(shots), GRID, generator()).cells
    none = replace(shrunk, spectrum=Spectrum.none(GRID[0]))
    after, before = (one.share_out(cells, count_hits(scaled), scaled.sum(2)) for one in (shrunk, none))
    distances = []
    for drawn in (after, before):
        samples = [[torch.log(part[:, ring][part[:, ring] > 0]) for ring in range(5)] for part in (drawn, scaled)]
        pairs = zip(*samples, strict=True)
        distances.append(np.mean([stats.ks_2samp(*(x.numpy() for x in pair)).statistic for pair in pairs]))
    assert distances[0] < 0.5 * distances[1]
    assert shrunk.spectrum.weight.min() > 100


def test_a_fit_without_a_prior_leaves_the_spectrum_as_it_is(plain: Normaliser) -> None:
    assert torch.equal(plain.spectrum.offset, Spectrum.none(GRID[0]).offset)


def test_what_is_of_the_detectors_own_takes_little_room(shrunk: Normaliser) -> None:
    written = {
        name: tensor for name, tensor in shrunk.tensors().items() if name.startswith(("spectrum.", "longitudinal."))
    }
    assert set(written) == {"spectrum.offset", "spectrum.weight", "longitudinal.correlation", "longitudinal.weight"}
    assert sum(tensor.nbytes for tensor in written.values()) < 50_000


# --- bookkeeping ---


def test_tensors_round_trip(shots: Showers, normaliser: Normaliser) -> None:
    again = Normaliser.from_tensors(normaliser.tensors(), normaliser.copula)
    moved = normaliser.to("cpu")
    showers, energy, theta = tensors_of(shots[:10])
    latents = normaliser.forward(showers, energy, theta, generator())
    for other in (again, moved):
        assert (other.scale, other.threshold) == (normaliser.scale, normaliser.threshold)
        for stage in STAGES:
            assert getattr(other, stage).extrapolate == getattr(normaliser, stage).extrapolate
        assert torch.equal(other.forward(showers, energy, theta, generator()).flat(), latents.flat())
        assert torch.equal(other.inverse(latents, energy, theta), normaliser.inverse(latents, energy, theta))


def test_rows_of_encoded_showers_and_their_concatenation(shots: Showers, plain: Normaliser) -> None:
    encoded = plain.encode(*tensors_of(shots[0:10]))
    parts = [plain.encode(*tensors_of(shots[rows])) for rows in (slice(0, 3), slice(3, 10))]
    rows = torch.tensor([7, 2])
    for other in (EncodedShowers.concatenate(parts)[rows], EncodedShowers.concatenate(parts[::-1])[(rows - 3) % 10]):
        assert len(other) == 2
        for mine, theirs in zip(other.structure, encoded[rows].structure, strict=True):
            torch.testing.assert_close(mine, theirs)
        torch.testing.assert_close(other.cells.scores, encoded[rows].cells.scores, atol=1e-4, rtol=0, equal_nan=True)
        torch.testing.assert_close(other.cells.around, encoded[rows].cells.around)
        torch.testing.assert_close(other.log_energy, encoded[rows].log_energy)


def test_without_cells_the_structure_is_the_same(shots: Showers, normaliser: Normaliser) -> None:
    """Which intervals its latents are drawn in; those of the cells are zero."""
    whole, bare = (normaliser.encode(*tensors_of(shots[0:10]), cells=cells) for cells in (True, False))
    for mine, theirs in zip(bare[torch.tensor([7, 2])].structure, whole[torch.tensor([7, 2])].structure, strict=True):
        assert torch.equal(mine, theirs)
    assert (whole.with_cells, bare.with_cells, len(bare)) == (True, False, 10)
    drawn = normaliser.draw(EncodedShowers.concatenate([bare[0:3], bare[3:10]]), generator())
    assert drawn.grid == whole.dequantise(generator()).grid
    assert not drawn.cells.any()
    assert drawn.structure().std() > 0.5


def test_draws_are_dequantised_anew_and_repeat_with_the_seed(shots: Showers, normaliser: Normaliser) -> None:
    encoded = normaliser.encode(*tensors_of(shots[0:10]))
    first, second, again = (normaliser.draw(encoded, generator(seed)).flat() for seed in (0, 1, 0))
    assert torch.equal(first, again)
    assert (first != second).float().mean() > 0.7
    expected = normaliser.forward(*tensors_of(shots[0:10]), generator()).flat()
    assert torch.equal(first, expected)


def test_high_granularity() -> None:
    rng = np.random.default_rng(0)
    showers = rng.gamma(0.5, 5.0, size=(12, 18, 50, 45)).astype(np.float32) + np.float32(0.01)
    showers[rng.random(showers.shape) < 0.8] = 0
    energy, theta = np.full(12, 1e4, np.float32), np.full(12, 1.5, np.float32)
    fitted = fit_normaliser(showers, energy, theta)
    tensors = tuple(torch.from_numpy(array) for array in (showers, energy, theta))
    latents = fitted.forward(*tensors, generator())
    assert latents.grid == (18, 50, 45)
    again = fitted.inverse(latents, *tensors[1:])
    hit = tensors[0] > 0
    assert ((again > 0) != hit).sum() <= 1e-2 * hit.sum()  # twelve showers leave many rows with few values
    torch.testing.assert_close(again.sum((1, 2, 3)), tensors[0].sum((1, 2, 3)), rtol=1e-5, atol=0)
