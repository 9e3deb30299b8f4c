"""One of the measurements of speed: `python -m benchmarks.speed MEASUREMENT [options]`.

evaluation   `metacalo evaluate`: seconds and memory
exported     an exported file against PyTorch: milliseconds, size, the same showers
main-job     `metacalo adapt` of both generators in a fresh process: seconds and memory
outer-step   a step of the outer loop beside a plain one
processes    training by several processes, and hours for LEMURS
reading      whether reading keeps up with training
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Final

MEASUREMENTS: Final = ("evaluation", "exported", "main-job", "outer-step", "processes", "reading")

if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else ""
    if chosen not in MEASUREMENTS:
        sys.exit(f"speed: give one of {', '.join(MEASUREMENTS)}; with --help after it for its options\n\n{__doc__}")
    run: Callable[[list[str]], None] = import_module(f"benchmarks.speed.{chosen.replace('-', '_')}").main
    run(sys.argv[2:])
