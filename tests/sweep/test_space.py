"""What a sweep may vary, and the message on a mistake in it."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import FixedTrial

from metacalo.adaptation.methods import LEARNING_RATES, MethodSettings
from metacalo.errors import ConfigError
from metacalo.sweep.space import Hyperparameters, SearchSpace
from tests.small import small_autoregressive, small_diffusion


def test_the_space_that_ships_holds_what_adapt_does():
    space = SearchSpace.default()
    for generator in (small_diffusion(), small_autoregressive()):
        of = space.of(generator.name, sampled=True)
        of.require_samplers(generator)
        first = of.defaults(generator)
        assert set(first) == set(of.dimensions())
        drawn = of.draw(FixedTrial(first))
        usual = MethodSettings()
        assert usual.model_copy(update=drawn.adaptation()) == usual.model_copy(update={"rank": first["rank"]})
        drawn.sampling().choose(generator)


def test_what_a_generator_or_a_loss_does_not_see_is_left_out():
    space = SearchSpace.default()
    assert {"sampler_steps", "temperature"} <= set(space.dimensions())
    assert "temperature" not in space.of("diffusion", sampled=True).dimensions()
    assert "sampler_steps" not in space.of("ar", sampled=True).dimensions()
    assert not {"sampler_steps", "temperature"} & set(space.of("diffusion", sampled=False).dimensions())
    only = SearchSpace.build({"temperature": {"low": 0.8, "high": 1.0}})
    with pytest.raises(ConfigError, match="the space varies nothing of generator 'diffusion'"):
        only.of("diffusion", sampled=True)
    with pytest.raises(ConfigError, match="varies nothing that the loss of generator 'ar' depends on"):
        only.of("ar", sampled=False)


def test_draws_stay_in_their_ranges():
    space = SearchSpace.build(
        {
            "method": {"choices": ["bias", "full"]},
            "rate": {"low": 0.1, "high": 10, "log": True},
            "steps": {"low": 10, "high": 40, "step": 10},
            "average": {"low": 0, "high": 0.5},
        }
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [space.draw(study.ask()) for _ in range(40)]
    assert {each.method for each in drawn} == {"bias", "full"}
    assert {each.steps for each in drawn} == {10, 20, 30, 40}
    assert all(0.1 <= each.rate <= 10 for each in drawn)
    assert any(each.rate < 1 for each in drawn)
    assert all(0 <= each.average <= 0.5 for each in drawn)


def test_the_rate_is_in_units_of_the_method_unless_it_is_given():
    assert Hyperparameters(method="bias", rate=0.5).adaptation()["learning_rate"] == 0.5 * LEARNING_RATES["bias"]
    assert Hyperparameters(method="bias", learning_rate=1e-4).adaptation()["learning_rate"] == 1e-4
    assert Hyperparameters(method="bias").adaptation()["learning_rate"] is None


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"stepz": {"low": 1, "high": 2}}, "unknown key 'stepz'; did you mean 'steps'?"),
        ({"rate": {"low": 1, "hgih": 2}}, "unknown key 'rate.hgih'; did you mean 'high'?"),
        ({"rate": {"low": 1}}, "give choices, or both low and high"),
        ({"rate": {"low": 2, "high": 1}}, "low = 2 lies above high = 1; exchange them"),
        ({"rate": {"low": 0, "high": 1, "log": True}}, "log = true needs low above 0, not 0"),
        ({"rate": {"low": 1, "high": 2, "log": True, "step": 1}}, "log = true and step exclude each other"),
        ({"rate": {"choices": [1], "low": 1}}, "choices and a range exclude each other"),
        ({"rate": {"choices": []}}, "choices must be at least one value, each but once"),
        ({"rate": {"choices": [1.0, 1.0]}}, "choices must be at least one value, each but once"),
        ({"rate": {"low": -1, "high": 1}}, "'rate' = -1 is not valid: Input should be greater than 0"),
        ({"average": {"low": 0, "high": 1}}, "'average' = 1 is not valid: Input should be less than 1"),
        ({"steps": {"low": 1.5, "high": 3}}, "steps takes whole numbers only"),
        ({"method": {"choices": ["biass"]}}, "did you mean 'bias'?"),
        ({"method": {"low": 1, "high": 2}}, "'method' = 1 is not valid"),
        ({"rate": {"choices": [1]}, "learning_rate": {"choices": [1]}}, "rate and learning_rate exclude each other"),
    ],
)
def test_a_mistake_is_one_sentence(space, message):
    with pytest.raises(ConfigError) as refused:
        SearchSpace.build(space, source="space.toml")
    assert str(refused.value).startswith("space.toml: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_sampler_that_the_network_has_not_is_reported_before_the_trials():
    space = SearchSpace.build({"sampler": {"choices": ["heun", "shortcut"]}})
    with pytest.raises(ConfigError, match="needs a distilled network"):
        space.require_samplers(small_diffusion())
