"""Independent work at the same time on the cores of one machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TypeVar

import torch

__all__ = ["side_by_side"]

Result = TypeVar("Result")


def side_by_side(calls: Sequence[Callable[[], Result]], device: str, *, stop: Event | None = None) -> list[Result]:
    """Results of `calls`, in order; on the CPU they run at once, each on its share of the cores.

    Two half-wide runs take less time than two full-wide ones in a row: these networks are too narrow to feed more
    than a core or two.

    Args:
        calls: the work.
        device: where it is done.
        stop: set when one call has failed, or when the main thread, which alone hears of Ctrl-C, was interrupted; calls
            that look at it end then, and others are waited for.
    """
    cores = torch.get_num_threads()
    workers = min(len(calls), cores) if device == "cpu" else 1
    if workers < 2:
        return [call() for call in calls]

    def limit_cores() -> None:
        torch.set_num_threads(cores // workers)

    with ThreadPoolExecutor(workers, initializer=limit_cores) as pool:
        try:
            return [future.result() for future in [pool.submit(call) for call in calls]]
        except BaseException:
            if stop is not None:
                stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
