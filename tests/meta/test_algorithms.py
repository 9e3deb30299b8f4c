from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch

from metacalo.checkpoint import tensor_hash
from metacalo.errors import UnknownNameError
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import ShowerGenerator
from metacalo.generators.diffusion import Diffusion, DiffusionSettings
from metacalo.meta.algorithms import ALGORITHMS, AlgorithmName, resolve_algorithm
from metacalo.meta.engines import HigherEngine
from metacalo.meta.episodes import Episode, EpisodeSampler, TaskStream
from metacalo.models.dit import DiTSettings
from metacalo.models.prior import PriorSettings
from metacalo.models.quantizer import QuantizerSettings
from metacalo.models.vqvae import VQVAE, VQVAESettings
from tests.small import SMALL, disturb, draw_batch, seeded


def small_episodes(n: int = 2) -> list[Episode]:
    return [
        Episode(f"task {i}", (draw_batch(4, 10 * i), draw_batch(4, 10 * i + 1)), draw_batch(4, 10 * i + 2))
        for i in range(n)
    ]


def outer_step(
    model: ShowerGenerator, algorithm: str, episodes: list[Episode], rate: float = 0.05, seed: int = 0
) -> tuple[float, dict[str, torch.Tensor]]:
    """Query loss and gradients of one outer step."""
    model.train()
    model.zero_grad(set_to_none=True)
    loss = resolve_algorithm(algorithm)(model, episodes, HigherEngine(), rate, seeded(seed))
    return float(loss), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(params=sorted(SMALL))
def model(request: pytest.FixtureRequest) -> ShowerGenerator:
    result = SMALL[request.param]()
    disturb(result)
    return result


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_gradients_are_left_on_trainable_parameters_and_nothing_moves(model: ShowerGenerator, algorithm: str) -> None:
    before = tensor_hash(model.state_dict())
    loss, gradients = outer_step(model, algorithm, small_episodes())
    assert gradients.keys() == model.trainable().keys()
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert tensor_hash(model.state_dict()) == before
    assert loss > 0


def test_first_and_second_order_have_one_loss_and_two_gradients(model: ShowerGenerator) -> None:
    (first_loss, first), (second_loss, second) = (
        outer_step(model, name, small_episodes()) for name in ("fomaml", "maml")
    )
    assert first_loss == pytest.approx(second_loss, rel=1e-5)
    difference = torch.cat([(first[name] - second[name]).flatten() for name in first]).norm()
    norm = torch.cat([gradient.flatten() for gradient in second.values()]).norm()
    assert difference > 1e-3 * norm


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_without_inner_movement_it_is_the_plain_gradient(model: ShowerGenerator, algorithm: str) -> None:
    """With a vanishing inner rate only the query losses are left, with the noise that is drawn after the support's."""
    episodes = small_episodes()
    loss, gradients = outer_step(model, algorithm, episodes, rate=1e-12)
    model.zero_grad(set_to_none=True)
    noise = seeded(0)
    total = torch.zeros(())
    for episode in episodes:
        with torch.no_grad():
            for support in episode.support:
                model.loss(support, noise)
        total = total + model.loss(episode.query, noise) / len(episodes)
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    for name, parameter in model.trainable().items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_meta_batch_is_averaged(model: ShowerGenerator) -> None:
    episodes, noise = small_episodes(3), seeded(0)
    _, many = outer_step(model, "fomaml", episodes)
    many = {name: gradient.clone() for name, gradient in many.items()}
    model.zero_grad(set_to_none=True)
    for episode in episodes:  # one after the other their gradients add up
        resolve_algorithm("fomaml")(model, [episode], HigherEngine(), 0.05, noise)
    for name, parameter in model.trainable().items():
        torch.testing.assert_close(many[name], parameter.grad / 3, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_gradients_are_added_to_those_that_are_there(model: ShowerGenerator, algorithm: str) -> None:
    _, gradients = outer_step(model, algorithm, small_episodes())
    before = {name: gradient.clone() for name, gradient in gradients.items()}
    resolve_algorithm(algorithm)(model, small_episodes(), HigherEngine(), 0.05, seeded(0))
    for name, parameter in model.trainable().items():
        torch.testing.assert_close(parameter.grad, 2 * before[name], rtol=1e-4, atol=1e-6)


def test_meta_training_makes_adaptation_better(model: ShowerGenerator) -> None:
    episodes = small_episodes()
    optimizer = torch.optim.Adam(model.trainable().values(), lr=5e-3)
    losses = []
    for _ in range(12):
        loss, _ = outer_step(model, "fomaml", episodes)
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < 0.97 * losses[0]


def test_the_tokenizer_is_frozen_bit_for_bit() -> None:
    model = SMALL["ar"]()
    before = tensor_hash(model.frozen())
    for algorithm in sorted(ALGORITHMS):
        optimizer = torch.optim.AdamW(model.trainable().values(), lr=1e-2)
        outer_step(model, algorithm, small_episodes())
        optimizer.step()
    assert tensor_hash(model.frozen()) == before


def of_full_grid(name: str) -> ShowerGenerator:
    """Small generators for showers of 9 x 16 x 45 cells and 22 conditions."""
    torch.manual_seed(0)
    grid, patch = (9, 16, 45), (9, 16, 9)
    if name == "diffusion":
        return Diffusion(DiffusionSettings(dit=DiTSettings(patch=patch, width=12, blocks=1, rank=1)), grid, 22)
    quantizer = QuantizerSettings(size=8, code_width=4)
    tokenizer = VQVAE(VQVAESettings(patch=patch, width=12, blocks=1, quantizer=quantizer), grid)
    tokenizer.train().loss(draw_batch(16, grid=grid).latents)
    return Autoregressive(tokenizer, PriorSettings(width=12, blocks=1, rank=1, bins=8), 22)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_episodes_of_real_showers(stream: Callable[..., TaskStream], name: str, algorithm: str) -> None:
    model = of_full_grid(name)
    sampler = EpisodeSampler([stream("siw"), stream("pbwo4")], seeded())
    episodes = sampler.episodes(2, inner_steps=2, support=4, query=4)
    frozen = tensor_hash(model.frozen())
    loss, gradients = outer_step(model, algorithm, episodes)
    assert 0 < loss < 10
    assert set(gradients) <= set(model.trainable())
    assert any(gradient.abs().max() > 0 for gradient in gradients.values())
    assert tensor_hash(model.frozen()) == frozen


def test_names_of_algorithms() -> None:
    assert set(get_args(AlgorithmName)) == set(ALGORITHMS)
    with pytest.raises(UnknownNameError, match=r"^unknown algorithm 'fmaml' .*did you mean 'fomaml'\?$"):
        resolve_algorithm("fmaml")
