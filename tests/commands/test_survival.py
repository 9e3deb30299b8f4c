"""Commands that are interrupted, started twice, or find no room: one sentence, and nothing half-written."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from metacalo import generate as generating
from metacalo import pretrain
from metacalo.adapt import AdaptResult
from metacalo.adaptation.early_stopping import BestAverage
from metacalo.showers import data_folder
from metacalo.showers.part_files import part_file
from metacalo.showers.writer import ShowerWriter
from metacalo.storage.locking import sole_writer

Command = Callable[..., object]


def lines_of(sample: Path, adapted: AdaptResult, out: Path) -> dict[str, tuple[object, ...]]:
    """A short command of each kind that writes."""
    model = ("--model", adapted.out)
    base = ("--base", adapted.model.base.config.name)
    return {
        "adapt": ("adapt", "--detector", sample, *base, "--shots", 30, "--steps", 2, "--generator", "ar", "--out", out),
        "generate": ("generate", *model, "--showers", 6, "--batch-size", 2, "--out", out),
        "evaluate": ("evaluate", "--generated", sample, "--reference", sample, "--no-classifiers", "--out", out),
        "convert": ("convert", sample, "--format", "par04", "--out", out),
        "export": ("export", *model, "--format", "torchscript", "--out", out),
        "score": ("score", sample, *model, "--showers", 20, "--out", out),
    }


NAMES = ("adapt", "generate", "evaluate", "convert", "export", "score")


@pytest.mark.parametrize("name", NAMES)
def test_a_second_process_on_the_same_output_is_reported_so(
    command: Command, sample: Path, adapted: AdaptResult, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "result"
    with sole_writer(out):
        ran = command(*lines_of(sample, adapted, out)[name])
    assert (ran.code, ran.out) == (2, "")
    assert re.fullmatch(
        rf"metacalo: {re.escape(str(out))}: another metacalo process \(PID {os.getpid()} on host \S+\) is writing it; "
        r"wait for it or choose another --out\n",
        ran.err,
    )
    assert list(tmp_path.iterdir()) == []


def test_stages_may_be_trained_side_by_side_but_not_one_of_them_twice(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "base"
    recipe = data_folder("pretrained") / "base-no-pblar.toml"
    line = ("pretrain", "--config", recipe, "--out", out)
    with sole_writer(tmp_path / "base.work" / "ar"):
        ran = command(*line, "--stage", "ar")
        assert ran.code == 2
        assert "base.work/ar: another metacalo process" in ran.err
        assert command(*line).code == 2  # all stages are three, and that one is taken
        ran = command(*line, "--stage", "distil")  # one that the recipe does not have
        assert "unknown stage" in ran.err
        ran = command(*line, "--stage", "diffusion", "--initial", "nowhere")  # as far as that the lock is not asked
        assert "unknown base" in ran.err


def sends(number: int, after: int = 1) -> Callable[..., None]:
    """What sends this process a signal when it is called for so many times."""
    calls = []

    def call(*_: object, **__: object) -> None:
        calls.append(1)
        if len(calls) == after:
            os.kill(os.getpid(), number)

    return call


@pytest.mark.parametrize(
    ("number", "code", "how"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("name", ["adapt", "generate", "convert"])
def test_a_signal_is_one_line_and_leaves_nothing(
    command: Command,
    sample: Path,
    adapted: AdaptResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    number: int,
    code: int,
    how: str,
) -> None:
    out = tmp_path / "new" / "result"
    place = (BestAverage, "take_in") if name == "adapt" else (ShowerWriter, "append")
    monkeypatch.setattr(*place, sends(number))
    ran = command(*lines_of(sample, adapted, out)[name])
    assert (ran.code, ran.out) == (code, "")
    assert re.fullmatch(rf"metacalo: {how}[^\n]*; {re.escape(str(out))} was not written; [^\n]*again\n", ran.err)
    assert list(tmp_path.iterdir()) == []


def test_pretraining_says_how_to_go_on(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "training_data", sends(signal.SIGTERM))
    ran = command("pretrain", "--out", tmp_path / "base")
    assert (ran.code, ran.out) == (143, "")
    work = tmp_path / "base.work"
    assert ran.err == (
        f"metacalo: terminated; what was trained is kept in {work}; go on with the same command and --resume\n"
    )
    assert [file.name for file in work.iterdir()] == ["settings.json"]


def test_a_real_process_ends_at_ctrl_c(adapted: AdaptResult, tmp_path: Path) -> None:
    out = tmp_path / "showers.h5"
    line = (sys.executable, "-m", "metacalo.cli", "generate", "--model", adapted.out, "--showers", "9999", "--out", out)
    with subprocess.Popen(
        list(map(str, line)),
        cwd=data_folder("tasks").parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # as a terminal has it
    ) as process:
        while process.poll() is None and not list(tmp_path.glob(".showers.h5.tmp-*")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate()
    assert process.returncode == 130
    assert message == f"metacalo: interrupted; {out} was not written; give the same command again\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def in_parts(command: Command, adapted: AdaptResult, tmp_path: Path) -> Callable[..., object]:
    """Generates ten showers in parts of four."""
    config = tmp_path / "settings.toml"
    config.write_text("part_size = 4\nshowers = 10\nbatch_size = 3\n", encoding="utf-8")
    return lambda out, *more: command("generate", "--model", adapted.out, "--config", config, "--out", out, *more)


def _content(path: Path) -> list[np.ndarray]:
    """All but the attribute that tells the command."""
    with h5py.File(path) as file:
        message = [np.asarray(value) for name, value in sorted(file.attrs.items()) if name != "provenance"]
        return message + [file[name][()] for name in sorted(file)]


def test_a_long_generation_goes_on_where_it_was_killed(
    in_parts: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out, work = tmp_path / "whole.h5", tmp_path / "out.h5", tmp_path / "out.h5.work"
    assert in_parts(whole).code == 0
    seeds: list[int] = []
    part_seed = generating.part_seed

    def seen(seed: int, index: int) -> int:
        seeds.append(index)
        if seeds == [0, 1, 2]:
            os.kill(os.getpid(), signal.SIGTERM)
        return part_seed(seed, index)

    monkeypatch.setattr(generating, "part_seed", seen)
    ran = in_parts(out)
    assert (ran.code, ran.out) == (143, "")
    assert ran.err.endswith(f"complete parts are kept in {work}; go on with the same command and --resume\n")
    assert sorted(work.iterdir()) == [part_file(work, 0), part_file(work, 1), work / "settings.json"]
    ran = in_parts(out)
    assert ran.code == 2
    assert "an unfinished run is here; give --resume" in ran.err
    ran = in_parts(out, "--resume", "--seed", 5)
    assert ran.code == 2
    assert "the unfinished run had other settings, conditions" in ran.err
    assert in_parts(out, "--resume").code == 0
    assert seeds == [0, 1, 2, 2]
    for first, second in zip(*(_content(path) for path in (out, whole)), strict=True):
        np.testing.assert_array_equal(first, second)
    assert not work.exists()
    assert in_parts(out, "--resume").code == 2  # it is complete, and nothing is left to do
    assert in_parts(out, "--resume", "--force").code == 0


def test_a_generation_that_was_killed_before_its_parts_were_removed(in_parts: Command, tmp_path: Path) -> None:
    out, work = tmp_path / "out.h5", tmp_path / "out.h5.work"
    discard, kept = generating.discard, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generating, "discard", kept.append)
        assert in_parts(out).code == 0
    assert kept == [work]
    assert in_parts(out, "--resume").code == 0
    assert discard is generating.discard
    assert not work.exists()


@pytest.mark.filterwarnings("default:profiles.png was not drawn")
@pytest.mark.parametrize("name", ["generate", "convert", "frozen", "parts"])
def test_without_room_the_old_result_stays(
    command: Command, in_parts: Command, sample: Path, adapted: AdaptResult, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "result"
    out.write_text("old")
    lines = lines_of(sample, adapted, out)
    lines["frozen"] = (*lines["adapt"], "--generator", "frozen")
    line = lines.get(name)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, before[1]))
    try:
        ran = in_parts(out, "--force") if line is None else command(*line, "--force")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (ran.code, ran.out) == (2, "")
    said = ran.err.splitlines()
    assert re.fullmatch(r"metacalo: .*the file would be larger than files may be here.*", said[-1])
    assert all("was not drawn" in line for line in said[:-1])
    assert out.read_text() == "old"
    assert {place.name for place in tmp_path.iterdir()} <= {"result", "settings.toml", "result.work"}
