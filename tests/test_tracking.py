"""Logs and costs: what is written, what a resumed run cuts, and that a log never ends a run."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metacalo.errors import MissingExtraError
from metacalo.meta.outer_loop import OuterLoop, StageSettings
from metacalo.runtime.run_log import Clock, RunLog, require_tensorboard
from tests.meta.test_outer_loop import DrawnSampler, DrawnStream
from tests.small import seeded


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder))
    board.Reload()
    return [(event.step, event.value) for event in board.Scalars(name)]


class StopHereError(Exception):
    pass


def run(tmp_path: Path, log: RunLog, *, stop_at: int | None = None, steps: int = 64) -> OuterLoop:
    """A linear layer on drawn numbers; states are kept every 50 steps."""
    torch.manual_seed(0)
    model, generator = nn.Linear(3, 2), seeded(3)

    def step(number: int) -> torch.Tensor:
        if number == stop_at:
            raise StopHereError
        loss = (model(torch.randn(4, 3, generator=generator)) - 1).square().mean()
        loss.backward()
        return loss

    settings = StageSettings(steps=steps, warmup=20, learning_rate=0.01)
    sampler = DrawnSampler([DrawnStream()], seeded())
    loop = OuterLoop(
        "x", model, dict(model.named_parameters()), sampler, generator, step, settings, tmp_path / "x", 0.0, log=log
    )
    if stop_at is None:
        loop.run(resume=True)
    else:
        with pytest.raises(StopHereError):
            loop.run(resume=True)
    return loop


def test_a_resumed_run_neither_repeats_nor_loses_lines(tmp_path: Path) -> None:
    run(tmp_path / "whole", RunLog(tmp_path / "log-whole"))
    parts = RunLog(tmp_path / "log-parts")
    run(tmp_path / "parts", parts, stop_at=63)  # after the line of step 60, whose state is that of 50
    with (tmp_path / "log-parts" / "log.jsonl").open("a") as file:
        file.write('{"step": 61, "lo')  # killed while it wrote
    loop = run(tmp_path / "parts", RunLog(tmp_path / "log-parts"))
    whole, again = lines(tmp_path / "log-whole"), lines(tmp_path / "log-parts")
    assert [line["step"] for line in again] == [10, 20, 30, 40, 50, 60, 64]
    same = ("step", "stage", "loss", "learning_rate", "processes")
    assert [[line[key] for key in same] for line in again] == [[line[key] for key in same] for line in whole]
    for key in ("seconds", "cpu_seconds", "energy_Wh"):
        values = [line[key] for line in again]
        assert values == sorted(values)
        assert values[0] > 0
    assert {"showers_per_second", "peak_memory_GiB"} <= again[0].keys()
    assert loop.cost["cpu_seconds"] == again[-1]["cpu_seconds"]
    assert scalars(tmp_path / "log-parts", "loss") == [
        (line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in whole
    ]


def test_a_fresh_run_starts_a_fresh_log(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        run(tmp_path / folder, RunLog(tmp_path / "log"), steps=20)
    assert [line["step"] for line in lines(tmp_path / "log")] == [10, 20]
    assert [step for step, _ in scalars(tmp_path / "log", "loss")] == [10, 20]


def test_a_full_disk_ends_the_log_with_one_warning_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunLog, "_write", full)
    with pytest.warns(UserWarning, match="the log ends here, the run goes on .*No space left") as message:
        loop = run(tmp_path, RunLog(tmp_path / "log"))
    assert len(message) == 1
    assert loop.step == 64


def test_no_log_by_default(tmp_path: Path) -> None:
    loop = run(tmp_path, RunLog())
    assert loop.cost["cpu_seconds"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"x"}


def test_energy_is_processor_time_times_watts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(watts_per_core=36.0)
    clock.go_on({"seconds": 100.0, "cpu_seconds": 1000.0, "energy_Wh": 10.0, "peak_memory_GiB": 1e6})
    start = clock._worked
    monkeypatch.setattr("metacalo.runtime.run_log.time.process_time", lambda: start + 500.0)
    read = clock.read()
    assert read["cpu_seconds"] == pytest.approx(1500)
    assert read["energy_Wh"] == pytest.approx(10 + 500 * 36 / 3600)
    assert read["seconds"] > 100
    assert read["peak_memory_GiB"] == 1e6


def test_power_of_a_gpu_is_added_up_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metacalo.runtime.run_log._gpu_watts", lambda _: 360.0)
    now = [0.0]
    monkeypatch.setattr("metacalo.runtime.run_log.time.monotonic", lambda: now[0])
    clock = Clock(watts_per_core=0.0)
    for now[0] in (10.0, 25.0):
        read = clock.read()
    assert read["energy_Wh"] == pytest.approx(360 * 25 / 3600)


def test_a_missing_tensorboard_is_reported_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metacalo.runtime.run_log.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'metacalo\[tracking\]'"):
        require_tensorboard()
