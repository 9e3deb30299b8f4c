"""Making the next of a sequence of things in the background while one is used."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import Generic, TypeVar

__all__ = ["ReadAhead", "StoppedError"]

Made = TypeVar("Made")


class StoppedError(Exception):
    """What is being made is not wanted any more."""


@dataclass(frozen=True)
class _Ahead(Generic[Made]):
    number: int
    stop: Event
    future: Future[Made]


class ReadAhead(Generic[Made]):
    """What `make` gives for one number after another: the next is made by a thread while one is used.

    What is made, and in which order, is the same with and without a thread. At most one is made ahead of the one that
    is used. An error in the thread is raised by `take`, when its number is asked for.

    Args:
        make: (number, event) to the thing, in one thread at a time; `StoppedError` soon after the event is set.
        thread: shared by several sequences, whose things are made one after another; None makes nothing ahead.
    """

    def __init__(self, make: Callable[[int, Event], Made], thread: ThreadPoolExecutor | None = None) -> None:
        self._make, self._thread = make, thread
        self._ahead: _Ahead[Made] | None = None

    def take(self, number: int) -> Made:
        """The thing of that number; the next one is begun."""
        ahead = self._ahead
        # one that still waits behind those of other sequences is sooner made here
        if ahead is not None and ahead.number == number and not ahead.future.cancel():
            made = ahead.future.result()
        else:
            self.close()
            made = self._make(number, Event())
        self._ahead = None
        if self._thread is not None:
            stop = Event()
            self._ahead = _Ahead(number + 1, stop, self._thread.submit(self._make, number + 1, stop))
        return made

    def close(self) -> None:
        """Stops what is made ahead, waits for its end, and forgets it; `take` goes on as ever."""
        if self._ahead is not None:
            self._ahead.stop.set()
            if not self._ahead.future.cancel():
                wait([self._ahead.future])
        self._ahead = None
