"""The interruption benchmark finds what it is for: commands that tell too much, or leave something, at Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.interruption import Ended, interrupted, interruption_table

BUSY = """
import os, pathlib, sys
place = pathlib.Path(sys.argv[1])
try:
    while True:
        pass
except KeyboardInterrupt:
    if "leaves" in sys.argv:
        (place / ".result.tmp-1-x").touch()
    if "traceback" in sys.argv:
        raise
    print("metacalo: interrupted; nothing was written", file=sys.stderr)
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("way", "fault"),
    [("well", None), ("leaves", "leaves .result.tmp-1-x"), ("traceback", "tells 'Traceback")],
)
def test_faults_are_found(tmp_path: Path, way: str, fault: str | None) -> None:
    place = tmp_path / "place"
    ended = interrupted("busy", (sys.executable, "-S", "-c", BUSY, str(place), way), place, 0.2)
    assert ended is not None
    assert ended.after >= 0.2
    found = ended.fault(limit=60)
    assert found is None if fault is None else fault in (found or "")
    assert not place.exists()


def test_a_command_that_is_done_was_not_interrupted(tmp_path: Path) -> None:
    assert interrupted("short", (sys.executable, "-S", "-c", ""), tmp_path / "place", 60) is None


def test_a_row_of_the_table() -> None:
    rows = [Ended("adapt", after, cpu, 2 * cpu, 130, "", ()) for after, cpu in ((1.0, 0.5), (2.5, 3.0), (2.0, 0.25))]
    assert [next(iter(column.cells)) for column in interruption_table(rows).columns] == [
        "adapt", "1.0 to 2.5", "0.50", "3.00", "6.0"
    ]  # fmt: skip
    assert [row.fault(2.0) for row in rows][1] == "takes 3.0 s of CPU time"
