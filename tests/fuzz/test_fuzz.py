"""The fuzz itself: it sees a crash, a hang, too much memory, a traceback and a file out of place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.mutations import HOSTILE_NAMES, HOSTILE_TEXTS, mutate_bytes, mutate_value
from tests.fuzz.sandbox import Ended, Sandbox


def ended(place: Path, call, prepare=lambda _: None) -> Ended:
    sandbox = Sandbox(place / "place")
    sandbox.start(prepare, call)
    while (end := sandbox.poll()) is None:
        time.sleep(0.005)
    return end


def refused(_: Path) -> int:
    sys.stderr.write("metacalo: no\n")
    return 2


def hungry(_: Path) -> int:
    return len(np.ones(2**32, np.uint8)) and 0


def outside(case: Path) -> int:
    (case / ".." / ".." / "stolen").write_text("", encoding="utf-8")
    return 0


def inside(case: Path) -> int:
    (case / "out" / "result").write_text("", encoding="utf-8")
    return 0


@pytest.mark.parametrize(
    ("call", "verdict"),
    [
        (lambda _: 0, "accepted"),
        (inside, "accepted"),
        (refused, "refused"),
        (lambda _: 1 // 0, "traceback"),
        (lambda _: 1, "traceback"),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL) or 0, "crash"),
        (lambda _: os.kill(os.getpid(), signal.SIGXCPU) or 0, "hang"),
        (hungry, "memory"),
        (outside, "outside"),
    ],
)
def test_a_case_ends_as_it_ended(tmp_path, call, verdict):
    end = ended(tmp_path, call)
    assert end.verdict == verdict, end.message
    assert end.is_defect == (verdict not in ("accepted", "refused"))


def test_mutations_are_the_same_for_the_same_seed():
    content = bytes(range(256)) * 4
    first, second, other = (mutate_bytes(content, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == second != other
    values = {"a": [1, 2, {"b": "c"}], "d": 2.5}
    changed = [mutate_value(values, np.random.default_rng(seed)) for seed in range(30)]
    assert sum(each != values for each in changed) > 20
    assert values == {"a": [1, 2, {"b": "c"}], "d": 2.5}
    assert all(isinstance(make("{}"), bytes) for make in HOSTILE_TEXTS)
    assert len(set(HOSTILE_NAMES)) == len(HOSTILE_NAMES)


@pytest.mark.slow
def test_hostile_input_is_accepted_or_refused_in_one_sentence(tmp_path):
    line = (sys.executable, "-m", "tests.fuzz", "--cases", "200", "--out", str(tmp_path / "out"))
    subprocess.run(line, cwd=Path(__file__).parents[2], check=True)
    ended = json.loads((tmp_path / "out" / "cases.json").read_text())["cases"]
    assert len(ended) == 200
    assert [case for case in ended if case["verdict"] not in ("accepted", "refused")] == []
