"""Two processes that write the same result."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from metacalo.errors import OutputError
from metacalo.storage.locking import sole_writer, writer_of

HOLD = """
import sys, time
from metacalo.storage.locking import sole_writer
with sole_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder() -> Iterator[Callable[[Path], subprocess.Popen]]:
    """Starts processes that hold the lock of a result."""
    started: list[subprocess.Popen] = []

    def start(path: Path) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        with process:
            process.wait()


def test_the_second_process_learns_who_the_first_one_is(
    holder: Callable[[Path], subprocess.Popen], tmp_path: Path
) -> None:
    path = tmp_path / "out" / "model"
    first = holder(path)
    who = f"PID {first.pid} on host {platform.node()}"
    assert writer_of(path) == who
    sentence = f"{path}: another metacalo process ({who}) is writing it; wait for it or choose another --out"
    with pytest.raises(OutputError, match=f"^{re.escape(sentence)}$"), sole_writer(path):
        pass
    with sole_writer(tmp_path / "out" / "other"):
        pass
    first.kill()
    first.wait()
    assert (tmp_path / "out" / ".model.lock").exists()  # left behind, and in nobody's way
    assert writer_of(path) is None
    with sole_writer(path):
        assert writer_of(path) == f"PID {os.getpid()} on host {platform.node()}"
    assert list((tmp_path / "out").iterdir()) == []


def test_within_a_process_too_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "made" / "for" / "it"
    with sole_writer(path):
        assert path.parent.is_dir()
        with pytest.raises(OutputError, match="another metacalo process"), sole_writer(path):
            pass
    assert list(tmp_path.iterdir()) == []
    with sole_writer(path):
        path.write_text("result")
    assert [place.name for place in path.parent.iterdir()] == ["it"]
    with pytest.raises(OutputError, match="exists already"), sole_writer(path, force=False):
        pass


def test_who_waits_is_next(tmp_path: Path) -> None:
    path, order = tmp_path / "base", []

    def second() -> None:
        with sole_writer(path, wait=True):
            order.append("second")

    with sole_writer(path):
        thread = Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_reported_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"), sole_writer(tmp_path / "file" / "model"):
        pass
