"""The survival benchmark finds what it is for: a command that writes in place, beside one that does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.survival import Tally, kill_and_resume, survival_table
from benchmarks.survival_commands import Command

WRITE = """
import os, sys, time
path = sys.argv[sys.argv.index("--out") + 1]
text = "b" if "--seed" in sys.argv else "a"
place = path if "in-place" in sys.argv else os.path.join(os.path.dirname(path), ".result.tmp-1-x")
mark = os.path.join(os.path.dirname(path), ".mark.tmp-1-x")
open(mark, "w").close()
with open(place, "w") as file:
    for _ in range(4):
        time.sleep(0.05)
        file.write(text * 10)
        file.flush()
os.replace(place, path)
os.unlink(mark)
"""


def fingerprint(path: Path) -> str:
    text = path.read_text()
    assert text in {"a" * 40, "b" * 40}, "half of it"
    return text


@pytest.mark.parametrize("way", ["atomic", "in-place"])
def test_half_results_are_found(tmp_path: Path, way: str) -> None:
    command = Command("write", (sys.executable, "-S", "-c", WRITE, way), fingerprint)
    tally = kill_and_resume(command, tmp_path, 8, seed=1)
    assert (tally.kills, tally.temporaries) == (8, 2 if way == "atomic" else 1)
    assert tally.writing > 0
    if way == "atomic":
        assert tally.faults == []
        assert tally.none + tally.old + tally.new == 8
        assert tally.none > 0
        assert tally.old > 0
    else:
        assert any("not readable: half of it" in fault for fault in tally.faults)


def test_a_row_of_the_table() -> None:
    table = survival_table([Tally("adapt", 3.25, 2, kills=4, writing=1, none=1, old=2, new=1, faults=["x"])])
    assert [next(iter(column.cells)) for column in table.columns] == [
        "adapt", "3.2", "4", "1 (25%)", "1 / 2 / 1", "3", "1"
    ]  # fmt: skip
