"""The interruption benchmark finds what it is for: commands that tell too much, or leave something, at Ctrl-C."""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

import pytest

from benchmarks.interruption import Ended, Heard, interrupted, interruption_table
from benchmarks.interruption_probe import Probe

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
    ended = Ended("adapt", 2.5, 3.0, 6.0, 130, "metacalo: interrupted; x was not written\n", ())
    table = interruption_table([(Heard("adapt", 5.0, 0.25, "methods.step"), ended)])
    assert [next(iter(column.cells)) for column in table.columns] == [
        "adapt", "5.0", "0.25", "methods.step", "2.5", "3.00", "x was not written"
    ]  # fmt: skip
    assert ended.fault(2.0) == "takes 3.0 s of CPU time"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_longest_stretch_without_hearing_is_found() -> None:
    """A call into compiled code takes 0.4 s of CPU time, in which Python hears nothing."""
    probe = Probe()
    probe.start()
    try:
        while probe.longest == 0:
            pass
        before = probe.longest
        started = time.process_time()
        hashlib.pbkdf2_hmac("sha256", b"x", b"y", 400_000)
        deaf = time.process_time() - started
        while probe.longest == before:
            pass
    finally:
        probe.stop()
    assert probe.longest >= 0.5 * deaf > before
