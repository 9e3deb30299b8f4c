"""Meta-gradients of every engine against formulas and against another implementation."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metacalo.errors import MissingExtraError, UnknownNameError
from metacalo.generators.base import Batch, ShowerGenerator
from metacalo.meta.engines import ENGINES, Engine, EngineName, InnerLoop, MetaGradient, meta_gradient, resolve_engine
from metacalo.models import transformer
from metacalo.models.transformer import BlockStack
from metacalo.storage.checkpoint import tensor_hash
from tests.small import disturb, draw_batch, seeded, small_autoregressive, small_diffusion

CODED = ("rings", "hits")
"""Portions of the latents that the tokenizer reads."""
numbers = st.floats(-3, 3)


class Point(nn.Module):
    """theta, which the inner loop moves, and phi, which it does not."""

    def __init__(self, theta: float, phi: float = 0.0) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([theta, 2 * theta], dtype=torch.float64))
        self.phi = nn.Parameter(torch.tensor([phi], dtype=torch.float64))
        self.fixed = nn.Parameter(torch.ones(1, dtype=torch.float64), requires_grad=False)

    def forward(self, target: float, weight: float = 0.0) -> Tensor:
        """Half the squared distance of theta to target + weight phi."""
        return 0.5 * ((self.theta - target - weight * self.phi) * self.fixed).square().sum()

    def loop(self, *, rate: float | dict[str, Tensor], steps: int, second_order: bool) -> InnerLoop:
        return InnerLoop({"theta": self.theta}, rate, steps=steps, second_order=second_order)


@given(theta=numbers, a=numbers, b=numbers, rate=st.floats(0.01, 1.5), steps=st.integers(0, 6))
def test_quadratic_losses(engine: Engine, theta: float, a: float, b: float, rate: float, steps: int) -> None:
    """k steps on (theta - a)^2 / 2 lead to theta_k = a + (1 - rate)^k (theta - a), and d theta_k / d theta is known."""
    model = Point(theta)
    start = model.theta.detach().clone()
    before = tensor_hash(model.state_dict())
    decay = (1 - rate) ** steps
    adapted = a + decay * (start - a)
    for second_order, expected in ((True, decay * (adapted - b)), (False, adapted - b)):
        loop = model.loop(rate=rate, steps=steps, second_order=second_order)
        found = meta_gradient(engine, model, loop, lambda fast, _: fast(a), lambda fast: fast(b))
        torch.testing.assert_close(found.parameters["theta"], expected, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(found.loss, 0.5 * (adapted - b).square().sum(), atol=1e-10, rtol=1e-10)
        fast = engine.adapt(model, loop, lambda fast, _: fast(a))
        torch.testing.assert_close(fast.inner()["theta"].detach(), adapted, atol=1e-10, rtol=1e-10)
        assert not found.loss.requires_grad
        assert "fixed" not in found.parameters
        assert found.rates == {}
    assert tensor_hash(model.state_dict()) == before
    assert model.theta.grad is None


def test_each_inner_step_has_its_own_loss(engine: Engine) -> None:
    targets, model, expected = [1.0, -2.0, 0.5], Point(3.0), torch.tensor([3.0, 6.0], dtype=torch.float64)
    for target in targets:
        expected -= 0.1 * (expected - target)
    loop = model.loop(rate=0.1, steps=3, second_order=False)
    fast = engine.adapt(model, loop, lambda fast, step: fast(targets[step]))
    torch.testing.assert_close(fast.inner()["theta"].detach(), expected, atol=1e-12, rtol=1e-12)


def test_parameters_that_only_shape_the_inner_loss(engine: Engine) -> None:
    """Inner target phi: d theta_k / d phi = 1 - (1 - rate)^k, which first order does not see."""
    rate, steps, b = 0.3, 3, 0.7
    model = Point(2.0, phi=-1.0)
    decay = (1 - rate) ** steps
    adapted = -1 + decay * (model.theta.detach() + 1)

    def gradients(second_order: bool) -> dict[str, Tensor]:
        loop = model.loop(rate=rate, steps=steps, second_order=second_order)
        return meta_gradient(engine, model, loop, lambda fast, _: fast(0.0, 1.0), lambda fast: fast(b)).parameters

    expected = ((1 - decay) * (adapted - b)).sum()[None]
    torch.testing.assert_close(gradients(True)["phi"], expected, atol=1e-12, rtol=1e-12)
    first = gradients(False)
    assert "phi" not in first or (first["phi"] == 0).all()


@given(theta=numbers, a=numbers, b=numbers, rate=st.floats(0.01, 1.5), steps=st.integers(1, 6))
def test_learned_rates(engine: Engine, theta: float, a: float, b: float, rate: float, steps: int) -> None:
    """d theta_k / d rate_i = -k (1 - rate_i)^(k - 1) (theta_i - a), each element for itself."""
    model = Point(theta)
    rates = torch.tensor([rate, 0.5 * rate], dtype=torch.float64, requires_grad=True)
    loop = model.loop(rate={"theta": rates}, steps=steps, second_order=True)
    found = meta_gradient(engine, model, loop, lambda fast, _: fast(a), lambda fast: fast(b))
    decay, offset = 1 - rates.detach(), model.theta.detach() - a
    adapted = a + decay**steps * offset
    expected = -steps * decay ** (steps - 1) * offset * (adapted - b)
    torch.testing.assert_close(found.rates["theta"], expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found.parameters["theta"], decay**steps * (adapted - b), atol=1e-10, rtol=1e-10)
    assert rates.grad is None


def test_a_start_that_is_not_the_model_s(engine: Engine) -> None:
    """The model's own theta has no part in it."""
    model, zero = Point(2.0), nn.Parameter(torch.zeros(2, dtype=torch.float64))
    for second_order, expected in ((True, 0.9 * (0.1 - 3)), (False, 0.1 - 3)):
        loop = InnerLoop({"theta": zero}, 0.1, steps=1, second_order=second_order)
        found = meta_gradient(engine, model, loop, lambda fast, _: fast(1.0), lambda fast: fast(3.0))
        torch.testing.assert_close(found.parameters["theta"], torch.full((2,), expected, dtype=torch.float64))
    assert zero.tolist() == [0, 0]


def test_inner_parameters_that_the_loss_does_not_know(engine: Engine) -> None:
    """They stay where they are, and the others move."""
    model = Point(1.0, phi=0.5)
    for rate in (0.1, {name: torch.full_like(value, 0.1) for name, value in model.named_parameters()}):
        loop = InnerLoop({"theta": model.theta, "phi": model.phi}, rate, steps=2, second_order=True)
        fast = engine.adapt(model, loop, lambda fast, _: fast(0.0))
        assert fast.inner()["phi"].item() == 0.5
        torch.testing.assert_close(fast.inner()["theta"].detach(), 0.81 * model.theta.detach())


def reference(
    model: nn.Module, loop: InnerLoop, inner_loss: Callable[[Any, int], Tensor], query_loss: Callable[[Any], Tensor]
) -> MetaGradient:
    """The same by hand: all parameters are copied, and put into the model for each call."""
    copies = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters() if p.requires_grad}
    copies |= {n: p.detach().clone().requires_grad_() for n, p in loop.start.items()}
    rates = {name: loop.rate[name] if isinstance(loop.rate, Mapping) else loop.rate for name in loop.start}
    now = dict(copies)

    def call(*arguments: Any) -> Tensor:
        return torch.func.functional_call(model, now, arguments)

    with sdpa_kernel(SDPBackend.MATH):
        for step in range(loop.steps):
            wanted = [now[name] for name in loop.start]
            gradients = torch.autograd.grad(inner_loss(call, step), wanted, create_graph=loop.second_order)
            now |= {n: now[n] - rates[n] * g for n, g in zip(loop.start, gradients, strict=True)}
            if not loop.second_order:
                now = {name: tensor.detach().requires_grad_() for name, tensor in now.items()}
        loss = query_loss(call)
        at = copies if loop.second_order else now
        of_rates = loop.rate if isinstance(loop.rate, Mapping) else {}
        gradients = torch.autograd.grad(loss, [*at.values(), *of_rates.values()], allow_unused=True)
    found = dict(zip([*at, *(f"rate {name}" for name in of_rates)], gradients, strict=True))
    return MetaGradient(
        loss.detach(),
        {name: found[name] for name in at if found[name] is not None},
        {name: found[f"rate {name}"] for name in of_rates},
    )


def double_diffusion() -> tuple[ShowerGenerator, list[Batch]]:
    return small_diffusion().double(), [double_batch(seed) for seed in range(3)]


def double_autoregressive() -> tuple[ShowerGenerator, list[Batch]]:
    model = small_autoregressive().float()
    model.prior.double()  # the codebooks stay in single precision
    batches = [double_batch(seed) for seed in range(3)]
    return model, [
        Batch(replace(b.latents, **{name: getattr(b.latents, name).float() for name in CODED}), b.conditions)
        for b in batches
    ]


def double_batch(seed: int) -> Batch:
    batch = draw_batch(4, seed)
    return Batch(batch.latents.map(torch.Tensor.double), batch.conditions.double())


def in_double(make: Callable[[], tuple[ShowerGenerator, list[Batch]]]) -> tuple[ShowerGenerator, list[Batch]]:
    """What `make` gives, made in single precision, off its initial values and in training mode."""
    torch.set_default_dtype(torch.float32)
    model, batches = make()
    torch.set_default_dtype(torch.float64)
    disturb(model)
    return model.train(), batches


def drawn_rates(model: ShowerGenerator) -> dict[str, Tensor]:
    generator = seeded(6)
    return {
        name: (0.1 * torch.rand(p.shape, generator=generator)).requires_grad_()
        for name, p in model.subspace("adapters").items()
    }


@pytest.mark.parametrize("kind", ["second order", "first order", "learned rates"])
@pytest.mark.parametrize("make", [double_diffusion, double_autoregressive])
@pytest.mark.usefixtures("double")
def test_engines_agree_with_an_independent_implementation(
    engine: Engine, make: Callable[[], tuple[ShowerGenerator, list[Batch]]], kind: str
) -> None:
    model, (first, second, query) = in_double(make)
    before = tensor_hash(model.state_dict())
    rate = drawn_rates(model) if kind == "learned rates" else 0.05
    loop = InnerLoop(model.subspace("adapters"), rate, steps=2, second_order=kind != "first order")

    def run(method: Callable[..., MetaGradient], *given: Any) -> MetaGradient:
        noise = seeded(4)
        inner = lambda fast, step: fast((first, second)[step], noise)  # noqa: E731
        return method(*given, model, loop, inner, lambda fast: fast(query, noise))

    found, expected = run(meta_gradient, engine), run(reference)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-6, atol=1e-7)
    assert found.parameters.keys() == expected.parameters.keys() == model.trainable().keys()
    assert set(found.rates) == (set(model.subspace("adapters")) if kind == "learned rates" else set())
    for ours, theirs in ((found.parameters, expected.parameters), (found.rates, expected.rates)):
        for name, gradient in ours.items():
            torch.testing.assert_close(gradient, theirs[name], rtol=1e-5, atol=1e-6, msg=name)
            assert gradient.dtype == torch.float64
    assert tensor_hash(model.state_dict()) == before
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("make", [small_diffusion, small_autoregressive])
@pytest.mark.parametrize("attribute", ["checkpointing", "compiled"])
def test_how_blocks_are_run_changes_no_meta_gradient(
    engine: Engine,
    make: Callable[[], ShowerGenerator],
    attribute: str,
    second_order: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Models with fast weights are not compiled: each would be anew."""
    monkeypatch.setattr(transformer, "_compiled_run", lambda: pytest.fail("a model with fast weights was compiled"))
    batches = [draw_batch(4, seed) for seed in range(3)]
    found = []
    for value in (False, True):
        model, noise = make(), seeded(4)
        disturb(model)
        stacks = [module for module in model.modules() if isinstance(module, BlockStack)]
        for stack in stacks:
            setattr(stack, attribute, value)
        loop = InnerLoop(model.train().subspace("adapters"), 0.5, steps=2, second_order=second_order)
        gradient = meta_gradient(
            engine,
            model,
            loop,
            lambda fast, step, noise=noise: fast(batches[step], noise),
            lambda fast, noise=noise: fast(batches[2], noise),
        )
        found.append(gradient.parameters)
        assert all(getattr(stack, attribute) == value for stack in stacks)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_names_of_engines() -> None:
    assert set(get_args(EngineName)) == set(ENGINES)
    with pytest.raises(UnknownNameError, match=r"^unknown engine 'torhc' .*did you mean 'torch'\?$"):
        resolve_engine("torhc")


def test_a_missing_library_is_one_sentence_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metacalo.meta.engines.learn2learn_engine.find_spec", lambda _: None)
    for name in ("learn2learn.algorithms", "learn2learn"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(MissingExtraError) as message:
        resolve_engine("learn2learn")
    assert "needs learn2learn, which is not installed: pip install" in str(message.value)
    assert "learn2learn==0.2.0" in str(message.value)
    assert "\n" not in str(message.value)


@pytest.mark.skipif(importlib.util.find_spec("learn2learn") is None, reason="learn2learn is not installed")
def test_learn2learn_is_used_without_what_its_packages_want() -> None:
    """And what stood in for its packages is gone: whoever imports them later gets the real ones."""
    code = (
        "import sys; from metacalo.meta.engines import resolve_engine; resolve_engine('learn2learn');"
        "names = 'learn2learn', 'learn2learn.algorithms', 'torchvision', 'gym';"
        "print([name for name in names if name in sys.modules],"
        "'learn2learn.algorithms.maml' in sys.modules, 'learn2learn.algorithms.meta_sgd' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "True", "True"]


@pytest.mark.skipif(importlib.util.find_spec("learn2learn") is None, reason="learn2learn is not installed")
def test_learn2learn_s_own_wrappers_take_the_steps() -> None:
    model, engine = Point(1.0), resolve_engine("learn2learn")
    for rate, wrapper in ((0.1, "maml.MAML"), ({"theta": torch.ones(2)}, "meta_sgd.MetaSGD")):
        fast = engine.adapt(model, model.loop(rate=rate, steps=1, second_order=True), lambda fast, _: fast(0.0))
        assert f"{type(fast).__module__}.{type(fast).__name__}" == f"learn2learn.algorithms.{wrapper}"
