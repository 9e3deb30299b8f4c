"""Ctrl-C and the signals of batch systems: work ends soon, says what it kept, and leaves nothing half-written."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

__all__ = ["HeldSignals", "Interrupted", "Signals", "note_on_interrupt", "signals_held"]

_ASKING: Final = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a process to end: of Ctrl-C, of batch systems, and of terminals that close."""

_ONE_PRESS: Final = (
    2.0  # seconds in which further signals are those of the same wish: shells and launchers send several
)


class Interrupted(SystemExit):
    """A signal asked the process to end; the exit code is 128 and the signal's number, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Signals:
    """Turns signals that ask this process to end into `Interrupted`, inside its block and in the main thread.

    Attributes:
        received: number of the first signal that came, None before.

    A second one, two seconds and more after the first, ends the process at once. Signals that are ignored, as by nohup,
    stay so.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0

    def __enter__(self) -> Signals:
        self._before = _handled_by(self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        _put_back(self._before)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self._since = number, time.monotonic()
            raise Interrupted(number)
        if time.monotonic() - self._since > _ONE_PRESS:
            os._exit(128 + number)


class HeldSignals:
    """The signals that `signals_held` holds back.

    Attributes:
        asked: whether one has come.
    """

    def __init__(self, grace: float) -> None:
        self.asked = False
        self._grace, self._number = grace, 0
        self._before: dict[int, Any] = {}
        self._timer: threading.Timer | None = None

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self.asked:  # again, or time is up
            self._deliver(frame)
            return
        self.asked, self._number = True, number
        self._timer = threading.Timer(self._grace, os.kill, (os.getpid(), number))
        self._timer.daemon = True
        self._timer.start()

    def _deliver(self, frame: FrameType | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        _put_back(self._before)
        before = self._before[self._number]
        if callable(before):
            before(self._number, frame)
        else:
            os.kill(os.getpid(), self._number)


@contextmanager
def signals_held(grace: float = 1.0) -> Iterator[HeldSignals]:
    """Holds signals back that ask this process to end, so that a loop can stop between two steps and save its state.

    They are delivered at the end of the block, or after `grace` seconds, or when a second one comes, to who would have
    received them: `KeyboardInterrupt` of Python, `Interrupted`, or the end of the process. Outside of the main thread
    signals are nobody's business, and nothing is held.
    """
    held = HeldSignals(grace)
    held._before = _handled_by(held._hold)
    try:
        yield held
    finally:
        if held._timer is not None:
            held._timer.cancel()
        _put_back(held._before)
    if held.asked:
        held._deliver()


@contextmanager
def note_on_interrupt(text: str) -> Iterator[None]:
    """Adds to an interruption what was kept, and how to go on.

    Of several blocks the outermost is believed: it is of the command that was given, and the others of its steps.
    """
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as interruption:
        interruption.__notes__ = [text]
        raise


def _handled_by(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Sets the handler of all signals that are not ignored, and returns those before it."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in _ASKING}
    before = {number: known for number, known in found.items() if known not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handler)
    return before


def _put_back(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
