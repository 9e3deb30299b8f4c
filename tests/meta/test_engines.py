"""Meta-gradients against formulas and against another implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from metacalo.checkpoint import tensor_hash
from metacalo.generators.base import Batch, ShowerGenerator
from metacalo.meta.engines import Engine, HigherEngine
from metacalo.models import transformer
from metacalo.models.transformer import BlockStack
from tests.small import disturb, draw_batch, seeded, small_autoregressive, small_diffusion

ENGINES: list[Engine] = [HigherEngine()]
CODED = ("rings", "hits")
"""Parts of the latents that the tokenizer reads."""
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


@pytest.mark.parametrize("engine", ENGINES)
@given(theta=numbers, a=numbers, b=numbers, rate=st.floats(0.01, 1.5), steps=st.integers(0, 6))
def test_quadratic_losses(engine: Engine, theta: float, a: float, b: float, rate: float, steps: int) -> None:
    """k steps on (theta - a)^2 / 2 lead to theta_k = a + (1 - rate)^k (theta - a), and d theta_k / d theta is known."""
    model = Point(theta)
    start = model.theta.detach().clone()
    before = tensor_hash(model.state_dict())
    decay = (1 - rate) ** steps
    adapted = a + decay * (start - a)
    for second_order, expected in ((True, decay * (adapted - b)), (False, adapted - b)):
        loss, gradients = engine.query_gradients(
            model,
            ["theta"],
            lambda fast, _: fast(a),
            lambda fast: fast(b),
            steps=steps,
            rate=rate,
            second_order=second_order,
        )
        torch.testing.assert_close(gradients["theta"], expected, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(loss, 0.5 * (adapted - b).square().sum(), atol=1e-10, rtol=1e-10)
        assert not loss.requires_grad
        assert "fixed" not in gradients
    assert tensor_hash(model.state_dict()) == before
    assert model.theta.grad is None


@pytest.mark.parametrize("engine", ENGINES)
def test_each_inner_step_has_its_own_loss(engine: Engine) -> None:
    targets, theta, expected = [1.0, -2.0, 0.5], 3.0, 3.0
    for target in targets:
        expected -= 0.1 * (expected - target)
    loss, _ = engine.query_gradients(
        Point(theta),
        ["theta"],
        lambda fast, step: fast(targets[step]),
        lambda fast: fast.theta[0].square(),
        steps=3,
        rate=0.1,
        second_order=False,
    )
    assert float(loss) == pytest.approx(expected**2, rel=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_parameters_that_only_shape_the_inner_loss(engine: Engine) -> None:
    """Inner target phi: d theta_k / d phi = 1 - (1 - rate)^k, which first order does not see."""
    rate, steps, b = 0.3, 3, 0.7
    model = Point(2.0, phi=-1.0)
    decay = (1 - rate) ** steps
    adapted = -1 + decay * (model.theta.detach() + 1)

    def gradients(second_order: bool) -> dict[str, Tensor]:
        return engine.query_gradients(
            model,
            ["theta"],
            lambda fast, _: fast(0.0, 1.0),
            lambda fast: fast(b),
            steps=steps,
            rate=rate,
            second_order=second_order,
        )[1]

    expected = ((1 - decay) * (adapted - b)).sum()[None]
    torch.testing.assert_close(gradients(True)["phi"], expected, atol=1e-12, rtol=1e-12)
    first = gradients(False)
    assert "phi" not in first or (first["phi"] == 0).all()


def reference(
    model: nn.Module,
    adaptable: Sequence[str],
    inner_loss: Callable[[Any, int], Tensor],
    query_loss: Callable[[Any], Tensor],
    *,
    steps: int,
    rate: float,
    second_order: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same by `torch.func.functional_call` and autograd."""
    start = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters() if p.requires_grad}
    fast = dict(start)

    def call(*arguments: Any) -> Tensor:
        return torch.func.functional_call(model, fast, arguments)

    with sdpa_kernel(SDPBackend.MATH):
        for step in range(steps):
            wanted = [fast[name] for name in adaptable]
            gradients = torch.autograd.grad(inner_loss(call, step), wanted, create_graph=second_order)
            moved = {n: fast[n] - rate * g for n, g in zip(adaptable, gradients, strict=True)}
            fast.update(moved)
            if not second_order:
                fast = {name: tensor.detach().requires_grad_() for name, tensor in fast.items()}
        loss = query_loss(call)
        wanted = list((start if second_order else fast).values())
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    return loss.detach(), {n: g for n, g in zip(start, gradients, strict=True) if g is not None}


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


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("make", [double_diffusion, double_autoregressive])
@pytest.mark.usefixtures("double")
def test_engines_agree_with_an_independent_implementation(
    engine: Engine, make: Callable[[], tuple[ShowerGenerator, list[Batch]]], second_order: bool
) -> None:
    torch.set_default_dtype(torch.float32)
    model, (first, second, query) = make()
    torch.set_default_dtype(torch.float64)
    disturb(model)
    model.train()
    before = tensor_hash(model.state_dict())

    def run(method: Callable) -> tuple[Tensor, dict[str, Tensor]]:
        noise = seeded(4)
        return method(
            model,
            list(model.adaptable()),
            lambda fast, step: fast((first, second)[step], noise),
            lambda fast: fast(query, noise),
            steps=2,
            rate=0.05,
            second_order=second_order,
        )

    (loss, gradients), (expected_loss, expected) = run(engine.query_gradients), run(reference)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=1e-7)
    assert gradients.keys() == expected.keys() == model.trainable().keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-6, msg=name)
        assert gradient.dtype == torch.float64
    assert tensor_hash(model.state_dict()) == before
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("engine", ENGINES)
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
    """Functional copies are not compiled: each would be anew."""
    monkeypatch.setattr(transformer, "_compiled_run", lambda: pytest.fail("a functional copy was compiled"))
    batches = [draw_batch(4, seed) for seed in range(3)]
    found = []
    for value in (False, True):
        model, noise = make(), seeded(4)
        disturb(model)
        stacks = [module for module in model.modules() if isinstance(module, BlockStack)]
        for stack in stacks:
            setattr(stack, attribute, value)
        _, gradients = engine.query_gradients(
            model.train(),
            list(model.adaptable()),
            lambda fast, step, noise=noise: fast(batches[step], noise),
            lambda fast, noise=noise: fast(batches[2], noise),
            steps=2,
            rate=0.5,
            second_order=second_order,
        )
        found.append(gradients)
        assert all(getattr(stack, attribute) == value for stack in stacks)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)
