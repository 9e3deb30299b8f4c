from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from benchmarks.workers import workers

PARENT = """
import time, os
from benchmarks.workers import workers

if __name__ == "__main__":
    with workers(1, 1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_workers_have_their_share_of_the_threads() -> None:
    with workers(1, 1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_workers_end_when_their_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        os.kill(int(parent.stdout.readline()), 0)  # the worker is there
        parent.kill()
        assert parent.stdout.read() == ""  # which ends when the last process that could write to it has ended
