from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from metacalo.errors import ShowerFileError
from metacalo.showers import Showers, data_folder, open_showers
from metacalo.showers.normalise import PRIOR_SHOWERS, Latents, Normaliser, fit_normaliser

STAGES = ("total", "layer", "voxel")


@pytest.fixture(scope="module")
def shots() -> Showers:
    """300 showers of SiW."""
    with open_showers(data_folder("tasks") / "siw" / "showers.h5") as file:
        return file.load(slice(0, 300))


def fit(showers: Showers) -> Normaliser:
    return fit_normaliser(showers.showers, showers.energy.astype(np.float64))


def tensors_of(showers: Showers) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(showers.showers), torch.from_numpy(showers.energy)


@pytest.fixture(scope="module")
def normaliser(shots: Showers) -> Normaliser:
    return fit(shots)


@pytest.fixture(scope="module")
def latents(shots: Showers, normaliser: Normaliser) -> Latents:
    return normaliser.forward(*tensors_of(shots), torch.Generator().manual_seed(0))


def normal_latents(n: int, grid: tuple[int, int, int], seed: int = 0) -> Latents:
    generator = torch.Generator().manual_seed(seed)
    return Latents(
        torch.randn(n, generator=generator),
        torch.randn(n, grid[2], generator=generator),
        torch.randn(n, *grid, generator=generator),
    )


def test_inverse_of_forward_is_the_shower(shots: Showers, normaliser: Normaliser, latents: Latents) -> None:
    showers, energy = tensors_of(shots)
    again = normaliser.inverse(latents, energy)
    hit = showers > 0
    assert (again[~hit] == 0).all()  # zeros stay zeros
    assert (again[hit] == 0).sum() <= 3  # cells at the very threshold
    error = (again / showers - 1).abs()[hit]
    assert (error < 1e-3).float().mean() > 0.9995
    torch.testing.assert_close(again.sum((1, 2, 3)), showers.sum((1, 2, 3)), rtol=1e-5, atol=0)
    torch.testing.assert_close(again.sum((1, 2)), showers.sum((1, 2)), rtol=1e-3, atol=0.05)


def test_no_hit_of_the_sample_is_lost(shots: Showers, normaliser: Normaliser, latents: Latents) -> None:
    showers, energy = tensors_of(shots)
    assert ((normaliser.inverse(latents, energy) > 0) == (showers > 0)).all()


def test_latents_of_the_sample_are_standard_normal(latents: Latents) -> None:
    for values, tolerance in ((latents.total, 0.06), (latents.layers, 0.05), (latents.voxels, 0.01)):
        assert abs(float(values.mean())) < tolerance
        assert abs(float(values.std()) - 1) < tolerance
    rings = latents.voxels.transpose(1, 2).flatten(0, 1)  # (shower and phi, r, z)
    assert rings.mean(0).abs().max() < 0.1
    assert (rings.std(0) - 1).abs().max() < 0.12


def test_unseen_showers_of_the_detector_have_nearly_normal_latents(normaliser: Normaliser) -> None:
    with open_showers(data_folder("tasks") / "siw" / "showers.h5") as file:
        unseen = file.load(slice(300, 600))
    values = normaliser.forward(*tensors_of(unseen), torch.Generator().manual_seed(0))
    assert abs(float(values.voxels.mean())) < 0.03
    assert abs(float(values.voxels.std()) - 1) < 0.03
    assert abs(float(values.layers.std()) - 1) < 0.15


@pytest.mark.parametrize("seed", [0, 1])
def test_the_sum_of_a_decoded_shower_is_what_its_total_latent_says(
    shots: Showers, normaliser: Normaliser, seed: int
) -> None:
    _, energy = tensors_of(shots)
    drawn = normal_latents(len(shots), shots.showers.shape[1:], seed)
    decoded = normaliser.inverse(drawn, energy)
    response = normaliser.total.to_energy(drawn.total[:, None, None], torch.log(energy)[:, None])[:, 0, 0]
    expected = response * energy * normaliser.scale
    np.testing.assert_allclose(decoded.sum((1, 2, 3), dtype=torch.float64), expected.double(), rtol=1e-5)
    assert (decoded[decoded > 0] > 0.9 * normaliser.threshold).all()


def test_a_layer_without_a_hit_gives_its_energy_to_its_likeliest_cell(shots: Showers, normaliser: Normaliser) -> None:
    energy = torch.full((1,), 2e4)
    drawn = normal_latents(1, shots.showers.shape[1:])
    usual = normaliser.inverse(drawn, energy)
    z = int(usual[0].sum((0, 1)).argmax())
    drawn.voxels[0, :, :, z] = -7.0
    drawn.voxels[0, 0, 5, z] = -6.0  # r = 0 is hit most often: its threshold lies lowest
    decoded = normaliser.inverse(drawn, energy)
    expected = torch.zeros_like(decoded[0, :, :, z])
    expected[0, 5] = usual[0, :, :, z].sum()
    torch.testing.assert_close(decoded[0, :, :, z], expected, rtol=1e-2, atol=0)
    torch.testing.assert_close(decoded.sum(), usual.sum(), rtol=1e-5, atol=0)


def test_independent_latents_already_have_the_occupancy_and_the_profiles(
    shots: Showers, normaliser: Normaliser
) -> None:
    showers, energy = tensors_of(shots)
    decoded = normaliser.inverse(normal_latents(len(shots), shots.showers.shape[1:], 3), energy)
    assert float((decoded > 0).float().mean()) == pytest.approx(float((showers > 0).float().mean()), rel=0.03)
    for axes in ((0, 1, 2), (0, 2, 3)):  # longitudinal, lateral
        expected = showers.sum(axes) / showers.sum()
        torch.testing.assert_close(decoded.sum(axes) / decoded.sum(), expected, atol=0.01, rtol=0)


def test_latents_do_not_depend_on_the_scale_of_the_file(
    shots: Showers, normaliser: Normaliser, latents: Latents
) -> None:
    raw = replace(shots, showers=shots.showers * np.float32(0.03))
    fitted = fit(raw)
    assert fitted.scale == pytest.approx(0.03 * normaliser.scale, rel=1e-5)
    assert fitted.threshold == pytest.approx(0.03 * normaliser.threshold, rel=1e-5)
    others = fitted.forward(*tensors_of(raw), torch.Generator().manual_seed(0))
    for name in ("total", "layers", "voxels"):
        difference = (getattr(others, name) - getattr(latents, name)).abs()
        # where quantiles coincide, a rounding decides which of the latents of one energy is taken
        assert (difference > 2e-3).float().mean() < 2e-4, name
    back = fitted.inverse(latents, torch.from_numpy(shots.energy))
    expected = 0.03 * normaliser.inverse(latents, torch.from_numpy(shots.energy))
    torch.testing.assert_close(back, expected, rtol=1e-3, atol=1e-6)


def test_empty_showers_and_layers_stay_empty(shots: Showers, normaliser: Normaliser) -> None:
    voxels = shots.showers[:4].copy()
    voxels[0] = 0
    voxels[1, :, :, 20:] = 0
    showers, energy = torch.from_numpy(voxels), torch.from_numpy(shots.energy[:4])
    again = normaliser.inverse(normaliser.forward(showers, energy, torch.Generator().manual_seed(2)), energy)
    assert (again[0] == 0).all()
    assert (again[1, :, :, 20:] == 0).all()
    torch.testing.assert_close(again[1:].sum((1, 2, 3)), showers[1:].sum((1, 2, 3)))
    mixed = Showers(
        np.concatenate([shots.showers[:150], 0 * shots.showers[150:]]), shots.energy, shots.theta, shots.phi
    )
    seen = fit(mixed)
    again = seen.inverse(
        seen.forward(*tensors_of(mixed), torch.Generator().manual_seed(2)), torch.from_numpy(mixed.energy)
    )
    assert (again[150:] == 0).all()
    assert (again[:150].sum((1, 2, 3)) > 0).all()


def test_a_sample_of_empty_showers_cannot_be_fitted(shots: Showers) -> None:
    with pytest.raises(ShowerFileError, match="every shower given to fit the normaliser is empty"):
        fit(replace(shots, showers=0 * shots.showers))
    with pytest.raises(ShowerFileError, match="every shower"):
        fit(shots[0:0])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_showers_is_enough_to_fit(shots: Showers, n: int) -> None:
    fitted = fit(shots[0:n])
    energy = torch.from_numpy(shots.energy[:50])
    decoded = fitted.inverse(normal_latents(50, shots.showers.shape[1:]), energy)
    assert torch.isfinite(decoded).all()
    assert float(decoded.sum() / energy.sum()) == pytest.approx(fitted.scale, rel=0.2)


def test_shrinking_goes_from_the_prior_to_the_fit(shots: Showers, normaliser: Normaliser) -> None:
    prior = fit(shots[0:20])
    shrunk = normaliser.shrunk_towards(prior)
    for stage in STAGES:
        mine, theirs, result = (getattr(each, stage) for each in (normaliser, prior, shrunk))
        share = (mine.weight / (mine.weight + PRIOR_SHOWERS[stage]))[..., None]
        torch.testing.assert_close(
            result.log_quantiles, share * mine.log_quantiles + (1 - share) * theirs.log_quantiles, atol=1e-4, rtol=1e-4
        )
        assert torch.equal(result.t0[mine.weight == 0], theirs.t0[mine.weight == 0])
        same = getattr(normaliser.shrunk_towards(normaliser), stage)
        torch.testing.assert_close(same.log_quantiles, mine.log_quantiles)
    assert (shrunk.scale, shrunk.threshold) == (normaliser.scale, normaliser.threshold)


def test_tensors_round_trip(shots: Showers, normaliser: Normaliser, latents: Latents) -> None:
    again = Normaliser.from_tensors(normaliser.tensors())
    assert (again.scale, again.threshold) == (normaliser.scale, normaliser.threshold)
    for stage in STAGES:
        assert getattr(again, stage).extrapolate == getattr(normaliser, stage).extrapolate
    energy = torch.from_numpy(shots.energy)
    assert torch.equal(again.inverse(latents[:20], energy[:20]), normaliser.inverse(latents[:20], energy[:20]))


def test_rows_of_encoded_showers(shots: Showers, normaliser: Normaliser) -> None:
    encoded = normaliser.encode(*tensors_of(shots[0:10]))
    rows = torch.tensor([7, 2])
    part = normaliser.encode(*(tensor[rows] for tensor in tensors_of(shots[0:10])))
    torch.testing.assert_close(encoded[rows].latents.voxels, part.latents.voxels, equal_nan=True)
    torch.testing.assert_close(encoded[rows].t0_voxels, part.t0_voxels)
    assert len(encoded[rows]) == len(encoded[rows].latents) == 2


def test_high_granularity() -> None:
    generator = np.random.default_rng(0)
    showers = generator.gamma(0.2, 5.0, size=(12, 18, 50, 45)).astype(np.float32)
    showers[generator.random(showers.shape) < 0.8] = 0
    energy = np.full(12, 1e4, np.float32)
    fitted = fit_normaliser(showers, energy.astype(np.float64))
    x, e = torch.from_numpy(showers), torch.from_numpy(energy)
    again = fitted.inverse(fitted.forward(x, e, torch.Generator().manual_seed(0)), e)
    assert (again[x == 0] == 0).all()
    error = (again / x - 1).abs()[x > 0]
    assert (error < 1e-3).float().mean() > 0.999
