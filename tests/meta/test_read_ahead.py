"""The next thing made in the background: the same things, one at a time, errors raised and nothing left running."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event, get_ident

import pytest

from metacalo.training_data.read_ahead import ReadAhead, StoppedError


def test_the_next_one_is_made_by_the_thread(thread: ThreadPoolExecutor) -> None:
    made: list[tuple[int, bool]] = []
    two = Event()

    def make(number: int, stop: Event) -> int:
        made.append((number, get_ident() == here))
        if len(made) == 2:
            two.set()
        return 10 * number

    here = get_ident()
    ahead = ReadAhead(make, thread)
    assert ahead.take(4) == 40
    assert two.wait(600)
    assert ahead.take(5) == 50
    ahead.close()
    assert made[:2] == [(4, True), (5, False)]


def test_without_a_thread_nothing_is_made_before_it_is_asked_for() -> None:
    made: list[int] = []
    ahead = ReadAhead(lambda number, stop: made.append(number))
    ahead.take(1)
    ahead.take(2)
    ahead.close()
    assert made == [1, 2]


def test_another_number_stops_what_is_made(thread: ThreadPoolExecutor) -> None:
    begun, ended = Event(), []

    def make(number: int, stop: Event) -> int:
        if number == 2:
            begun.set()
            assert stop.wait(600)
            ended.append(number)
            raise StoppedError
        return number

    ahead = ReadAhead(make, thread)
    ahead.take(1)
    assert begun.wait(600)
    assert ahead.take(7) == 7
    assert ended == [2]
    ahead.close()


def test_what_waits_behind_others_is_made_at_once(thread: ThreadPoolExecutor) -> None:
    """A long read for one task does not hold up another."""
    free = Event()
    thread.submit(free.wait, 600)
    ahead = ReadAhead(lambda number, stop: (number, get_ident()), thread)
    assert [ahead.take(number) for number in (1, 2, 3)] == [(number, get_ident()) for number in (1, 2, 3)]
    ahead.close()
    free.set()


def test_an_error_is_raised_when_the_thing_is_needed(thread: ThreadPoolExecutor) -> None:
    failed = Event()

    def make(number: int, stop: Event) -> int:
        if number == 2:
            failed.set()
            raise OSError("disk on fire")
        return number

    ahead = ReadAhead(make, thread)
    assert ahead.take(1) == 1
    assert failed.wait(600)
    with pytest.raises(OSError, match="disk on fire"):
        ahead.take(2)
    ahead.close()
    assert ahead.take(3) == 3
    ahead.close()


def test_closing_ends_what_is_made(thread: ThreadPoolExecutor) -> None:
    begun, ended = Event(), Event()

    def make(number: int, stop: Event) -> None:
        if number == 2:
            begun.set()
            assert stop.wait(600)
            ended.set()
            raise StoppedError

    ahead = ReadAhead(make, thread)
    ahead.take(1)
    assert begun.wait(600)
    ahead.close()
    assert ended.is_set()
    ahead.close()
