"""Adaptation methods on small generators: what moves, what may not, how fast, and which average is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import get_args

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from metacalo.adaptation.adapt_generator import adapt_generator
from metacalo.adaptation.early_stopping import mean_loss
from metacalo.adaptation.methods import LEARNING_RATES, RATE_SHARES, Method, MethodSettings, rate_share
from metacalo.errors import ConfigError, MetacaloError
from metacalo.generators.base import Batch, ShowerGenerator
from metacalo.model_folders.base import GENERATORS
from metacalo.models.adapters import LowRankLinear
from metacalo.normaliser.latents import Latents
from metacalo.storage.checkpoint import tensor_hash
from tests.small import CONDITIONS, SMALL, disturb, draw_batch, small_diffusion

METHODS: tuple[Method, ...] = get_args(Method)
WIDTH, EMBEDDING, TIME_FEATURES = 24, 4, 32
QUICK = {"steps": 6, "check_every": 1, "patience": 6, "batch": 16, "learning_rate": 0.02, "autocast": False}


class Shots:
    """Forty showers as latents: what `ShowerPool` draws, without its normaliser."""

    def __init__(self) -> None:
        self.all = draw_batch(40, seed=3)

    def __len__(self) -> int:
        return len(self.all)

    def batch(self, rows: torch.Tensor, _: torch.Generator, *, reflect: bool = True) -> Batch:
        return Batch(Latents(*(part[rows] for part in self.all.latents.components())), self.all.conditions[rows])


@pytest.fixture(params=GENERATORS)
def generator(request: pytest.FixtureRequest) -> ShowerGenerator:
    """With no parameter at zero, so that each has a gradient."""
    made = SMALL[request.param]()
    disturb(made)
    return made.eval()


def adapt(generator: ShowerGenerator, **settings) -> dict:
    return adapt_generator(generator, Shots(), MethodSettings(**{**QUICK, **settings}))


def copied(generator: ShowerGenerator) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in generator.state_dict().items()}


MOVES: dict[Method, tuple[set[str], set[str]]] = {
    "conditioning": ({"embedding", "condition.0.weight", "condition.2.bias"}, {"blocks.0.attention.qkv.bias"}),
    "bias": ({"embedding", "condition.2.bias", "blocks.1.feedforward.out.bias"}, {"blocks.0.attention.qkv.up"}),
    "low-rank": ({"embedding", "blocks.0.attention.qkv.up", "blocks.1.feedforward.out.down"}, {"condition.2.bias"}),
    "modulation": ({"embedding", "blocks.0.attention_norm.weight", "norm.weight"}, {"blocks.0.attention.qkv.bias"}),
    "conditioning+bias": (
        {"embedding", "condition.0.weight", "blocks.1.feedforward.out.bias"},
        {"blocks.0.attention.qkv.up", "norm.weight"},
    ),
    "adapters": ({"embedding", "blocks.0.attention.qkv.up", "condition.2.bias"}, {"condition.2.weight", "norm.weight"}),
    "full": ({"embedding", "condition.0.weight", "blocks.0.attention.qkv.weight", "norm.weight"}, set()),
}
"""Some that move and some that do not, in both networks."""


@pytest.mark.parametrize("method", METHODS)
def test_each_method_moves_its_own_parameters_and_no_other(generator: ShowerGenerator, method: Method) -> None:
    before, tokenizer = copied(generator), tensor_hash(generator.frozen())
    record = adapt(generator, method=method)
    assert (record["method"], record["best_step"] > 0) == (method, True)
    after = generator.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(generator.subspace(method))
    assert {name for name, parameter in generator.named_parameters() if parameter.grad is not None} == moved
    message = {name.split(".", 1)[1] for name in moved}
    wanted, unwanted = MOVES[method]
    assert wanted <= message
    assert not unwanted & message
    assert tensor_hash(generator.frozen()) == tokenizer == record["frozen_hash"]
    if method == "full":
        assert moved == set(before) - set(generator.frozen())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("part", ["encoder", "decoder", "quantizer"])
def test_a_tokenizer_that_changed_is_reported(method: Method, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = SMALL["ar"]()
    whole = generator.loss
    spoilt = next(t for name, t in generator.frozen().items() if f".{part}." in name and t.is_floating_point())

    def spoil(batch: Batch, noise: torch.Generator) -> torch.Tensor:
        spoilt.view(-1)[0] += 1e-3
        return whole(batch, noise)

    monkeypatch.setattr(generator, "loss", spoil)
    with pytest.raises(MetacaloError, match=r"^the frozen part of generator 'ar' changed; please report this defect$"):
        adapt(generator, method=method, steps=1)


def test_shares_of_the_parameters(generator: ShowerGenerator) -> None:
    inputs = CONDITIONS + EMBEDDING + (TIME_FEATURES if generator.name == "diffusion" else 0)
    tokenizer = sum(t.numel() for name, t in generator.named_parameters() if name.startswith("tokenizer."))
    modules = [module for name, module in generator.named_modules() if not name.startswith("tokenizer.")]
    total = sum(parameter.numel() for parameter in generator.parameters())
    biases = sum(m.bias.numel() for m in modules if isinstance(m, torch.nn.Linear) and m.bias is not None)
    low_rank = sum(m.rank * (m.in_features + m.out_features) for m in modules if isinstance(m, LowRankLinear))
    offsets = 2 * 6 * WIDTH if generator.name == "diffusion" else 0
    numbers = {
        "conditioning": EMBEDDING + WIDTH * (inputs + 1) + WIDTH * (WIDTH + 1),
        "bias": EMBEDDING + biases,
        "low-rank": EMBEDDING + low_rank,
        "conditioning+bias": EMBEDDING + biases + WIDTH * inputs + WIDTH**2 + offsets,
        "adapters": EMBEDDING + biases + low_rank + offsets,
        "full": total - tokenizer,
    }
    for method, number in numbers.items():
        message = adapt(generator, method=method, steps=0)["parameters"]
        assert message == {"trainable": number, "total": total, "share": number / total}


@contextmanager
def watched(look: Callable[[torch.optim.Optimizer], object]) -> Iterator[list]:
    """What `look` sees of the optimizer after each of its steps."""
    seen: list = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: seen.append(look(optimizer)))
    try:
        yield seen
    finally:
        handle.remove()


def iterate(optimizer: torch.optim.Optimizer) -> np.ndarray:
    parameters = optimizer.param_groups[0]["params"]
    return np.concatenate([parameter.detach().double().numpy().ravel() for parameter in parameters])


@pytest.mark.parametrize("decay", [0.0, 0.6, 0.9])
def test_the_average_that_is_kept(generator: ShowerGenerator, decay: float) -> None:
    with watched(iterate) as iterates:
        record = adapt(generator, method="full", average=decay)
    step = record["best_step"]
    assert len(iterates) == record["steps"] >= step > 0
    weights = decay ** np.arange(step - 1, -1, -1, dtype=float)
    expected = np.average(iterates[:step], axis=0, weights=weights)
    kept = np.concatenate([p.detach().double().numpy().ravel() for p in generator.subspace("full").values()])
    np.testing.assert_allclose(kept, expected, atol=0 if decay == 0 else 1e-6)
    # and it is what the check has judged
    again = adapt(generator, steps=0)["held_back_loss"]["before"]
    assert again == pytest.approx(record["held_back_loss"]["after"], rel=1e-6)
    assert again < record["held_back_loss"]["before"]


def test_the_average_does_not_change_the_way_that_is_taken(generator: ShowerGenerator) -> None:
    start, ways = copied(generator), []
    for decay in (0.0, 0.9):
        generator.load_state_dict(start)
        with watched(iterate) as iterates:
            adapt(generator, average=decay)
        ways.append(iterates)
    np.testing.assert_array_equal(*ways)


@pytest.mark.parametrize("method", METHODS)
def test_the_base_is_kept_where_no_average_is_better(
    generator: ShowerGenerator, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, whole = tensor_hash(generator.state_dict()), generator.loss
    uphill = lambda batch, noise: -whole(batch, noise) if generator.training else whole(batch, noise)  # noqa: E731
    monkeypatch.setattr(generator, "loss", uphill)
    record = adapt(generator, method=method, patience=3)
    assert (record["best_step"], record["steps"]) == (0, 3)
    assert record["held_back_loss"]["after"] == record["held_back_loss"]["before"]
    assert tensor_hash(generator.state_dict()) == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("given", [None, 0.005])
def test_the_learning_rate_is_the_method_s_unless_one_is_given(method: Method, given: float | None) -> None:
    highest = LEARNING_RATES[method] if given is None else given
    with watched(lambda optimizer: optimizer.param_groups[0]["lr"]) as rates:
        record = adapt(small_diffusion(), method=method, learning_rate=given, steps=12, patience=12)
    assert record["learning_rate"] == highest
    # up over ten steps, and down to a tenth over all
    expected = [highest * min(1, (step + 1) / 10) * (1 - 0.9 * step / 12) for step in range(12)]
    np.testing.assert_allclose(rates, expected)


def test_each_method_has_a_learning_rate() -> None:
    assert set(LEARNING_RATES) == set(METHODS)
    assert LEARNING_RATES["full"] < LEARNING_RATES["low-rank"] < LEARNING_RATES["modulation"]


@pytest.mark.parametrize("method", RATE_SHARES)
def test_parts_of_a_method_have_the_ratios_of_their_own_rates(method: Method) -> None:
    own = [LEARNING_RATES[part] / share for part, share in RATE_SHARES[method].items() if part in LEARNING_RATES]
    assert len(own) >= 2
    np.testing.assert_allclose(own, own[0])
    assert LEARNING_RATES[method] <= own[0] * (1 + 1e-9)  # together they move no faster than alone


def test_parts_of_the_adapters_have_their_shares_of_the_rate() -> None:
    named = dict(small_diffusion().subspace("adapters"))
    by_share = {share: {name for name in named if rate_share(name, "adapters") == share} for share in (1.0, 0.6, 0.3)}
    assert set().union(*by_share.values()) == set(named)
    assert {name.rsplit(".", 1)[1] for name in by_share[1.0]} == {"embedding", "offsets"}
    assert {name.rsplit(".", 1)[1] for name in by_share[0.6]} == {"bias"}
    assert {name.rsplit(".", 1)[1] for name in by_share[0.3]} == {"up", "down"}
    with watched(lambda optimizer: [group["lr"] for group in optimizer.param_groups]) as message:
        adapt(small_diffusion(), method="adapters", steps=3)
    np.testing.assert_allclose([np.divide(rates, rates[0]) for rates in message], [[1, 0.6, 0.3]] * 3)


def test_a_base_without_adapters_is_reported() -> None:
    bare = small_diffusion(dit={"rank": 0, "embedding": 0})
    message = (
        "generator 'diffusion' of this base has no parameters that method 'low-rank' moves; choose another --method"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        adapt(bare, method="low-rank")
    assert adapt(bare, method="bias")["parameters"]["trainable"] > 0


def test_the_record_tells_the_held_back_loss_of_every_check(generator):
    record = adapt(generator, steps=6, check_every=2)
    steps, losses = zip(*record["checks"], strict=True)
    assert list(steps) == [0, 2, 4, 6]
    assert losses[0] == record["held_back_loss"]["before"]
    assert min(losses) == record["held_back_loss"]["after"]


def test_learned_rates_scale_the_steps_of_their_elements(generator):
    moved = generator.subspace("adapters")
    before = {name: parameter.detach().clone() for name, parameter in moved.items()}
    still = next(iter(moved))
    rates = {name: torch.full_like(parameter, 0.0 if name == still else 0.3) for name, parameter in moved.items()}
    settings = MethodSettings(**{**QUICK, "method": "adapters", "average": 0.0, "steps": 1, "patience": 1})
    plain, scaled = (deepcopy(generator) for _ in range(2))
    adapt_generator(plain, Shots(), settings)
    adapt_generator(scaled, Shots(), settings, rates=rates)
    total, free = (sum(p.numel() for name, p in moved.items() if name != gone) for gone in (None, still))
    for name, parameter in scaled.subspace("adapters").items():
        expected = plain.subspace("adapters")[name] - before[name]
        expected = 0 * expected if name == still else expected * total / free  # rates count over their mean
        torch.testing.assert_close(parameter - before[name], expected, rtol=1e-3, atol=3e-6)  # of parameters of order 1


def test_rates_of_parameters_that_do_not_move_are_left_aside(generator):
    rates = {name: torch.ones_like(parameter) for name, parameter in generator.subspace("low-rank").items()}
    plain, scaled = (deepcopy(generator) for _ in range(2))
    adapt_generator(plain, Shots(), MethodSettings(**QUICK, method="modulation"))
    embedding = {name: rate for name, rate in rates.items() if not name.endswith("embedding")}
    adapt_generator(scaled, Shots(), MethodSettings(**QUICK, method="modulation"), rates=embedding)
    assert tensor_hash(plain.state_dict()) == tensor_hash(scaled.state_dict())


def test_checks_are_reported_and_what_is_raised_there_ends_the_run(generator: ShowerGenerator) -> None:
    message: list[tuple[int, float]] = []
    record = adapt_generator(
        deepcopy(generator), Shots(), MethodSettings(**QUICK), on_check=lambda *check: message.append(check)
    )
    assert [list(check) for check in message] == record["checks"][1:]

    def stop(step: int, _loss: float) -> None:
        if step == 3:
            raise StopIteration(step)

    with pytest.raises(StopIteration, match="3"):
        adapt_generator(generator, Shots(), MethodSettings(**QUICK), on_check=stop)


@pytest.mark.parametrize("other", [{"batch": 8}, {"method": "bias"}, {"steps": 2}, {"decay": 3.0}])
def test_losses_of_different_settings_are_of_the_same_showers_and_noise(
    generator: ShowerGenerator, other: dict
) -> None:
    before = adapt(deepcopy(generator))["held_back_loss"]["before"]
    assert adapt(generator, **other)["held_back_loss"]["before"] == before


def test_the_mean_loss_depends_on_the_seed_and_not_on_the_batch() -> None:
    generator = small_diffusion()
    losses = [
        mean_loss(generator, Shots(), MethodSettings(**{**QUICK, **of})) for of in ({}, {"batch": 3}, {"seed": 2})
    ]
    assert losses[0] == losses[1] != losses[2]


def test_only_as_many_components_as_the_rank_move() -> None:
    generator = small_diffusion(dit={"rank": 3})
    disturb(generator)
    before = copied(generator)
    whole = adapt(deepcopy(generator), method="low-rank", steps=0)["parameters"]["trainable"]
    record = adapt(generator, method="low-rank", rank=2)
    layers = [m for m in generator.modules() if isinstance(m, LowRankLinear)]
    assert whole - record["parameters"]["trainable"] == sum(m.in_features + m.out_features for m in layers)
    for name, after in generator.state_dict().items():
        moved = after != before[name]
        if name.endswith(".down"):
            assert (moved.any(1)).tolist() == [True, True, False]
        elif name.endswith(".up"):
            assert (moved.any(0)).tolist() == [True, True, False]


def test_decay_pulls_to_where_adaptation_started() -> None:
    generator = small_diffusion()
    disturb(generator)
    before = copied(generator)

    def distance(**settings: float) -> float:
        moved = deepcopy(generator)
        adapt(moved, average=0.0, **settings)
        return sum(float((t - before[name]).square().sum()) for name, t in moved.state_dict().items()) ** 0.5

    free, pulled, held = distance(), distance(decay=20.0), distance(decay=1e9)
    assert 0 == held < pulled < 0.9 * free
