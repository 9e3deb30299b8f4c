"""Distillation against what is known exactly: Gaussian latents, whose v and whose flow have closed forms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from metacalo.errors import ConfigError
from metacalo.generators.base import Batch
from metacalo.generators.diffusion import Diffusion, DiffusionSettings, LossWeights
from metacalo.generators.distillation import distillation_loss, distilled, midpoint, two_halves
from metacalo.generators.samplers import SHORTCUT_STEPS
from metacalo.normaliser.latents import Latents
from tests.small import CONDITIONS, GRID, disturb, draw_batch, draw_latents, seeded, small_diffusion

VARIANCE = 2.5
MEAN = 0.7


def rows(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (like.dim() - 1))


def exact_velocity(x: Latents, time: Tensor, _step: Tensor) -> Latents:
    """E[cos(a) data - sin(a) noise | x] where the data are normal with mean 0.7 and variance 2.5."""

    def of(part: Tensor) -> Tensor:
        a = rows(math.pi / 2 * time, part)
        spread = a.sin() ** 2 * VARIANCE + a.cos() ** 2
        return a.cos() * MEAN + a.sin() * a.cos() * (VARIANCE - 1) / spread * (part - a.sin() * MEAN)

    return x.map(of)


def exact_shortcut(x: Latents, time: Tensor, step: Tensor) -> Latents:
    """(x' - x) / h, where x' has the mean of a + h and the same deviation in units of the width."""

    def of(part: Tensor) -> Tensor:
        a, h = (rows(math.pi / 2 * values, part) for values in (time, step))
        width, width_then = (torch.sqrt(b.sin() ** 2 * VARIANCE + b.cos() ** 2) for b in (a, a + h))
        then = (a + h).sin() * MEAN + width_then / width * (part - a.sin() * MEAN)
        return (then - part) / h

    return x.map(of)


def at(time: float, step: float, n: int = 3) -> tuple[Latents, Tensor, Tensor]:
    return draw_latents(n), torch.full((n,), time), torch.full((n,), step)


def worst(a: Latents, b: Latents) -> float:
    return float((a.flat() - b.flat()).detach().abs().max())


@pytest.mark.parametrize(("time", "step"), [(0.0, 1.0), (0.0, 0.5), (0.5, 0.5), (0.25, 0.25), (0.875, 0.125)])
def test_a_shortcut_is_the_mean_of_those_over_its_halves(time: float, step: float) -> None:
    given = at(time, step)
    assert worst(two_halves(exact_shortcut, *given), exact_shortcut(*given)) < 1e-5


def test_the_midpoint_rule_is_of_second_order() -> None:
    errors = []
    for step in (1 / 4, 1 / 8, 1 / 16):
        given = at(0.5, step)
        errors.append(worst(midpoint(exact_velocity, *given), exact_shortcut(*given)))
    assert errors[1] < 0.02
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.3)


def test_a_step_of_no_length_is_the_velocity() -> None:
    given = at(0.3, 0.0)
    assert worst(midpoint(exact_velocity, *given), exact_velocity(*given)) == 0


def test_the_shortest_steps_chain_to_the_exact_flow() -> None:
    x, n = draw_latents(40), 40
    moved = x
    for index in range(8):
        mean = midpoint(exact_velocity, moved, torch.full((n,), index / 8), torch.full((n,), 1 / 8))
        moved = moved.combine(mean, lambda a, b: a + math.pi / 16 * b)
    expected = x.map(lambda part: MEAN + VARIANCE**0.5 * part)
    assert worst(moved, expected) < 0.03


def test_parts_without_weight_are_no_part_of_distillation() -> None:
    """By default cells: the loss is that of the other parts, and a shortcut leaves the cells' noise as it is."""
    teacher = small_diffusion()
    disturb(teacher)
    student = student_of(teacher, steps=2)
    disturb(student, seed=6)
    batch = draw_batch(20)
    changed = Batch(replace(batch.latents, cells=batch.latents.cells + 1), batch.conditions)
    losses = [distillation_loss(student, teacher, each, seeded()) for each in (batch, changed)]
    assert torch.equal(*losses)
    assert float(losses[0].detach()) > 0
    drawn = sampled(student, "shortcut", 2)
    assert torch.equal(drawn.cells, Latents.noise(300, GRID, seeded(9)).cells)


def student_of(teacher: Diffusion, steps: int = 4) -> Diffusion:
    made = Diffusion(distilled(teacher.settings, steps), GRID, CONDITIONS)
    made.load_state_dict({**made.state_dict(), **teacher.state_dict()})
    return made


def test_an_undistilled_network_is_unchanged() -> None:
    teacher = small_diffusion()
    disturb(teacher)
    student = student_of(teacher)
    assert set(student.state_dict()) - set(teacher.state_dict()) == {"dit.step.weight"}
    batch, time = draw_batch(4), torch.rand(4, generator=seeded())
    expected = teacher.denoise(batch.latents, time, batch.conditions)
    for step in (None, torch.zeros(4), torch.ones(4)):
        assert worst(student.denoise(batch.latents, time, batch.conditions, step), expected) == 0
    torch.nn.init.normal_(student.dit.step.weight)
    assert worst(student.denoise(batch.latents, time, batch.conditions, torch.zeros(4)), expected) == 0
    assert worst(student.denoise(batch.latents, time, batch.conditions, torch.ones(4)), expected) > 1e-3
    assert "dit.step.weight" not in student.adaptable()


def test_the_loss_by_hand_of_a_network_of_zeros() -> None:
    """Its targets are zero as well: white latents need no step, however long."""
    teacher = small_diffusion()
    assert float(distillation_loss(student_of(teacher), teacher, draw_batch(10), seeded()).detach()) == 0


def test_the_loss_is_that_of_each_kind_of_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where teacher and student are exact, nothing is left of it but the error of the midpoint rule."""
    teacher = small_diffusion()
    student = student_of(teacher)
    seen: list[tuple[Tensor, Tensor]] = []

    def denoise(self: Diffusion, x: Latents, time: Tensor, _: Tensor, step: Tensor | None = None) -> Latents:
        if self is teacher:
            assert step is None
            return exact_velocity(x, time, time)
        seen.append((time, step))
        velocity, shortcut = exact_velocity(x, time, step), exact_shortcut(x, time, step)
        return velocity.combine(shortcut, lambda v, s: torch.where(rows(step, v) == 0, v, s))

    monkeypatch.setattr(Diffusion, "denoise", denoise)
    assert float(distillation_loss(student, teacher, draw_batch(50), seeded())) < 1e-4
    time, step = seen[-1]  # of the prediction that is compared
    lengths = {float(length): int((step == length).sum()) for length in step.unique()}
    assert lengths == dict.fromkeys([0.0, *(1 / n for n in SHORTCUT_STEPS)], 10)
    for n in SHORTCUT_STEPS:
        starts = time[step == 1 / n] * n
        assert torch.equal(starts, starts.round())
        assert float(starts.min()) >= 0
        assert float(starts.max()) <= n - 1
    halves = torch.cat([length for _, length in seen[:-1]])
    assert set(halves.tolist()) == {1 / 8, 1 / 4, 1 / 2}  # the student teaches itself all but the shortest steps


def test_the_targets_get_no_gradient() -> None:
    teacher = small_diffusion()
    disturb(teacher)
    student = student_of(teacher)
    distillation_loss(student, teacher, draw_batch(10), seeded()).backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())


@pytest.fixture(scope="module")
def teacher() -> Diffusion:
    """Has learnt cells that share half of their variance, layers that follow the conditions, and a mean."""
    model = small_diffusion(dit={"width": 32, "patch": (3, 4, 1)}, weights=LossWeights(cells=0.5))
    train(model, model.loss, steps=400, rate=1e-2)
    return model


def correlated(n: int, seed: int, shift: float = 0.0) -> Batch:
    batch = draw_batch(n, seed)
    layers = 0.5 * batch.latents.layers + 0.8 * batch.conditions[:, :1] + shift
    total = 0.5 * batch.latents.total + 0.9
    return Batch(Latents(total, layers, *batch.latents.components()[2:]), batch.conditions)


def train(model: Diffusion, loss: Callable[[Batch, torch.Generator], Tensor], *, steps: int, rate: float) -> None:
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        optimizer.zero_grad()
        loss(correlated(40, 1000 + step), seeded(step)).backward()
        optimizer.step()
        schedule.step()
    model.eval()


@pytest.fixture(scope="module")
def student(teacher: Diffusion) -> Diffusion:
    made = student_of(teacher)
    train(made, lambda batch, noise: distillation_loss(made, teacher, batch, noise), steps=300, rate=3e-3)
    return made


def sampled(model: Diffusion, sampler: str, steps: int) -> Latents:
    model = copy.copy(model)
    model.choose(sampler, steps)
    return model.sample(draw_batch(300, 5).conditions, seeded(9))


def distance(a: Latents, b: Latents) -> float:
    return float((a.flat() - b.flat()).square().mean().sqrt())


def test_one_step_of_the_student_ends_where_many_of_the_teacher_do(teacher: Diffusion, student: Diffusion) -> None:
    expected = sampled(teacher, "heun", 16)
    before = distance(sampled(teacher, "euler", 1), expected)
    assert before > 0.15
    for steps in SHORTCUT_STEPS:
        assert distance(sampled(student, "shortcut", steps), expected) < 0.2 * before
    shared = [float(latents.cells.mean((1, 2)).var()) for latents in (expected, sampled(student, "shortcut", 1))]
    assert shared[1] == pytest.approx(shared[0], rel=0.1)
    assert shared[0] > 0.45  # the teacher knows what it teaches


def test_the_velocity_stays_what_it_was(teacher: Diffusion, student: Diffusion) -> None:
    expected = sampled(teacher, "heun", 8)
    assert distance(sampled(student, "heun", 8), expected) < 0.3 * distance(sampled(teacher, "euler", 1), expected)
    batch = correlated(200, 3)
    losses = [float(model.loss(batch, seeded(4)).detach()) for model in (teacher, student)]
    assert losses[1] == pytest.approx(losses[0], rel=0.003)


def test_shortcuts_follow_an_adaptation_that_only_sees_the_velocity(student: Diffusion) -> None:
    """With as many evaluations they are nearer to the exact solution of the adapted network than its solvers."""
    adapted = copy.deepcopy(student)
    optimizer = torch.optim.Adam(adapted.adaptable().values(), lr=2e-3)
    for step in range(60):
        optimizer.zero_grad()
        adapted.loss(correlated(64, step, shift=0.8), seeded(step)).backward()
        optimizer.step()
    expected = sampled(adapted, "heun", 16)
    change = distance(sampled(student, "heun", 16), expected)
    assert float(expected.layers.mean()) == pytest.approx(0.8, abs=0.1)
    assert distance(sampled(adapted, "shortcut", 1), expected) < 0.65 * change
    assert distance(sampled(adapted, "shortcut", 4), expected) < 0.2 * change
    assert distance(sampled(adapted, "shortcut", 2), expected) < distance(sampled(adapted, "heun", 2), expected)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sampler": "shortcut"}, "needs a distilled network that predicts v"),
        ({"sampler": "shortcut", "steps": 3, "dit": {"shortcuts": True}}, "takes 1, 2, 4 or 8 steps, not 3"),
        ({"sampler": "shortcut", "prediction": "data", "dit": {"shortcuts": True}}, "that predicts v"),
    ],
)
def test_settings_that_cannot_be_sampled(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        DiffusionSettings.build(settings)


def test_a_network_that_predicts_noise_cannot_be_distilled() -> None:
    for prediction in ("noise", "data"):
        with pytest.raises(ConfigError, match=f"distil: the network predicts {prediction}, not v"):
            distilled(DiffusionSettings(prediction=prediction, sampler="ddpm"), 4)


def test_choosing_a_sampler() -> None:
    plain, student = small_diffusion(), student_of(small_diffusion(), steps=2)
    assert (student.sampler, student.steps) == ("shortcut", 2)
    student.choose(steps=8)
    assert (student.sampler, student.steps) == ("shortcut", 8)
    with pytest.raises(ConfigError, match="takes 1, 2, 4 or 8 steps, not 16; or use sampler = 'heun'"):
        student.choose(steps=16)
    student.choose("heun", 16)
    assert (student.sampler, student.steps) == ("heun", 16)
    with pytest.raises(ConfigError, match="needs a distilled network"):
        plain.choose("shortcut", 1)
    with pytest.raises(ConfigError, match="knows no step sizes; train the stage 'distil' first"):
        plain.denoise(draw_latents(2), torch.zeros(2), draw_batch(2).conditions, torch.ones(2))
