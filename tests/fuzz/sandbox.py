"""A process for one hostile input: what it may take, what it did, and how it ended."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["MEMORY", "SECONDS", "Ended", "Sandbox"]

MEMORY: Final = 2 * 2**30
"""Bytes of address space that a case may take beyond those of the program that has done nothing yet."""

SECONDS: Final = 30
"""Of the processor that a case may take."""

WAIT: Final = 240
"""Seconds of the wall clock after which a case hangs; on a busy machine they are many more than those it took."""

_TRACEBACK: Final = 70  # exit code of a case that raised what no case may raise
_ODD_SENTENCE: Final = 71
_LARGEST_FILE: Final = 2**30


@dataclass(frozen=True)
class Ended:
    """How a case ended.

    Attributes:
        verdict: accepted, refused, or the kind of the defect: crash, hang, memory, traceback, sentence, outside.
        message: the last that it printed.
        seconds: of the wall clock.
    """

    verdict: str
    message: str
    seconds: float

    @property
    def is_defect(self) -> bool:
        """Whether it neither accepted its input nor refused it in one sentence."""
        return self.verdict not in ("accepted", "refused")


class Sandbox:
    """Runs one call at a time in a forked child, in a folder of its own: `place`/a/b/case, with `in` and `out`.

    The child makes its input first; then its memory, its time and its files are bounded and the call runs. What may be
    written is `out`; everything else below `place` must stay as the input was.

    Args:
        place: an empty folder.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.case = place, place / "a" / "b" / "case"
        (self.case / "in" / "task").mkdir(parents=True)
        (self.case / "out").mkdir()

    def start(self, prepare: Callable[[Path], None], call: Callable[[Path], int]) -> None:
        """Forks the child: `prepare(case)` writes the input, `call(case)` returns the exit code (0 or 2)."""
        self._began = time.monotonic()
        sys.stdout.flush()
        self.child = os.fork()
        if self.child == 0:
            code = _TRACEBACK
            try:
                code = self._inside(prepare, call)
            finally:
                os._exit(code)

    def _inside(self, prepare: Callable[[Path], None], call: Callable[[Path], int]) -> int:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.chdir(self.case)
        printed = os.open(self.place / "printed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", errors="backslashreplace") for number in (1, 2))
        try:
            prepare(self.case)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            raise
        (self.place / "before").write_text("\n".join(self._everything()), encoding="utf-8", errors="surrogateescape")
        _limit()
        faulthandler.dump_traceback_later(WAIT, exit=True)  # tells where it hangs
        try:
            code = call(self.case)
        except BaseException:
            traceback.print_exc()
            return _TRACEBACK
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
        return code

    def _everything(self) -> list[str]:
        """All that lies below `place` but for `out` and what the sandbox itself writes."""
        own = {self.place / "printed", self.place / "before"}
        found = [path for path in self.place.rglob("*") if path not in own and self.case / "out" not in path.parents]
        return sorted(str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace") for path in found)

    def poll(self) -> Ended | None:
        """How the child ended, or None while it runs; one that runs for too long is killed."""
        pid, status = os.waitpid(self.child, os.WNOHANG)
        took = time.monotonic() - self._began
        if pid == 0:
            if took < 2 * WAIT:
                return None
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            return Ended("hang", self._message(), took)
        return Ended(self._verdict(status), self._message(), took)

    def _verdict(self, status: int) -> str:
        if os.WIFSIGNALED(status):
            return "hang" if os.WTERMSIG(status) == signal.SIGXCPU else "crash"
        code, message = os.WEXITSTATUS(status), self._message()
        if "Timeout (" in message:
            return "hang"
        if "MemoryError" in message or "not enough memory" in message or "allocate memory" in message:
            return "memory"
        if code == _ODD_SENTENCE:
            return "sentence"
        if code not in (0, 2) or "Traceback (most recent" in message:
            return "traceback"
        before = (self.place / "before").read_text(encoding="utf-8", errors="surrogateescape").split("\n")
        if self._everything() != before:
            return "outside"
        return "accepted" if code == 0 else "refused"

    def _message(self) -> str:
        printed = self.place / "printed"
        return printed.read_bytes()[-4000:].decode("utf-8", "replace") if printed.exists() else ""


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
