"""How long a command takes to end at Ctrl-C, whatever it is at.

    python -m benchmarks.interruption --moments 6 --out out/interruption

Each command is run to its end once, and then again and again, each time with one Ctrl-C (SIGINT to all its processes,
as a terminal sends it) after another share of its CPU time. What counts is the CPU time from there to its end, which
other programs do not lengthen, as they do the time of the wall beside it. Exit code 1 where a command takes longer than
`--limit`, tells anything else than one line, or leaves a temporary file. The first second is left out: in it Python
loads, and knows nothing of metacalo.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.survival_commands import metacalo_commands
from metacalo.showers import data_folder
from metacalo.simulate.data_sets import found_data_sets

__all__ = ["Ended", "interrupted", "interruption_table", "main"]

POLL = 0.02  # seconds between two looks at the CPU time
LOADED = 1.0  # CPU seconds
EXAMPLE = """
name = "small"
[[layers]]
material = "Pb"
thickness_mm = 5
[[layers]]
material = "PVT"
thickness_mm = 5
active = true
[beam]
energy_GeV = "1:10"
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended at Ctrl-C.

    Attributes:
        command: its name.
        after: CPU seconds before Ctrl-C.
        cpu, wall: seconds from there to the end.
        code: exit code.
        told: what it printed on standard error.
        left: temporary files.
    """

    command: str
    after: float
    cpu: float
    wall: float
    code: int
    told: str
    left: tuple[str, ...]

    def fault(self, limit: float) -> str | None:
        """What is not as it should be."""
        if self.cpu > limit:
            return f"takes {self.cpu:.1f} s of CPU time"
        if self.code != 130 or not self.told.startswith("metacalo: interrupted; ") or self.told.count("\n") != 1:
            return f"ends with code {self.code} and tells {self.told!r}"
        return f"leaves {', '.join(self.left)}" if self.left else None


def _spent(session: int) -> float:
    """CPU seconds of all processes of a session, and of their children that have ended."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            fields = path.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def interrupted(name: str, line: Sequence[str], folder: Path, after: float) -> Ended | None:
    """Runs a command in a folder and presses Ctrl-C after so much CPU time; None where it had ended before."""
    folder.mkdir(parents=True)
    with (folder.parent / "told").open("w+") as told:
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=told,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        while _spent(process.pid) < after:
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(POLL)
        before, started = _spent(process.pid), time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, status, usage = os.wait4(process.pid, 0)
        wall, code = time.monotonic() - started, os.waitstatus_to_exitcode(status)
        process.returncode = code  # it has been waited for
        told.seek(0)
        text = told.read()
    left = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob(".*") if ".tmp-" in path.name))
    shutil.rmtree(folder)
    spent = max(0.0, usage.ru_utime + usage.ru_stime - before)  # what killed children had spent is in `before` alone
    return None if code == 0 else Ended(name, before, spent, wall, code, text, left)


def _lines(folder: Path) -> dict[str, list[str]]:
    """The commands, without the place of the result."""
    lines = {command.name: [*command.line, *command.force] for command in metacalo_commands(folder)}
    metacalo, model = [sys.executable, "-m", "metacalo.cli"], ["--model", str(folder / "model")]
    base, showers = ["--base", str(folder / "base")], str(data_folder("tasks") / "pblar" / "showers.h5")
    subprocess.run(
        [*metacalo, "generate", *model, *base, "--showers", "300", "--out", str(folder / "g.h5")], check=True
    )
    judged = ["--generated", str(folder / "g.h5"), "--reference", showers, "--max-showers", "300"]
    description = folder / "small.toml"
    description.write_text(EXAMPLE, encoding="utf-8")
    lines |= {
        "evaluate": [*metacalo, "evaluate", *judged, "--calochallenge"],
        "score": [*metacalo, "score", *model, *base, "--showers", showers, "--at-most", "300"],
        "export": [*metacalo, "export", *model, *base, "--generator", "ar"],
    }
    if "G4LEDATA" in found_data_sets():
        lines["simulate"] = [*metacalo, "simulate", "--detector", str(description), "--showers", "40"]
    return lines


def interruption_table(found: Sequence[Ended]) -> Table:
    """One row a command."""
    table = Table("command", "interrupted after (CPU s)", "median CPU s to the end", "most", "most of the wall (busy)")
    for name in dict.fromkeys(each.command for each in found):
        rows = sorted((each for each in found if each.command == name), key=lambda each: each.cpu)
        after = sorted(each.after for each in rows)
        middle, most, wall = rows[len(rows) // 2].cpu, rows[-1].cpu, max(each.wall for each in rows)
        table.add_row(name, f"{after[0]:.1f} to {after[-1]:.1f}", f"{middle:.2f}", f"{most:.2f}", f"{wall:.1f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark; exit code 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=6, help="of each command")
    parser.add_argument("--limit", type=float, default=2.0, help="CPU seconds that a command may take to end")
    parser.add_argument("--out", type=Path, default=Path("out/interruption"))
    parser.add_argument("--command", action="append", help="only this one; may be repeated")
    told = parser.parse_args(arguments)
    shutil.rmtree(told.out, ignore_errors=True)
    told.out.mkdir(parents=True)
    found: list[Ended] = []
    for name, line in _lines(told.out).items():
        if told.command and name not in told.command:
            continue
        place = told.out / "place"
        place.mkdir()
        process = subprocess.Popen([*line, "--out", str(place / "result")], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        shutil.rmtree(place)
        if process.returncode:
            raise SystemExit(f"{name} fails when nobody interrupts it")
        whole = usage.ru_utime + usage.ru_stime
        for moment in range(told.moments):
            at = [*line, "--out", str(place / "result")]
            share = (moment + 0.5) / told.moments
            ended = interrupted(name, at, place, LOADED + share * (whole - LOADED))
            found += [ended] if ended else []
            written = json.dumps([asdict(each) for each in found], indent=2)
            (told.out / "interruption.json").write_text(f"{written}\n")
    Console(width=140).print(interruption_table(found))
    faults = [
        f"{each.command} after {each.after:.1f} s: {fault}" for each in found if (fault := each.fault(told.limit))
    ]
    for fault in faults:
        Console(stderr=True).print(fault, markup=False)
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
