"""The main job in a fresh process: wall seconds and peak memory.

python -m benchmarks.speed main-job --base base-no-pblar --task pblar --shots 400 --out out/main-job
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from metacalo.showers.tasks import resolve_task
from metacalo.storage.checkpoint import save_json

__all__ = ["main", "main_job"]


def main_job(task: str, base: str, shots: int, out: Path) -> dict[str, float]:
    """Seconds and resident memory in GiB of `metacalo adapt` of both generators."""
    detector = str(resolve_task(task).path)
    command = [sys.executable, "-m", "metacalo.cli", "adapt", "--detector", detector, "--base", base]
    command += ["--shots", str(shots), "--generator", "both", "--out", str(out), "--force", "--quiet"]
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return {"seconds": time.perf_counter() - started, "GiB": usage.ru_maxrss / 2**20}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes main-job.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="base-no-pblar")
    parser.add_argument("--task", default="pblar")
    parser.add_argument("--shots", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("out/main-job"))
    chosen = parser.parse_args(arguments)
    found = main_job(chosen.task, chosen.base, chosen.shots, chosen.out / "adapted")
    Console().print(f"main job: {found['seconds']:.1f} s, {found['GiB']:.2f} GiB")
    save_json(chosen.out / "main-job.json", found)


if __name__ == "__main__":
    main()
