from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal

from metacalo.checkpoint import tensor_hash
from metacalo.errors import ConfigError
from metacalo.models.vqvae import VQVAE, VQVAESettings
from metacalo.showers.latents import Latents
from tests.small import GRID, draw_latents, seeded, small_tokenizer

CELLS, CONTENT = 3 * 2 * 2, 3 * 2 * 2 + 2 * 3 * 2
"""Values of a token: the cells of a patch, and with them its rings and their hits."""


@pytest.fixture(scope="module")
def tokenizer() -> VQVAE:
    return small_tokenizer()


def surprise(tokenizer: VQVAE, n: int = 8) -> torch.Tensor:
    """Negative log-likelihood of each value (n, token, CONTENT) under the decoder."""
    latents = draw_latents(n)
    mean, log_sigma = tokenizer.decode(tokenizer.encode(latents))
    return -Normal(mean, log_sigma.exp()).log_prob(tokenizer.patching.join_content(latents))


def exchanged(latents: Latents, other: Latents, name: str) -> Latents:
    """`latents` with one part of `other`."""
    return replace(latents, **{name: getattr(other, name)})


def test_the_loss_is_the_negative_log_likelihood_of_all_that_it_codes() -> None:
    model = small_tokenizer(cell_weight=1.0)
    loss, indices = model.loss(draw_latents(8))
    assert torch.equal(indices, model.encode(draw_latents(8)))
    assert surprise(model).shape == (8, model.patching.n_tokens, CONTENT)
    torch.testing.assert_close(loss, surprise(model).mean())  # in evaluation there is no commitment loss


@pytest.mark.parametrize("weight", [0.0, 0.1, 3.0])
def test_a_cell_counts_by_its_weight(weight: float) -> None:
    model = small_tokenizer(cell_weight=weight)
    nats = surprise(model)
    cells, others = nats[..., :CELLS].sum(-1), nats[..., CELLS:].sum(-1)
    expected = (weight * cells + others).mean() / (weight * CELLS + CONTENT - CELLS)
    torch.testing.assert_close(model.loss(draw_latents(8))[0], expected)


def test_cells_without_weight_teach_the_decoder_nothing() -> None:
    model = small_tokenizer(cell_weight=0.0).train()
    model.loss(draw_latents(8))[0].backward()
    mean, log_sigma = model.write[1].weight.grad.chunk(2)
    for gradient in (mean, log_sigma):
        assert (gradient[:CELLS] == 0).all()
        assert (gradient[CELLS:] != 0).any(1).all()


def test_training_adds_the_commitment_loss() -> None:
    model, latents = small_tokenizer(depth=1), draw_latents(8)
    vectors = model._encode(model.patching.join_content(latents))
    quantized = model.quantizer.codes_to_vectors(model.encode(latents))
    plain = model.loss(latents)[0]
    commitment = model.train().loss(latents)[0] - plain
    torch.testing.assert_close(commitment, 0.25 * (vectors - quantized).square().mean(), atol=1e-5, rtol=1e-4)


def test_samples_follow_the_decoder(tokenizer: VQVAE) -> None:
    """Also rings and hits, which two patches in phi share: their mean is as wide as one of them."""
    indices = tokenizer.encode(draw_latents(1))
    mean, log_sigma = tokenizer.decode(indices)
    drawn = tokenizer.sample(indices.expand(4000, -1, -1), seeded(2))
    assert [part.shape[1:] for part in drawn] == [(3, 6), (3, 6), GRID]
    means, variances = (tokenizer.patching.part_content(moment) for moment in (mean, torch.exp(2 * log_sigma)))
    for values, centre, variance in zip(drawn, means, variances, strict=True):
        sigma = variance[0].sqrt()
        assert ((values.mean(0) - centre[0]).abs() < 5 * sigma / 4000**0.5).all()
        torch.testing.assert_close(values.std(0), sigma, rtol=0.06, atol=0)
    once, again = (tokenizer.sample(indices, seeded(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


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
    model, latents = small_tokenizer(size=16), draw_latents(8, seed=3)
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
