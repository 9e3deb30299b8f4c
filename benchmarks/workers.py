"""Threads of a benchmark, and worker processes that do not outlive it."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

__all__ = ["limit_threads", "workers"]


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
