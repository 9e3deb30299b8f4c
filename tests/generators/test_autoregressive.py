from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import Batch
from metacalo.models.prior import Sampling
from metacalo.storage.checkpoint import tensor_hash
from tests.small import disturb, draw_batch, draw_latents, seeded, small_autoregressive


@pytest.fixture
def model() -> Autoregressive:
    result = small_autoregressive(bins=9)  # bins of width 1, from -4.5 to 4.5
    disturb(result)
    return result.eval()


def test_the_sequence_is_total_layers_then_codes(model: Autoregressive) -> None:
    batch = draw_batch(3)
    codes = model.encode(batch.latents)
    assert codes.shape == (3, model.prior.length) == (3, 1 + 6 + 6 * 2)
    energies = torch.cat([batch.latents.total[:, None], batch.latents.layers], 1)
    assert torch.equal(codes[:, :7], (energies + 4.5).floor().long())
    assert torch.equal(codes[:, 7:].reshape(3, 6, 2), model.tokenizer.encode(batch.latents))


def test_energies_outside_the_range_go_to_the_last_bins(model: Autoregressive) -> None:
    far = {"total": torch.tensor([-9.0, 9.0]), "layers": torch.tensor([[8.0], [-8.0]]).expand(2, 6)}
    latents = replace(draw_latents(2), **far)
    codes = model.encode(latents)
    assert codes[:, 0].tolist() == [0, 8]
    assert codes[:, 1].tolist() == [8, 0]


def test_decoded_energies_are_even_within_their_bins(model: Autoregressive) -> None:
    codes = model.encode(draw_latents(1)).expand(3000, -1)
    latents = model.decode(codes, seeded())
    energies = torch.cat([latents.total[:, None], latents.layers], 1)
    within = energies + 4.5 - codes[:, :7]
    assert ((within >= -1e-5) & (within <= 1 + 1e-5)).all()
    torch.testing.assert_close(within.mean(0), torch.full((7,), 0.5), atol=0.025, rtol=0)
    torch.testing.assert_close(within.std(0), torch.full((7,), 12**-0.5), atol=0.02, rtol=0)


def test_decoded_codes_encode_to_the_same_energies(model: Autoregressive) -> None:
    codes = model.prior.sample(draw_batch(20).conditions, seeded())
    assert torch.equal(model.encode(model.decode(codes, seeded(1)))[:, :7], codes[:, :7])


def test_what_is_no_energy_is_drawn_from_the_decoder(model: Autoregressive) -> None:
    codes = model.encode(draw_latents(5))
    latents = model.decode(codes, seeded(2))
    noise = seeded(2)
    torch.rand(5, 7, generator=noise)  # the energies come first
    drawn = model.tokenizer.sample(codes[:, 7:].reshape(5, 6, 2), noise)
    for part in ("rings", "hits", "cells"):
        assert torch.equal(getattr(latents, part), getattr(drawn, part))


def test_the_loss_is_the_mean_negative_log_likelihood(model: Autoregressive) -> None:
    batch = draw_batch(5)
    singly = [model.log_likelihood(Batch(batch.latents[i : i + 1], batch.conditions[i : i + 1])) for i in range(5)]
    torch.testing.assert_close(model.log_likelihood(batch), torch.cat(singly), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(model.loss(batch, seeded()), -torch.cat(singly).mean() / 19)


def test_the_tokenizer_stays_in_evaluation_mode(model: Autoregressive) -> None:
    model.train()
    assert model.prior.training
    assert not any(module.training for module in model.tokenizer.modules())
    before = tensor_hash(model.frozen())
    model.loss(draw_batch(4), seeded()).backward()
    assert tensor_hash(model.frozen()) == before
    assert all(parameter.grad is None for parameter in model.tokenizer.parameters())


def test_sampling_settings_are_used(model: Autoregressive) -> None:
    model.sampling = Sampling(top_k=1)
    conditions = draw_batch(4).conditions
    first, second = (model.encode(model.sample(conditions, seeded(seed))) for seed in range(2))
    assert torch.equal(first[:, :7], second[:, :7])
