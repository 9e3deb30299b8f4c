"""What every generator must keep, run for each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch

from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import Batch, ShowerGenerator
from metacalo.generators.diffusion import Diffusion, DiffusionSettings
from metacalo.model_folders.base import GENERATORS
from metacalo.models.prior import PriorSettings
from metacalo.models.vqvae import VQVAE, VQVAESettings
from metacalo.normaliser.latents import Latents
from metacalo.storage.checkpoint import tensor_hash
from tests.small import GRID, disturb, draw_batch, seeded, small_autoregressive, small_diffusion, take_steps


def same(a: Latents, b: Latents) -> bool:
    return all(torch.equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(Latents))


class GeneratorContract:
    """Subclasses give `build`, which makes a small generator, and `full_size`, one of the default size."""

    @pytest.fixture
    def model(self, build: Callable[[], ShowerGenerator]) -> ShowerGenerator:
        return build().eval()

    @pytest.fixture
    def conditions(self) -> torch.Tensor:
        return draw_batch(6).conditions

    def test_the_same_seed_gives_the_same_showers(self, model: ShowerGenerator, conditions: torch.Tensor) -> None:
        disturb(model)
        first = model.sample(conditions, seeded(1))
        assert same(first, model.sample(conditions, seeded(1)))
        other = model.sample(conditions, seeded(2))
        for field in fields(Latents):
            assert not torch.equal(getattr(first, field.name), getattr(other, field.name))

    def test_one_shower_for_each_condition(self, model: ShowerGenerator) -> None:
        for n in (1, 6):
            latents = model.sample(draw_batch(n).conditions, seeded())
            assert latents.total.shape == (n,)
            assert latents.layers.shape == (n, GRID[2])
            assert latents.rings.shape == latents.hits.shape == (n, GRID[0], GRID[2])
            assert latents.cells.shape == (n, *GRID)
            for field in fields(Latents):
                values = getattr(latents, field.name)
                assert torch.isfinite(values).all()
                assert not values.requires_grad
                assert values.dtype == torch.float32

    def test_the_conditions_matter(self, model: ShowerGenerator, conditions: torch.Tensor) -> None:
        disturb(model)
        assert not same(model.sample(conditions, seeded()), model.sample(conditions + 1, seeded()))

    def test_only_the_given_generator_is_drawn_from(self, model: ShowerGenerator) -> None:
        batch = draw_batch(4)
        before = torch.get_rng_state()
        model.sample(batch.conditions, seeded())
        model.loss(batch, seeded())
        assert torch.equal(torch.get_rng_state(), before)

    def test_the_loss_is_a_finite_number_and_leaves_the_batch_alone(self, model: ShowerGenerator) -> None:
        disturb(model)
        batch = draw_batch(5)
        loss = model.loss(batch, seeded())
        assert loss.shape == ()
        assert torch.isfinite(loss)
        assert torch.equal(loss, model(batch, seeded()))
        assert same(batch.latents, draw_batch(5).latents)

    def test_every_trainable_parameter_but_the_closed_ones_gets_a_gradient(self, model: ShowerGenerator) -> None:
        disturb(model)
        model.train().loss(draw_batch(8), seeded()).backward()
        without = [name for name, parameter in model.trainable().items() if parameter.grad is None]
        assert without == []
        assert all(parameter.grad.abs().max() > 0 for parameter in model.trainable().values())

    def test_training_lowers_the_loss_and_leaves_what_is_frozen(self, model: ShowerGenerator) -> None:
        frozen = tensor_hash(model.frozen())
        untouched = tensor_hash(model.trainable())
        losses = take_steps(model, draw_batch(8), 40)
        assert all(torch.isfinite(torch.tensor(losses)))
        assert losses[-1] < 0.9 * losses[0]
        assert tensor_hash(model.frozen()) == frozen
        assert tensor_hash(model.trainable()) != untouched

    def test_training_moves_samples_to_the_data(self, build: Callable[[], ShowerGenerator]) -> None:
        model, batch = build(), draw_batch(32)
        given = {"total": 0 * batch.latents.total + 1.2, "layers": 0 * batch.latents.layers - 0.8}
        latents = replace(batch.latents, **given)
        model.train()
        optimizer = torch.optim.Adam(model.trainable().values(), lr=5e-3)
        for step in range(150):
            optimizer.zero_grad()
            model.loss(Batch(latents, batch.conditions), seeded(step)).backward()
            optimizer.step()
        drawn = model.eval().sample(batch.conditions, seeded())
        assert float(drawn.total.mean()) == pytest.approx(1.2, abs=0.2)
        assert float(drawn.layers.mean()) == pytest.approx(-0.8, abs=0.2)
        assert float(drawn.layers.std()) < 0.4

    def test_a_copy_of_the_state_samples_the_same(
        self, model: ShowerGenerator, build: Callable[[], ShowerGenerator], conditions: torch.Tensor
    ) -> None:
        disturb(model)
        other = build().eval()
        disturb(other, seed=6)
        assert not same(other.sample(conditions, seeded()), model.sample(conditions, seeded()))
        other.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()})
        assert same(other.sample(conditions, seeded()), model.sample(conditions, seeded()))

    def test_what_moves_and_what_does_not(self, model: ShowerGenerator) -> None:
        names, trainable, frozen = set(model.state_dict()), set(model.trainable()), set(model.frozen())
        assert set(model.adaptable()) < trainable <= names
        assert not trainable & frozen
        assert trainable | frozen == names
        assert all(parameter.requires_grad for parameter in model.trainable().values())
        parameters = dict(model.named_parameters())
        assert all(parameters[name] is parameter for name, parameter in model.trainable().items())
        assert not any(parameters[name].requires_grad for name in frozen & set(parameters))

    def test_the_conditioning_and_what_shifts_can_be_adapted(self, model: ShowerGenerator) -> None:
        adaptable = set(model.adaptable())
        assert {name for name in model.trainable() if "condition." in name} <= adaptable
        assert sum(name.endswith(".embedding") for name in adaptable) == 1
        small = {name for name in model.trainable() if name.rsplit(".", 1)[-1] in {"bias", "offsets"}}
        assert small
        assert small <= adaptable
        # other matrices stay as they are
        assert not any(name.endswith(("weight", ".up", ".down")) and "condition." not in name for name in adaptable)

    def test_less_than_a_tenth_can_be_adapted(self, full_size: ShowerGenerator) -> None:
        adaptable = sum(parameter.numel() for parameter in full_size.adaptable().values())
        trainable = sum(parameter.numel() for parameter in full_size.trainable().values())
        assert 0 < adaptable < 0.1 * trainable


class TestDiffusionContract(GeneratorContract):
    @pytest.fixture
    def build(self) -> Callable[[], ShowerGenerator]:
        return lambda: small_diffusion(steps=8)  # data without width, unlike whitened latents, bends the path

    @pytest.fixture
    def full_size(self) -> ShowerGenerator:
        return Diffusion(DiffusionSettings(), (9, 16, 45), 22)


class TestAutoregressiveContract(GeneratorContract):
    @pytest.fixture
    def build(self) -> Callable[[], ShowerGenerator]:
        return lambda: small_autoregressive(bins=32)

    @pytest.fixture
    def full_size(self) -> ShowerGenerator:
        return Autoregressive(VQVAE(VQVAESettings(), (9, 16, 45)), PriorSettings(), 22)


def test_the_contract_is_run_for_all_generators() -> None:
    assert {small_diffusion().name, small_autoregressive().name} == set(GENERATORS)
