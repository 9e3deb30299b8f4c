"""Files of strangers: whether metacalo refuses in one sentence what it cannot read.

    python -m tests.fuzz --cases 2000 --seed 1 --out out/fuzz

Hostile shower files, settings, model folders, ntuples and names are given to readers and commands, each in a forked
process whose memory and time are bounded (`tests.fuzz.sandbox`). A case is fine if it ends with success, or with exit
code 2 and a sentence; everything else is a defect, kept with its input in `out/defects/CASE` and run again by
`--case CASE`. It writes `table.md` and `cases.json`.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from rich.console import Console

from metacalo.errors import MetacaloError
from metacalo.runtime.progress import Track, track
from metacalo.storage.checkpoint import atomic_folder, save_json
from tests.fuzz.cases import KINDS
from tests.fuzz.sandbox import MEMORY, SECONDS, Ended, Sandbox
from tests.fuzz.seeds import Seeds

__all__ = ["main", "run_cases"]


def run_cases(
    seeds: Seeds, numbers: Sequence[int], seed: int, jobs: int, scratch: Path, keep: Path | None, bar: Track
) -> list[tuple[int, str, Ended]]:
    """Runs the cases of those numbers, `jobs` at a time: number, kind and how it ended.

    Args:
        seeds: what the cases are made of.
        numbers: of the cases; each depends on its number and `seed` alone.
        seed: of what is drawn.
        jobs: processes.
        scratch: empty folder for the cases.
        keep: folder that the inputs of defects are kept in.
        bar: shows the defects.
    """
    ended: list[tuple[int, str, Ended]] = []
    running: dict[int, tuple[str, Sandbox]] = {}
    waiting = list(reversed(numbers))
    while waiting or running:
        while waiting and len(running) < jobs:
            number = waiting.pop()
            rng = np.random.default_rng([seed, number])
            kind = str(rng.choice(list(KINDS), p=[share for share, _ in KINDS.values()]))
            sandbox = Sandbox(scratch / str(number))
            case = KINDS[kind][1](seeds, rng)
            sandbox.start(case.prepare, case.call)
            running[number] = kind, sandbox
        for number, (kind, sandbox) in list(running.items()):
            end = sandbox.poll()
            if end is None:
                continue
            del running[number]
            ended.append((number, kind, end))
            if end.is_defect and keep is not None:
                shutil.copytree(sandbox.case / "in", keep / str(number), symlinks=True, ignore=_no_files)
                (keep / f"{number}.txt").write_text(f"{kind}: {end.verdict}\n{end.message}", encoding="utf-8")
            shutil.rmtree(sandbox.place, ignore_errors=True)
            bar.advance(1, defects=sum(each.is_defect for _, _, each in ended))
        time.sleep(0.002)
    return sorted(ended, key=lambda each: each[0])


def _no_files(folder: str, names: list[str]) -> list[str]:
    """Pipes, and files that only seem to be large, are not worth keeping."""
    places = [Path(folder, name) for name in names]
    return [
        place.name for place in places if not place.is_symlink() and (place.is_fifo() or place.stat().st_size > 2**26)
    ]


def _table(ended: Sequence[tuple[int, str, Ended]]) -> str:
    lines = ["| input | cases | accepted | refused | defects |", "|---|---|---|---|---|"]
    for kind in [*KINDS, "all"]:
        counts = Counter(end.verdict for _, found, end in ended if kind in (found, "all"))
        defects = {name: count for name, count in counts.items() if name not in ("accepted", "refused")}
        message = ", ".join(f"{count} {name}" for name, count in sorted(defects.items())) or "0"
        lines.append(f"| {kind} | {sum(counts.values())} | {counts['accepted']} | {counts['refused']} | {message} |")
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--cases", type=int, default=2000)
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--case", type=int, help="only the case of that number; what it printed is shown")
    made.add_argument("--jobs", type=int, default=2, help="processes at a time")
    made.add_argument("--force", action="store_true", help="replace an existing result")
    made.add_argument("--out", type=Path, default=Path("out/fuzz"))
    return made


def _run(options: argparse.Namespace, command: str) -> str:
    torch.set_num_threads(1)  # threads do not survive a fork
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as place, track("fuzz", options.cases) as bar:
        seeds = Seeds(Path(place, "seeds"))
        numbers = range(options.cases) if options.case is None else [options.case]
        where = Path(place, "cases")
        if options.case is not None:
            ((_, kind, end),) = run_cases(seeds, numbers, options.seed, 1, where, None, bar)
            return f"{kind}: {end.verdict} in {end.seconds:.1f} s\n{end.message}"
        with atomic_folder(options.out, force=options.force) as folder:
            (folder / "defects").mkdir()
            ended = run_cases(seeds, numbers, options.seed, options.jobs, where, folder / "defects", bar)
            table = _table(ended)
            (folder / "table.md").write_text(table, encoding="utf-8")
            cases: list[dict[str, Any]] = [{"case": n, "kind": kind, **asdict(end)} for n, kind, end in ended]
            message = {
                "memory": MEMORY,
                "seconds": SECONDS,
                "hdf5": h5py.version.hdf5_version,
                "h5py": h5py.__version__,
            }
            took = time.perf_counter() - started
            save_json(folder / "cases.json", {"command": command, **message, "took": took, "cases": cases})
            return f"{table}{took:.0f} s"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses, runs and prints; an error that a user can cause is one sentence."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(arguments)
    try:
        message = _run(options, shlex.join(["python", "-m", "tests.fuzz", *arguments]))
    except MetacaloError as error:
        sys.exit(f"fuzz: {error}")
    Console(soft_wrap=True).print(message, highlight=False, markup=False)


if __name__ == "__main__":
    main()
