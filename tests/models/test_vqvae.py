from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.stats import kstest
from torch.distributions import Normal

from metacalo.errors import ConfigError
from metacalo.models.vqvae import VQVAE, VQVAESettings
from metacalo.normaliser.latents import Latents
from metacalo.storage.checkpoint import tensor_hash
from tests.small import GRID, draw_latents, seeded, small_tokenizer

CELLS, RINGS = 3 * 2 * 2, 3 * 2
"""Cells of a patch, and its rings."""


@pytest.fixture(scope="module")
def tokenizer() -> VQVAE:
    """Codes cells too."""
    return small_tokenizer(cell_weight=0.1)


def surprise(tokenizer: VQVAE, n: int = 8) -> torch.Tensor:
    """Negative log-likelihood of each value (n, token, token_size) under the decoder."""
    latents = draw_latents(n)
    mean, log_sigma = tokenizer.decode(tokenizer.encode(latents))
    return -Normal(mean, log_sigma.exp()).log_prob(tokenizer.patching.join(latents))


def exchanged(latents: Latents, other: Latents, name: str) -> Latents:
    """`latents` with one part of `other`."""
    return replace(latents, **{name: getattr(other, name)})


def test_the_loss_is_the_negative_log_likelihood_of_all_that_it_codes() -> None:
    model = small_tokenizer(cell_weight=1.0, hits_weight=1.0)
    loss, indices = model.loss(draw_latents(8))
    assert torch.equal(indices, model.encode(draw_latents(8)))
    assert surprise(model).shape == (8, model.patching.n_tokens, CELLS + 2 * RINGS)
    torch.testing.assert_close(loss, surprise(model).mean())  # in evaluation there is no commitment loss


@pytest.mark.parametrize(("cell", "hits"), [(0.1, 1.0), (3.0, 0.3), (0.0, 0.3), (0.5, 0.0), (0.0, 0.0)])
def test_values_count_by_their_weights(cell: float, hits: float) -> None:
    """A ring's energy counts 1, and what counts 0 is not there."""
    model = small_tokenizer(cell_weight=cell, hits_weight=hits)
    weights = [w for w, n in ((cell, CELLS), (1.0, RINGS), (hits, RINGS)) if w for _ in range(n)]
    nats = surprise(model) @ torch.tensor(weights)
    torch.testing.assert_close(model.loss(draw_latents(8))[0], nats.mean() / sum(weights))


def test_by_default_it_codes_the_rings_and_a_little_their_hits() -> None:
    assert VQVAESettings().weights == {"rings": 1.0, "hits": 0.3}


def test_what_it_does_not_code_is_drawn_as_independent_normals() -> None:
    model = small_tokenizer()
    latents, other = draw_latents(64), draw_latents(64, seed=1)
    indices = model.encode(latents)
    assert torch.equal(model.encode(exchanged(latents, other, "cells")), indices)
    drawn = model.sample(indices, seeded(2)).cells
    assert drawn.shape == (64, *GRID)
    assert kstest(drawn.flatten().numpy(), "norm").pvalue > 0.01
    assert float(drawn.mean((1, 2)).var()) == pytest.approx(1 / 12, rel=0.2)  # 1/2 + 1/24 in the data


def test_training_adds_the_commitment_loss() -> None:
    model, latents = small_tokenizer(depth=1), draw_latents(8)
    vectors = model._encode(model.patching.join(latents))
    quantized = model.quantizer.codes_to_vectors(model.encode(latents))
    plain = model.loss(latents)[0]
    commitment = model.train().loss(latents)[0] - plain
    torch.testing.assert_close(commitment, 0.25 * (vectors - quantized).square().mean(), atol=1e-5, rtol=1e-4)


def test_samples_follow_the_decoder(tokenizer: VQVAE) -> None:
    """Also rings and hits, which two patches in phi share: their mean is as wide as one of them."""
    indices = tokenizer.encode(draw_latents(1))
    mean, log_sigma = tokenizer.decode(indices)
    drawn = tokenizer.sample(indices.expand(4000, -1, -1), seeded(2))
    zeros = draw_latents(1).map(torch.zeros_like)
    centres, widths = (tokenizer.patching.split(moment, zeros) for moment in (mean, torch.exp(log_sigma)))
    for part in ("rings", "hits", "cells"):
        values, centre, sigma = (getattr(latents, part) for latents in (drawn, centres, widths))
        assert ((values.mean(0) - centre[0]).abs() < 5 * sigma[0] / 4000**0.5).all()
        torch.testing.assert_close(values.std(0), sigma[0], rtol=0.06, atol=0)
    once, again = (tokenizer.sample(indices, seeded(3)) for _ in range(2))
    assert torch.equal(once.flat(), again.flat())


def test_codes_depend_on_rings_hits_and_cells_alone(tokenizer: VQVAE) -> None:
    latents, other = draw_latents(64), draw_latents(64, seed=1)
    codes = tokenizer.encode(latents)
    for name in ("total", "layers"):
        assert torch.equal(tokenizer.encode(exchanged(latents, other, name)), codes)
    for name in ("rings", "hits", "cells"):
        assert (tokenizer.encode(exchanged(latents, other, name)) != codes).any((1, 2)).float().mean() > 0.5


def test_using_it_changes_nothing(tokenizer: VQVAE) -> None:
    before = tensor_hash(tokenizer.state_dict())
    latents = draw_latents(8)
    tokenizer.sample(tokenizer.encode(latents), seeded())
    tokenizer.loss(latents)
    assert tensor_hash(tokenizer.state_dict()) == before


def test_it_learns_to_tell_a_few_showers_apart() -> None:
    model, latents = small_tokenizer(size=16, cell_weight=0.1, hits_weight=1.0), draw_latents(8, seed=3)
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss, _ = model.loss(latents)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    entropy = 1.4189  # nats per value of a standard normal: what is reached without any code
    assert losses[0] > entropy
    assert sum(losses[-5:]) / 5 < entropy - 0.3


def test_the_grid_must_be_made_of_patches() -> None:
    with pytest.raises(ConfigError, match="patch size 16 along phi does not divide the 50 cells"):
        VQVAE(VQVAESettings(), (18, 50, 45))
