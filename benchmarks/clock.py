"""The time that work takes, whatever else the machine does."""

from __future__ import annotations

import time

import torch

__all__ = ["seconds_of_work"]


def seconds_of_work(device: str = "cpu") -> float:
    """A clock: on the CPU the seconds of this process's threads over their number, on a GPU those of the wall.

    Other programs on the machine thus shorten nobody's training and slow nobody's step.
    """
    if device == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize()
    return time.perf_counter()
