"""Threads of a benchmark, worker processes that do not outlive it, its clock, and the memory that it took."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

__all__ = ["limit_threads", "peak_memory", "seconds_of_work", "workers"]


def seconds_of_work(device: str = "cpu") -> float:
    """A clock: on the CPU the seconds of this process's threads over their number, on a GPU those of the wall.

    Other programs on the machine thus shorten nobody's training and slow nobody's step.
    """
    if device == "cpu":
        return time.process_time() / torch.get_num_threads()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory() -> float:
    """GiB that this process held at most (the system reports KiB, macOS bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def limit_threads(threads: int) -> None:
    """Bounds the threads of this process, torch's and those of matrix products in numpy, for good."""
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def workers(jobs: int, threads: int) -> ProcessPoolExecutor:
    """A pool of `jobs` fresh processes of so many threads; they end when this process is gone, killed or not."""
    return ProcessPoolExecutor(jobs, get_context("spawn"), _begun, (threads,))


def _begun(threads: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    limit_threads(threads)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
