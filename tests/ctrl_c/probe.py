"""Runs a metacalo command and notes how long at a time it could not have heard Ctrl-C.

    python -m tests.ctrl_c.probe out/probe.json adapt --detector siw --shots 400 --out out/siw

Python hears a signal between two of its own instructions: a long call into compiled code is finished first. A timer
sends a signal after each 50 ms of CPU time; the longest stretch between two that were heard is what Ctrl-C may have to
wait for, at the worst of all moments, in CPU time, which other programs do not lengthen.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from metacalo.cli import main

__all__ = ["Probe"]

_EVERY = 0.05  # seconds of CPU time


class Probe:
    """Listens from `start` to `stop`.

    Attributes:
        longest: CPU seconds of the longest stretch in which no signal was heard.
        where: what ran when the next one was heard.
    """

    def __init__(self) -> None:
        self.longest, self.where, self._last = 0.0, "", 0.0

    def start(self) -> None:
        """Sets the timer."""
        self._last = time.process_time()
        signal.signal(signal.SIGPROF, self._hear)
        signal.setitimer(signal.ITIMER_PROF, _EVERY, _EVERY)

    def stop(self) -> None:
        """Stops it."""
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _hear(self, _number: int, frame: FrameType | None) -> None:
        now = time.process_time()
        if now - self._last > self.longest:
            self.longest, self.where = now - self._last, _place(frame)
        self._last = now


def _place(frame: FrameType | None) -> str:
    """The innermost function of metacalo."""
    while frame is not None and not str(frame.f_globals.get("__name__")).startswith("metacalo."):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_globals['__name__'].removeprefix('metacalo.')}.{frame.f_code.co_name}"


if __name__ == "__main__":
    probe, report = Probe(), Path(sys.argv[1])
    sys.argv = ["metacalo", *sys.argv[2:]]
    probe.start()
    try:
        main()
    finally:
        probe.stop()
        found = {"seconds": time.process_time(), "longest": probe.longest, "where": probe.where}
        report.write_text(json.dumps(found) + "\n")
