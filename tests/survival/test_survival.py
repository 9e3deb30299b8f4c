"""What the survival benchmark says of folders in which a command was killed; no moment is drawn."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.survival.__main__ import Tally, _fault_after_kill, _fault_after_resuming, kill_and_resume, survival_table
from tests.survival.commands import Command

WRITE = """
import os, sys
path = sys.argv[sys.argv.index("--out") + 1]
temporary = os.path.join(os.path.dirname(path), ".result.tmp-1-x")
with open(temporary, "w") as file:
    file.write(("b" if "--seed" in sys.argv else "a") * 40)
os.replace(temporary, path)
"""


def fingerprint(path: Path) -> str:
    text = path.read_text()
    if text not in {"a" * 40, "b" * 40}:
        raise ValueError("half of it")
    return text


COMMAND = Command("write", (sys.executable, "-S", "-c", WRITE), fingerprint)


@pytest.mark.parametrize(
    ("found", "had_old", "fault"),
    [
        ("a" * 40, True, None),
        ("b" * 40, True, None),
        (None, False, None),
        (None, True, "the old result is gone"),
        ("b" * 40, False, "neither the old nor the new result"),
        ("a" * 17, False, "not readable: half of it"),
    ],
)
def test_half_results_are_found(tmp_path: Path, found: str | None, had_old: bool, fault: str | None) -> None:
    if found is not None:
        (tmp_path / COMMAND.result).write_text(found)
    old = "b" * 40 if had_old else None
    assert _fault_after_kill(COMMAND, tmp_path, Tally("write"), new="a" * 40, old=old) == fault


def test_what_is_left_after_the_command_is_given_again_is_found(tmp_path: Path) -> None:
    assert _fault_after_resuming(COMMAND, tmp_path, "a" * 40) is None
    assert _fault_after_resuming(COMMAND, tmp_path, "b" * 40) == "resumed, it ends with another result"
    (tmp_path / ".result.tmp-7-y").touch()
    assert _fault_after_resuming(COMMAND, tmp_path, "a" * 40) == "leaves .result.tmp-7-y"


def test_a_command_that_writes_beside_its_result_survives_whenever_it_is_killed(tmp_path: Path) -> None:
    tally = kill_and_resume(COMMAND, tmp_path, 4, seed=1)
    assert (tally.kills, tally.faults) == (4, [])
    assert survival_table([tally]).row_count == 1


@pytest.mark.slow
def test_metacalo_loses_nothing_when_it_is_killed(tmp_path: Path) -> None:
    line = (sys.executable, "-m", "tests.survival", "--kills", "5", "--out", str(tmp_path / "out"))
    subprocess.run(line, cwd=Path(__file__).parents[2], check=True)
