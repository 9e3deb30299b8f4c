"""Signals that end a process: when they are taken, and the message printed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Barrier, Event, Thread
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from metacalo.meta.outer_loop import OuterLoop, StageSettings
from metacalo.runtime import signals as interruption
from metacalo.runtime.signals import Interrupted, Signals, note_on_interrupt, signals_held
from metacalo.runtime.threads import side_by_side
from metacalo.storage.checkpoint import tensor_hash
from tests.small import seeded

GUARD = 600
"""Seconds after which a test fails whose other side does not answer; no right program comes near it."""


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)  # handlers run between two steps of the interpreter


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_becomes_the_exit_code_of_shells(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "time", SimpleNamespace(monotonic=lambda: 0.0))  # however slowly it is sent
    before = signal.getsignal(number)
    with Signals() as signals:
        assert signals.received is None
        with pytest.raises(Interrupted) as caught, note_on_interrupt("all is kept"), note_on_interrupt("a step"):
            send(number)
        send(number)  # the same wish once more
    assert (caught.value.code, caught.value.__notes__, signals.received) == (code, ["all is kept"], number)
    assert signal.getsignal(number) is before


def test_a_second_wish_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ended = [0.0], []
    monkeypatch.setattr(interruption, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(interruption.os, "_exit", ended.append)
    with Signals():
        with pytest.raises(Interrupted):
            send(signal.SIGTERM)
        now[0] = 10.0
        send(signal.SIGTERM)
    assert ended == [143]


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As for commands under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            send(signal.SIGHUP)
        assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_held_signal_comes_at_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        with signals_held(grace=GUARD) as held:
            send(signal.SIGINT)
            done.append(held.asked)
        done.append("after")
    assert done == [True]


@pytest.mark.parametrize("again", [True, False])
def test_a_held_signal_does_not_wait_for_ever(again: bool) -> None:
    with pytest.raises(Interrupted), Signals(), signals_held(grace=GUARD if again else 0.05):
        send(signal.SIGTERM)
        if again:
            send(signal.SIGTERM)
        Event().wait(GUARD)
        pytest.fail("the step was waited for")


def test_threads_hold_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    found: list[object] = []

    def work() -> None:
        with signals_held() as held:
            found.extend([signal.getsignal(signal.SIGINT), held.asked])

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before, False]


class NoSampler:
    """A source of showers of which none are drawn."""

    showers = 0

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        assert state == {}


def walk(folder: Path, before_step: Callable[[int], object] = lambda _: None, resume: bool = False) -> tuple[str, list]:
    """A linear layer pulled by a random force for 120 steps: hash of its weights, and its losses."""
    torch.manual_seed(0)
    model, noise = nn.Linear(3, 2), seeded(3)

    def step(number: int) -> Tensor:
        before_step(number)
        loss = (model(torch.randn(4, 3, generator=noise)) - 1).square().mean()
        loss.backward()
        return loss

    settings = StageSettings(steps=120, warmup=0, learning_rate=0.01)
    parameters = dict(model.named_parameters())
    losses = OuterLoop("x", model, parameters, NoSampler(), noise, step, settings, folder / "x", 1e9).run(resume=resume)
    return tensor_hash(model.state_dict()), losses


@pytest.mark.parametrize("at", [0, 49, 73, 119])
def test_training_keeps_its_state_between_two_steps(tmp_path: Path, at: int) -> None:
    """At a step that is no multiple of those after which losses are logged, and at the last one too."""
    expected = walk(tmp_path / "whole")
    with pytest.raises(Interrupted), Signals():
        walk(tmp_path, lambda step: step == at and send(signal.SIGTERM))
    steps: list[int] = []
    assert walk(tmp_path, steps.append, resume=True) == expected
    assert steps == list(range(at + 1, 120))
    assert [place.name for place in tmp_path.iterdir()] == ["x"]


def test_threads_end_when_the_main_one_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that one hears of Ctrl-C, which comes when both threads work and it waits for them."""
    stop, begun, ended = Event(), Barrier(3, timeout=GUARD), []

    def work() -> None:
        begun.wait()
        assert stop.wait(GUARD)
        ended.append(True)

    def interrupted(_: Future) -> None:
        begun.wait()
        send(signal.SIGINT)

    monkeypatch.setattr(Future, "result", interrupted)
    cores = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side([work, work, work], "cpu", stop=stop)
    finally:
        torch.set_num_threads(cores)
    assert ended == [True, True]  # the third was not begun
