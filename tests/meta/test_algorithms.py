from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from metacalo.errors import ConfigError, UnknownNameError
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import Batch, ShowerGenerator
from metacalo.generators.diffusion import Diffusion, DiffusionSettings
from metacalo.meta.algorithms import ALGORITHMS, Algorithm, AlgorithmName, resolve_algorithm
from metacalo.meta.engines import Engine, TorchEngine
from metacalo.models.dit import DiTSettings
from metacalo.models.prior import PriorSettings
from metacalo.models.quantizer import QuantizerSettings
from metacalo.models.subspaces import SUBSPACES
from metacalo.models.vqvae import VQVAE, VQVAESettings
from metacalo.storage.checkpoint import tensor_hash
from metacalo.training_data.episodes import Episode, TaskStream
from metacalo.training_data.sampler import EpisodeSampler
from tests.small import SMALL, disturb, draw_batch, seeded

WITH_INNER_LOOP = sorted(set(ALGORITHMS) - {"multitask"})


def small_episodes(n: int = 2) -> list[Episode]:
    return [
        Episode(f"task {i}", (draw_batch(4, 10 * i), draw_batch(4, 10 * i + 1)), draw_batch(4, 10 * i + 2))
        for i in range(n)
    ]


def make(name: str, model: ShowerGenerator, engine: Engine | None = None, rate: float = 0.05) -> Algorithm:
    return resolve_algorithm(name)(model, engine or TorchEngine(), rate=rate)


def gradients_of(algorithm: Algorithm) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in algorithm.parameters().items() if p.grad is not None}


def outer_step(algorithm: Algorithm, episodes: list[Episode], seed: int = 0) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one outer step."""
    algorithm.model.train().zero_grad(set_to_none=True)
    for parameter in algorithm.parameters().values():
        parameter.grad = None
    return float(algorithm.step(episodes, seeded(seed))), gradients_of(algorithm)


def first_steps(
    model: ShowerGenerator, episode: Episode, names: list[str], rate: float, noise: torch.Generator
) -> None:
    """Moves the model's own parameters of those names as a first-order inner loop does."""
    for batch in episode.support:
        moved = [dict(model.named_parameters())[name] for name in names]
        found = torch.autograd.grad(model.loss(batch, noise), moved)
        with torch.no_grad():
            for parameter, gradient in zip(moved, found, strict=True):
                parameter -= rate * gradient


def snapshot(model: ShowerGenerator) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(params=sorted(SMALL))
def model(request: pytest.FixtureRequest) -> ShowerGenerator:
    result = SMALL[request.param]()
    disturb(result)
    return result


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_gradients_are_left_on_what_the_outer_loop_moves_and_nothing_moves(model: ShowerGenerator, name: str) -> None:
    before = tensor_hash(model.state_dict())
    algorithm = make(name, model)
    loss, gradients = outer_step(algorithm, small_episodes())
    expected = {
        "reptile": set(model.subspace("adapters")),
        "cavia": set(model.trainable()) - set(model.subspace("context")),
        "meta-sgd": set(model.trainable()) | {f"rates/{inner}" for inner in model.subspace("adapters")},
    }
    assert gradients.keys() == expected.get(name, set(model.trainable()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())
    assert tensor_hash(model.state_dict()) == before
    assert all(parameter.grad is None for n, parameter in model.named_parameters() if n not in gradients)
    assert loss > 0


@pytest.mark.parametrize("name", WITH_INNER_LOOP)
def test_engines_take_the_same_outer_steps(model: ShowerGenerator, engine: Engine, name: str) -> None:
    loss, gradients = outer_step(make(name, model, engine), small_episodes())
    expected_loss, expected = outer_step(make(name, model), small_episodes())
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-5)


def test_first_and_second_order_have_one_loss_and_two_gradients(model: ShowerGenerator) -> None:
    (first_loss, first), (second_loss, second) = (
        outer_step(make(name, model), small_episodes()) for name in ("fomaml", "maml")
    )
    assert first_loss == pytest.approx(second_loss, rel=1e-5)
    difference = torch.cat([(first[name] - second[name]).flatten() for name in first]).norm()
    norm = torch.cat([gradient.flatten() for gradient in second.values()]).norm()
    assert difference > 1e-3 * norm


def test_the_first_order_gradient_is_that_at_the_adapted_point(model: ShowerGenerator) -> None:
    (episode,), start = small_episodes(1), snapshot(model)
    loss, gradients = outer_step(make("fomaml", model), [episode])
    noise = seeded(0)
    first_steps(model, episode, list(model.subspace("adapters")), 0.05, noise)
    model.zero_grad(set_to_none=True)
    query = model.loss(episode.query, noise)
    query.backward()
    assert loss == pytest.approx(float(query.detach()), rel=1e-5)
    for name, parameter in model.trainable().items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)
    model.load_state_dict(start)


@pytest.mark.parametrize("name", ["maml", "fomaml", "anil", "meta-sgd"])
def test_without_inner_movement_it_is_the_plain_gradient(model: ShowerGenerator, name: str) -> None:
    """With a vanishing inner rate only the query losses are left, with the noise that is drawn after the support's."""
    episodes = small_episodes()
    loss, gradients = outer_step(make(name, model, rate=1e-12), episodes)
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
    for key, parameter in model.trainable().items():
        torch.testing.assert_close(gradients[key], parameter.grad, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", ["maml", "reptile", "multitask"])
def test_the_meta_batch_is_averaged(model: ShowerGenerator, name: str) -> None:
    episodes, noise, algorithm = small_episodes(3), seeded(0), make(name, model)
    _, many = outer_step(algorithm, episodes)
    model.zero_grad(set_to_none=True)
    for episode in episodes:  # one after the other their gradients add up
        algorithm.step([episode], noise)
    torch.testing.assert_close(
        many, {key: gradient / 3 for key, gradient in gradients_of(algorithm).items()}, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_gradients_are_added_to_those_that_are_there(model: ShowerGenerator, name: str) -> None:
    algorithm = make(name, model)
    _, gradients = outer_step(algorithm, small_episodes())
    algorithm.step(small_episodes(), seeded(0))
    twice = {key: 2 * gradient for key, gradient in gradients.items()}
    torch.testing.assert_close(gradients_of(algorithm), twice, rtol=1e-4, atol=1e-6)


class Watched:
    """An engine that keeps the inner loops that it is given, and what they lead to."""

    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def adapt(self, model, loop, loss):
        fast = TorchEngine().adapt(model, loop, loss)
        self.seen.append((loop, fast))
        return fast


@pytest.mark.parametrize(
    ("name", "subspace"),
    [("maml", "adapters"), ("reptile", "adapters"), ("meta-sgd", "adapters"), ("anil", "head"), ("cavia", "context")],
)
def test_the_inner_loop_moves_its_subspace_and_nothing_else(model: ShowerGenerator, name: str, subspace: str) -> None:
    watched = Watched()
    outer_step(make(name, model, watched), small_episodes())
    assert len(watched.seen) == 2
    own = dict(model.named_parameters())
    for loop, fast in watched.seen:
        assert loop.start.keys() == fast.inner().keys() == model.subspace(subspace).keys()
        assert loop.steps == 2
        assert any((fast.inner()[key] != own[key]).any() for key in fast.inner())


@pytest.mark.parametrize("subspace", sorted(set(SUBSPACES) - {"adapters"}))
@pytest.mark.parametrize("name", ["maml", "reptile", "meta-sgd"])
def test_another_subspace_can_be_asked_for(model: ShowerGenerator, name: str, subspace: str) -> None:
    algorithm = resolve_algorithm(name)(model, TorchEngine(), rate=0.05, subspace=subspace)
    assert algorithm.inner.keys() == model.subspace(subspace).keys()
    _, gradients = outer_step(algorithm, small_episodes(1))
    assert gradients


@pytest.mark.parametrize(
    ("name", "moved"), [("anil", "the subspace 'head'"), ("cavia", "the subspace 'context'"), ("multitask", "nothing")]
)
def test_but_not_where_it_makes_the_algorithm(model: ShowerGenerator, name: str, moved: str) -> None:
    with pytest.raises(ConfigError, match=f"moves {moved}, not 'bias'; leave the subspace out"):
        resolve_algorithm(name)(model, TorchEngine(), rate=0.05, subspace="bias")


class TestCAVIA:
    def test_every_episode_starts_at_zero(self, model: ShowerGenerator) -> None:
        watched = Watched()
        outer_step(make("cavia", model, watched), small_episodes())
        for loop, _ in watched.seen:
            assert loop.second_order
            assert all(start.abs().sum() == 0 for start in loop.start.values())
        assert all(parameter.abs().sum() > 0 for parameter in model.subspace("context").values())

    def test_the_model_s_context_has_no_part_in_it(self, model: ShowerGenerator) -> None:
        algorithm = make("cavia", model)
        loss, gradients = outer_step(algorithm, small_episodes())
        algorithm.prepare()
        assert all(parameter.abs().sum() == 0 for parameter in model.subspace("context").values())
        again, same = outer_step(algorithm, small_episodes())
        assert again == loss
        assert all(torch.equal(same[name], gradients[name]) for name in gradients)

    def test_it_is_maml_in_the_context_from_zero(self, model: ShowerGenerator) -> None:
        algorithm = make("cavia", model)
        algorithm.prepare()
        loss, gradients = outer_step(algorithm, small_episodes())
        plain = resolve_algorithm("maml")(model, TorchEngine(), rate=0.05, subspace="context")
        expected_loss, expected = outer_step(plain, small_episodes())
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        assert set(expected) - set(gradients) == set(model.subspace("context"))
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)


class TestMetaSGD:
    def test_it_begins_as_maml(self, model: ShowerGenerator) -> None:
        algorithm = make("meta-sgd", model)
        loss, gradients = outer_step(algorithm, small_episodes())
        expected_loss, expected = outer_step(make("maml", model), small_episodes())
        assert loss == pytest.approx(expected_loss, rel=1e-6)
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6)
        for name, rate in algorithm.rates().items():
            torch.testing.assert_close(rate, torch.full_like(model.subspace("adapters")[name], 0.05))

    @pytest.mark.usefixtures("double")
    def test_gradients_of_rates_are_those_of_finite_differences(self, engine: Engine) -> None:
        torch.set_default_dtype(torch.float32)
        model = SMALL["diffusion"]()
        torch.set_default_dtype(torch.float64)
        disturb(model.double())
        episodes = [replace(each, support=tuple(map(in_double, each.support)), query=in_double(each.query))
                    for each in small_episodes()]  # fmt: skip
        algorithm = make("meta-sgd", model, engine, rate=0.2)
        scales = {name: scale for name, scale in algorithm.parameters().items() if name.startswith("rates/")}
        disturb_all(scales)
        _, gradients = outer_step(algorithm, episodes)
        assert set(gradients) >= set(scales)
        h = 0.01  # the network's output is single precision
        for name, scale in list(scales.items())[::5]:
            towards, values = gradients[name].sign(), []
            for shift in (h, -2 * h):
                with torch.no_grad():
                    scale += shift * towards
                values.append(outer_step(algorithm, episodes)[0])
            with torch.no_grad():
                scale += h * towards
            difference = (values[0] - values[1]) / (2 * h)
            assert float(gradients[name].abs().sum()) == pytest.approx(difference, rel=0.01, abs=2e-5), name

    def test_rates_stay_positive_and_are_learned(self, model: ShowerGenerator) -> None:
        algorithm = make("meta-sgd", model)
        scales = [scale for name, scale in algorithm.parameters().items() if name.startswith("rates/")]
        optimizer = torch.optim.Adam(scales, lr=0.3)
        for _ in range(4):
            outer_step(algorithm, small_episodes())
            optimizer.step()
        rates = torch.cat([rate.flatten() for rate in algorithm.rates().values()])
        assert (rates > 0).all()
        assert rates.min() < 0.04
        assert rates.max() > 0.06


def in_double(batch: Batch) -> Batch:
    return Batch(batch.latents.map(torch.Tensor.double), batch.conditions.double())


def disturb_all(parameters: dict[str, torch.nn.Parameter]) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter += 0.3 * torch.randn(parameter.shape, generator=seeded(len(name)))


class TestReptile:
    def test_its_gradient_is_the_start_minus_the_end(self, model: ShowerGenerator) -> None:
        episodes, start = small_episodes(), snapshot(model)
        loss, gradients = outer_step(make("reptile", model), episodes)
        noise, expected, losses = seeded(0), dict.fromkeys(model.subspace("adapters"), 0.0), []
        for episode in episodes:
            first_steps(model, episode, list(model.subspace("adapters")), 0.05, noise)
            with torch.no_grad():
                losses.append(float(model.loss(episode.query, noise)))
            for name, end in model.subspace("adapters").items():
                expected[name] = expected[name] + (start[name] - end.detach()) / 2
            model.load_state_dict(start)
        assert loss == pytest.approx(sum(losses) / 2, rel=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6, msg=name)

    def test_the_query_set_has_no_part_in_it(self, model: ShowerGenerator) -> None:
        (episode,) = small_episodes(1)
        algorithm = make("reptile", model)
        loss, gradients = outer_step(algorithm, [episode])
        other, same = outer_step(algorithm, [replace(episode, query=draw_batch(4, 99))])
        assert loss != other
        assert all(torch.equal(same[name], gradients[name]) for name in gradients)


def test_multitask_is_the_plain_gradient_over_all_batches(model: ShowerGenerator) -> None:
    episodes = [replace(each, query=draw_batch(7, 50)) for each in small_episodes()]
    loss, gradients = outer_step(make("multitask", model), episodes)
    model.zero_grad(set_to_none=True)
    noise = seeded(0)
    batches = [batch for episode in episodes for batch in (*episode.support, episode.query)]
    total = torch.stack([len(batch) * model.loss(batch, noise) for batch in batches]).sum() / 30
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    for name, parameter in model.trainable().items():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_meta_training_makes_its_loss_better(model: ShowerGenerator, name: str) -> None:
    episodes, algorithm = small_episodes(), make(name, model)
    algorithm.prepare()
    optimizer = torch.optim.Adam(algorithm.parameters().values(), lr=5e-3)
    losses = []
    for _ in range(12):
        loss, _ = outer_step(algorithm, episodes)
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < (0.995 if name == "reptile" else 0.97) * losses[0]


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_the_tokenizer_is_frozen_bit_for_bit(name: str) -> None:
    model = SMALL["ar"]()
    before = tensor_hash(model.frozen())
    algorithm = make(name, model)
    optimizer = torch.optim.AdamW(algorithm.parameters().values(), lr=1e-2)
    outer_step(algorithm, small_episodes())
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
    sampler = EpisodeSampler([stream("siw"), stream("pbwo4")], seeded(), windows=0.5)
    episodes = sampler.episodes(2, inner_steps=2, support=4, query=4)
    frozen = tensor_hash(model.frozen())
    loss, gradients = outer_step(make(algorithm, model), episodes)
    assert 0 < loss < 10
    assert any(gradient.abs().max() > 0 for gradient in gradients.values())
    assert tensor_hash(model.frozen()) == frozen


def test_names_of_algorithms() -> None:
    assert set(get_args(AlgorithmName)) == set(ALGORITHMS)
    with pytest.raises(UnknownNameError, match=r"^unknown algorithm 'fmaml' .*did you mean 'fomaml'\?$"):
        resolve_algorithm("fmaml")
