"""`--log-dir` and the cost that results tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from metacalo.adaptation.methods import LEARNING_RATES
from metacalo.storage.checkpoint import load_json
from tests.commands.conftest import BASE

Command = Callable[..., object]


def test_adapt_logs_losses_and_tells_its_cost(command: Command, sample: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "short.toml"
    recipe.write_text("steps = 4\ncheck_every = 2\ncompared_showers = 0\nwatts_per_core = 20.0\n")
    message = ("--detector", sample, "--base", BASE, "--shots", 40, "--generator", "diffusion", "--config", recipe)
    ran = command("adapt", *message, "--out", tmp_path / "model", "--log-dir", tmp_path / "log", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "log" / "diffusion" / "log.jsonl").read_text().splitlines()]
    metrics = load_json(tmp_path / "model" / "metrics.json")
    checks = dict(metrics["generators"]["diffusion"]["checks"])
    assert [line["step"] for line in lines] == list(range(1, metrics["generators"]["diffusion"]["steps"] + 1))
    assert [line["held_back_loss"] for line in lines] == [checks[step // 2 * 2] for step in (1, 2, 3, 4)][: len(lines)]
    assert lines[0]["learning_rate"] == pytest.approx(LEARNING_RATES["conditioning+bias"] / 10)
    assert all(line["loss"] > 0 for line in lines)
    assert len(list((tmp_path / "log" / "diffusion").glob("events.out.tfevents.*"))) == 1
    cost = metrics["cost"]
    assert cost["cpu_seconds"] > 0
    assert cost["energy_Wh"] == pytest.approx(cost["cpu_seconds"] * 20 / 3600)
    assert 0.1 < cost["peak_memory_GiB"] < 100


@pytest.mark.parametrize("verb", [("adapt", "--detector", "pblar"), ("pretrain",)])
def test_a_log_without_tensorboard_is_refused_before_work(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.setattr("metacalo.runtime.run_log.find_spec", lambda _: None)
    ran = command(*verb, "--out", tmp_path / "x", "--log-dir", tmp_path / "log")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        "metacalo: --log-dir needs TensorBoard, which is not installed: pip install 'metacalo[tracking]'\n"
    )
    assert list(tmp_path.iterdir()) == []
