from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from metacalo.checkpoint import tensor_hash
from metacalo.errors import ConfigError
from metacalo.models.vqvae import VQVAE, VQVAESettings
from tests.small import GRID, draw_latents, seeded, small_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> VQVAE:
    return small_tokenizer()


def test_the_loss_is_the_negative_log_likelihood_of_the_cells(tokenizer: VQVAE) -> None:
    voxels = draw_latents(8).voxels
    loss, indices = tokenizer.loss(voxels)
    assert torch.equal(indices, tokenizer.encode(voxels))
    mean, log_sigma = tokenizer.decode(indices)
    expected = -Normal(mean, log_sigma.exp()).log_prob(voxels).mean()
    torch.testing.assert_close(loss, expected)  # in evaluation there is no commitment loss


def test_training_adds_the_commitment_loss(tokenizer: VQVAE) -> None:
    model = small_tokenizer(depth=1)
    voxels = draw_latents(8).voxels
    latent = model._encode(voxels)
    quantized = model.quantizer.codes_to_vectors(model.encode(voxels))
    plain = model.loss(voxels)[0]
    commitment = model.train().loss(voxels)[0] - plain
    torch.testing.assert_close(commitment, 0.25 * (latent - quantized).square().mean(), atol=1e-5, rtol=1e-4)


def test_samples_follow_the_decoder(tokenizer: VQVAE) -> None:
    indices = tokenizer.encode(draw_latents(1).voxels)
    mean, log_sigma = tokenizer.decode(indices)
    drawn = tokenizer.sample(indices.expand(4000, -1, -1), seeded(2))
    assert drawn.shape == (4000, *GRID)
    sigma = log_sigma[0].exp()
    assert ((drawn.mean(0) - mean[0]).abs() < 5 * sigma / 4000**0.5).all()
    torch.testing.assert_close(drawn.std(0), sigma, rtol=0.06, atol=0)
    assert torch.equal(tokenizer.sample(indices, seeded(3)), tokenizer.sample(indices, seeded(3)))


def test_using_it_changes_nothing(tokenizer: VQVAE) -> None:
    before = tensor_hash(tokenizer.state_dict())
    voxels = draw_latents(8).voxels
    tokenizer.sample(tokenizer.encode(voxels), seeded())
    tokenizer.loss(voxels)
    assert tensor_hash(tokenizer.state_dict()) == before


def test_it_learns_to_tell_a_few_showers_apart() -> None:
    model = small_tokenizer(size=16)
    voxels = draw_latents(8, seed=3).voxels
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss, _ = model.loss(voxels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    entropy = 1.4189  # nats per cell of a standard normal: what is reached without any code
    assert losses[0] > entropy
    assert sum(losses[-5:]) / 5 < entropy - 0.3


def test_the_grid_must_be_made_of_patches() -> None:
    with pytest.raises(ConfigError, match="patch size 16 along phi does not divide the 50 cells"):
        VQVAE(VQVAESettings(), (18, 50, 45))
