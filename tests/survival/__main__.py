"""Whether anything is lost or half-written when metacalo is killed.

    python -m tests.survival --kills 100 --out out/survival

Each command is run to its end once, and then killed (SIGKILL) again and again: half of the times at a moment drawn from
its whole life, half of them within 20 ms of a temporary file's appearing. After each kill the result must be the
complete old one, the complete new one, or, where none was there before, none. Then the command is given again, with
`--resume` where there is something to resume, and must end with the same result as the run that was not killed, and
nothing else may be left in the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from tests.survival.commands import Command, metacalo_commands

__all__ = ["Tally", "kill_and_resume", "main", "survival_table"]

POLL = 0.0005  # seconds between two looks at the folder
CLOSE = 0.02  # seconds after a temporary file's appearing


@dataclass
class Tally:
    """What came of the kills of one command.

    Attributes:
        seconds: that it takes when it is not killed.
        temporaries: how often a temporary file or folder appears meanwhile.
        kills, writing: how many there were, and how many of them left a temporary file: they hit while it was written.
        none, old, new: what was there after the kill.
        faults: what should not have been, in words.
    """

    command: str
    seconds: float = 0.0
    temporaries: int = 0
    kills: int = 0
    writing: int = 0
    none: int = 0
    old: int = 0
    new: int = 0
    faults: list[str] = field(default_factory=list)


def _temporaries(folder: Path) -> set[str]:
    """Temporary files and folders, but not what lies in the latter."""
    found, folders = set(), [str(folder)]
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            if ".tmp-" in entry.name or ".old-" in entry.name:
                found.add(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
    return found


def _start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def _watched(process: subprocess.Popen[bytes], folder: Path, *, until: float, appearance: int) -> int:
    """Waits for the end of the process, for so many seconds, or for so many temporary files; returns how many came."""
    started, before, count = time.monotonic(), set[str](), 0
    while process.poll() is None and time.monotonic() - started < until:
        now = _temporaries(folder)
        count += len(now - before)
        before = now
        if count >= appearance:
            break
        time.sleep(POLL)
    return count


def _to_its_end(arguments: Sequence[str], folder: Path) -> tuple[float, int]:
    """Seconds and temporary files of a run.

    Raises:
        RuntimeError: it failed.
    """
    started = time.monotonic()
    process = _start(arguments)
    count = _watched(process, folder, until=float("inf"), appearance=sys.maxsize)
    _, error = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {error.decode().strip()}")
    return time.monotonic() - started, count


def _killed(command: Command, folder: Path, tally: Tally, draw: Random, *, close: bool) -> None:
    process = _start(command.first(folder))
    if close:
        _watched(process, folder, until=10 * tally.seconds, appearance=draw.randint(1, max(1, tally.temporaries)))
        time.sleep(draw.uniform(0, CLOSE))
    else:
        time.sleep(draw.uniform(0, tally.seconds))
    process.kill()
    process.communicate()
    tally.kills += 1
    tally.writing += bool(_temporaries(folder))


def kill_and_resume(command: Command, folder: Path, kills: int, seed: int) -> Tally:
    """Kills a command so many times, each time in a folder of its own.

    Args:
        command: what is killed.
        folder: where it all happens.
        kills: how many times.
        seed: of the moments.

    Raises:
        RuntimeError: the command fails when nobody kills it.
    """
    draw, tally = Random(f"{seed} {command.name}"), Tally(command.name)
    whole, before = folder / "whole", folder / "before"
    for place in (whole, before):
        place.mkdir(parents=True)
    tally.seconds, tally.temporaries = _to_its_end(command.first(whole), whole)
    _to_its_end(command.other(before), before)
    new, old = command.fingerprint(whole / command.result), command.fingerprint(before / command.result)
    for kill in range(kills):
        place = folder / f"kill-{kill}"
        if kill % 4 < 2:
            shutil.copytree(before, place)
        else:
            place.mkdir()
        had_old = kill % 4 < 2
        _killed(command, place, tally, draw, close=bool(kill % 2))
        fault = _fault_after_kill(command, place, tally, new=new, old=old if had_old else None)
        fault = fault or _fault_after_resuming(command, place, new)
        if fault:
            tally.faults.append(f"kill {kill}: {fault}")
        else:
            shutil.rmtree(place)
    return tally


def _fault_after_kill(command: Command, place: Path, tally: Tally, *, new: str, old: str | None) -> str | None:
    result = place / command.result
    if not result.exists():
        tally.none += 1
        return None if old is None else "the old result is gone"
    try:
        found = command.fingerprint(result)
    except Exception as error:  # whatever it is, half of a result was found
        return f"not readable: {error}"
    if found == new:
        tally.new += 1
    elif found == old:
        tally.old += 1
    else:
        return "neither the old nor the new result"
    return None


def _fault_after_resuming(command: Command, place: Path, new: str) -> str | None:
    try:
        _to_its_end(command.again(place), place)
        found = command.fingerprint(place / command.result)
    except Exception as error:  # a fault is a fault
        return f"does not go on: {error}"
    if found != new:
        return "resumed, it ends with another result"
    expected = {command.result, *command.beside}
    others = sorted(entry.name for entry in place.iterdir() if entry.name not in expected)
    return f"leaves {', '.join(others)}" if others else None


def survival_table(tallies: Sequence[Tally]) -> Table:
    """One row a command."""
    heads = ("command", "seconds", "kills", "while writing", "none / old / new after", "same in the end", "faults")
    table = Table(*heads)
    for tally in tallies:
        writing = f"{tally.writing} ({tally.writing / tally.kills:.0%})" if tally.kills else "-"
        after = f"{tally.none} / {tally.old} / {tally.new}"
        same = f"{tally.kills - len(tally.faults)}"
        table.add_row(
            tally.command, f"{tally.seconds:.1f}", str(tally.kills), writing, after, same, str(len(tally.faults))
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark; exit code 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of all commands together")
    parser.add_argument("--out", type=Path, default=Path("out/survival"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="commands that are killed side by side")
    parser.add_argument("--command", action="append", help="only this one; may be repeated")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    commands = [each for each in metacalo_commands(options.out) if not options.command or each.name in options.command]
    each, more = divmod(options.kills, len(commands))

    def killed(index: int) -> Tally:
        command = commands[index]
        return kill_and_resume(command, options.out / command.name, each + (index < more), options.seed)

    tallies: list[Tally] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for tally in pool.map(killed, range(len(commands))):
            tallies.append(tally)
            for fault in tally.faults:
                Console(stderr=True).print(f"{tally.command}: {fault}", markup=False)
            # as far as it is: a long run may end early
            (options.out / "survival.json").write_text(json.dumps([asdict(one) for one in tallies], indent=2) + "\n")
    Console(width=140).print(survival_table(tallies))
    if any(tally.faults for tally in tallies):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
