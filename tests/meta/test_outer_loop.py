from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from metacalo.errors import ModelFolderError
from metacalo.generators.base import Batch
from metacalo.meta.algorithms import Algorithm, resolve_algorithm
from metacalo.meta.engines import TorchEngine
from metacalo.meta.outer_loop import OuterLoop, StageSettings
from metacalo.storage.checkpoint import tensor_hash
from metacalo.training_data.episodes import Episode, TaskStream
from metacalo.training_data.sampler import EpisodeSampler
from tests.small import draw_batch, seeded, small_autoregressive, small_diffusion, small_tokenizer


class StopHereError(Exception):
    pass


class DrawnStream(TaskStream):
    """Showers drawn from normals in place of those of a task."""

    def __init__(self) -> None:
        self.drawn = 0
        self.task = SimpleNamespace(name="drawn")

    def __len__(self) -> int:
        return 100

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        self.drawn += n
        return draw_batch(n, seed=int(torch.randint(1000, (1,), generator=generator)) + self.drawn)

    def draw_episode(
        self, *, inner_steps: int, support: int, query: int, generator: torch.Generator, within: object
    ) -> Episode:
        batches = tuple(self.draw(support, generator) for _ in range(inner_steps))
        return Episode("drawn", batches, self.draw(query, generator))


class DrawnSampler(EpisodeSampler):
    """Whose mixed batches are of one such stream each, for these have no pools to mix."""

    def mixed_batch(self, n: int) -> Batch:
        return self._streams[self._tasks(1)[0]].draw(n, self.generator)


@dataclass
class Run:
    """One stage on a small model, from the same start whenever it is made."""

    kind: str
    folder: Path
    steps: int = 105
    stop_at: int | None = None
    meta: str = "fomaml"
    meta_from: int = 95

    def __post_init__(self) -> None:
        make = {
            "tokenizer": lambda: small_tokenizer(size=64),  # so many codes that dead ones are revived at random
            "ar": lambda: small_autoregressive(blocks=1, width=12),
            "diffusion": lambda: small_diffusion(dit={"blocks": 1, "width": 12}),
        }
        self.model = make[self.kind]()
        torch.manual_seed(4)
        self.sampler = DrawnSampler([DrawnStream(), DrawnStream()], seeded(1))
        self.noise = seeded(2)
        parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.algorithm: Algorithm | None = None
        if self.kind != "tokenizer":
            self.algorithm = resolve_algorithm(self.meta)(self.model, TorchEngine(), rate=0.02)
            self.algorithm.prepare()
            parameters = self.algorithm.parameters()
        settings = StageSettings(steps=self.steps, batch=4, warmup=10, learning_rate=3e-3, average=0.9)
        state = self.folder / "stage.state"
        self.loop = OuterLoop(
            self.kind, self.model, parameters, self.sampler, self.noise, self.step, settings, state, 0.0
        )

    def step(self, step: int) -> Tensor:
        if step == self.stop_at:
            raise StopHereError
        if self.kind == "tokenizer":
            loss, _ = self.model.loss(self.sampler.mixed_batch(4).latents)
        elif step < self.meta_from:
            loss = self.model.loss(self.sampler.mixed_batch(4), self.noise)
        else:
            episodes = self.sampler.episodes(2, inner_steps=1, support=2, query=2)
            return self.algorithm.step(episodes, self.noise)
        loss.backward()
        return loss

    def result(self, *, resume: bool = False) -> tuple[str, list[float]]:
        losses = self.loop.run(resume=resume)
        return tensor_hash(self.model.state_dict()), losses


@pytest.mark.parametrize("kind", ["tokenizer", "ar", "diffusion"])
def test_a_resumed_run_ends_like_one_that_was_not_interrupted(kind: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = Run(kind, whole).result()
    for stop_at in (55, 102):  # states are kept after 50 and after 100 steps
        interrupted = Run(kind, parts, stop_at=stop_at)
        with pytest.raises(StopHereError):
            interrupted.loop.run(resume=True)
        torch.randn(7)  # whatever happens in between
    resumed = Run(kind, parts)
    calls: list[int] = []
    inner = resumed.loop.gradient_step
    resumed.loop.gradient_step = lambda step: calls.append(step) or inner(step)  # type: ignore[func-returns-value]
    assert resumed.result(resume=True) == expected
    assert calls == list(range(100, 105))
    assert len(expected[1]) == 2
    assert not list(parts.glob("*.tmp*"))


@pytest.mark.parametrize("meta", ["meta-sgd", "cavia", "reptile"])
def test_what_the_outer_loop_moves_beside_the_weights_is_resumed_too(meta: str, tmp_path: Path) -> None:
    def run(folder: str, **changes: int) -> Run:
        return Run("diffusion", tmp_path / folder, meta=meta, meta_from=48, steps=52, **changes)

    whole = run("whole")
    expected = whole.result()
    interrupted = run("parts", stop_at=51)
    with pytest.raises(StopHereError):
        interrupted.loop.run(resume=True)
    resumed = run("parts")
    assert resumed.result(resume=True) == expected
    assert resumed.loop.step == 52
    rates, again = whole.algorithm.rates(), resumed.algorithm.rates()
    assert tensor_hash(rates) == tensor_hash(again)
    assert len(rates) == (len(whole.model.subspace("adapters")) if meta == "meta-sgd" else 0)
    assert meta != "meta-sgd" or any((rate != 0.02).any() for rate in rates.values())
    if meta == "cavia":
        assert all(parameter.abs().sum() == 0 for parameter in resumed.model.subspace("context").values())


def test_a_fresh_run_does_not_look_at_old_states(tmp_path: Path) -> None:
    expected = Run("diffusion", tmp_path, steps=60).result()
    assert (tmp_path / "stage.state").exists()
    assert Run("diffusion", tmp_path, steps=60).result(resume=False) == expected


def test_the_state_of_another_stage_is_refused(tmp_path: Path) -> None:
    Run("diffusion", tmp_path, steps=50).result()
    with pytest.raises(ModelFolderError, match="holds stage 'diffusion', not 'ar'"):
        Run("ar", tmp_path, steps=50).result(resume=True)


def test_losses_are_means_of_fifty_steps(tmp_path: Path) -> None:
    run = Run("tokenizer", tmp_path)
    single: list[float] = []
    inner = run.loop.gradient_step

    def recorded(step: int) -> Tensor:
        loss = inner(step)
        single.append(float(loss.detach()))
        return loss

    run.loop.gradient_step = recorded
    _, losses = run.result()
    torch.testing.assert_close(
        torch.tensor(losses), torch.tensor([sum(single[:50]) / 50, sum(single[50:100]) / 50]), rtol=1e-5, atol=0
    )


def walk(tmp_path: Path, average: float, steps: int = 30, **settings: float) -> tuple[nn.Linear, list[Tensor]]:
    """A linear layer pulled by a random force, and its weights before each step."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    before: list[Tensor] = []
    generator = seeded(3)

    def step(_: int) -> Tensor:
        before.append(model.weight.detach().clone())
        loss = (model(torch.randn(4, 3, generator=generator)) - 1).square().mean()
        loss.backward()
        return loss

    stage = StageSettings(steps=steps, average=average, warmup=0, learning_rate=0.01, **settings)
    sampler = DrawnSampler([DrawnStream()], seeded())
    parameters = dict(model.named_parameters())
    OuterLoop("x", model, parameters, sampler, seeded(), step, stage, tmp_path / "x", 1e9).run(resume=False)
    assert not model.training
    return model, before


def test_the_averaged_weights_are_left_in_the_model(tmp_path: Path) -> None:
    last, before = walk(tmp_path, average=0.0)  # no memory: the weights after the last step
    averaged, same = walk(tmp_path, average=0.8)
    assert all(torch.equal(a, b) for a, b in zip(before, same, strict=True))
    expected = before[0]
    for step, weight in enumerate([*before[1:], last.weight.detach()]):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(averaged.weight.detach(), expected)
    assert not torch.allclose(averaged.weight, last.weight)


def test_no_steps_leave_the_model_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(0)
    untouched = nn.Linear(3, 2)
    model, before = walk(tmp_path, average=0.5, steps=0)
    assert torch.equal(model.weight, untouched.weight)
    assert before == []


def test_the_first_step_is_that_of_adam(tmp_path: Path) -> None:
    """AdamW moves each weight by the learning rate against the sign of its gradient, and shrinks it by the decay."""
    torch.manual_seed(0)
    weight = nn.Linear(3, 2).weight.detach()
    model, _ = walk(tmp_path, average=0.0, steps=1, weight_decay=0.5)
    moved = model.weight.detach() - weight * (1 - 0.01 * 0.5)
    torch.testing.assert_close(moved.abs(), torch.full((2, 3), 0.01), rtol=1e-3, atol=0)


@pytest.fixture
def rate_at(tmp_path: Path) -> Callable[[int], float]:
    run = Run("diffusion", tmp_path, steps=110)  # warm-up of 10 steps, peak 3e-3

    def at(step: int) -> float:
        run.loop.step = step
        return run.loop._learning_rate()

    return at


def test_learning_rate_warms_up_and_falls_to_a_fiftieth(rate_at: Callable[[int], float]) -> None:
    assert rate_at(0) == pytest.approx(3e-4)
    assert rate_at(4) == pytest.approx(1.5e-3)
    assert rate_at(9) == rate_at(10) == pytest.approx(3e-3)
    assert rate_at(60) == pytest.approx(3e-3 * 0.51)
    assert rate_at(35) == pytest.approx(3e-3 * (0.02 + 0.49 * (1 + math.sqrt(0.5))))
    assert rate_at(110) == pytest.approx(6e-5)
