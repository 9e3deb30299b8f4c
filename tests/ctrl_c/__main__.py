"""How long a command takes to end at Ctrl-C, whatever it is at.

    python -m tests.ctrl_c --out out/ctrl-c

Each command is run once to its end under `tests.ctrl_c.probe`, which tells the longest stretch in which it
would not have heard a signal, and then again with a real Ctrl-C (SIGINT to all its processes, as a terminal sends it)
in its middle. Times are of the CPU, which other programs do not lengthen. Exit code 1 where a command takes longer than
`--limit`, tells anything else than one line, or leaves a temporary file.
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
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from metacalo.showers import data_folder
from metacalo.simulate.data_sets import found_data_sets
from tests.survival.commands import metacalo_commands

__all__ = ["Ended", "Heard", "interrupted", "interruption_table", "main"]

METACALO = (sys.executable, "-m", "metacalo.cli")
POLL = 0.02  # seconds between two looks at the CPU time
LOADED = 1.0  # CPU seconds in which Python loads, and knows nothing of metacalo
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
class Heard:
    """A command that nobody interrupted, but that was asked all the time whether it would hear it.

    Attributes:
        command: its name.
        seconds: of CPU time that it took.
        longest: CPU seconds of the longest stretch in which it heard nothing.
        where: what ran when it heard again.
    """

    command: str
    seconds: float
    longest: float
    where: str


@dataclass(frozen=True)
class Ended:
    """How a process ended at Ctrl-C.

    Attributes:
        command: its name.
        after: CPU seconds before Ctrl-C.
        cpu, wall: seconds from there to the end.
        code: exit code.
        message: what it printed on standard error.
        left: temporary files.
    """

    command: str
    after: float
    cpu: float
    wall: float
    code: int
    message: str
    left: tuple[str, ...]

    def fault(self, limit: float) -> str | None:
        """What is not as it should be."""
        if self.cpu > limit:
            return f"takes {self.cpu:.1f} s of CPU time"
        if self.code != 130 or not self.message.startswith("metacalo: interrupted; ") or self.message.count("\n") != 1:
            return f"ends with code {self.code} and tells {self.message!r}"
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
    with (folder.parent / "stderr").open("w+") as message:
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=message,
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
        message.seek(0)
        text = message.read()
    left = tuple(sorted(str(path.relative_to(folder)) for path in folder.rglob(".*") if ".tmp-" in path.name))
    shutil.rmtree(folder)
    spent = max(0.0, usage.ru_utime + usage.ru_stime - before)  # what killed children had spent is in `before` alone
    return None if code == 0 else Ended(name, before, spent, wall, code, text, left)


def _lines(folder: Path) -> dict[str, list[str]]:
    """The commands, without the place of the result."""
    lines = {command.name: [*command.line, *command.force] for command in metacalo_commands(folder)}
    metacalo, model = [*METACALO], ["--model", str(folder / "model")]
    base, showers = ["--base", str(folder / "base")], str(data_folder("tasks") / "pblar" / "showers.h5")
    subprocess.run(
        [*metacalo, "generate", *model, *base, "--showers", "300", "--out", str(folder / "g.h5")], check=True
    )
    judged = ["--generated", str(folder / "g.h5"), "--reference", showers, "--showers", "300"]
    description = folder / "small.toml"
    description.write_text(EXAMPLE, encoding="utf-8")
    lines |= {
        "evaluate": [*metacalo, "evaluate", *judged, "--calochallenge"],
        "score": [*metacalo, "score", showers, *model, *base, "--showers", "300"],
        "export": [*metacalo, "export", "--model", "base-no-pblar", "--detector", "pblar", "--generator", "ar"],
    }
    if "G4LEDATA" in found_data_sets():
        lines["simulate"] = [*metacalo, "simulate", "--detector", str(description), "--showers", "40"]
    return lines


def _heard(name: str, line: Sequence[str], folder: Path) -> Heard:
    folder.mkdir(parents=True)
    report = folder / "report.json"
    probe = [sys.executable, "-m", "tests.ctrl_c.probe", str(report)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*probe, *line[len(METACALO) :]], check=True, stdout=subprocess.DEVNULL, env=environment)
    found = Heard(command=name, **json.loads(report.read_text()))
    shutil.rmtree(folder)
    return found


def interruption_table(found: Sequence[tuple[Heard, Ended | None]]) -> Table:
    """One row a command."""
    heads = ("command", "CPU s", "longest without hearing", "where", "Ctrl-C after", "CPU s to the end", "message")
    table = Table(*heads)
    for heard, ended in found:
        row = (heard.command, f"{heard.seconds:.1f}", f"{heard.longest:.2f}", heard.where)
        message = ("-", "-", "it had ended")
        if ended is not None:
            message = (f"{ended.after:.1f}", f"{ended.cpu:.2f}", ended.message.strip().partition("; ")[2])
        table.add_row(*row, *message)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark; exit code 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=float, default=2.0, help="CPU seconds that a command may take to end")
    parser.add_argument("--out", type=Path, default=Path("out/ctrl-c"))
    parser.add_argument("--command", action="append", help="only this one; may be repeated")
    options = parser.parse_args(arguments)
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    found: list[tuple[Heard, Ended | None]] = []
    for name, line in _lines(options.out).items():
        if options.command and name not in options.command:
            continue
        place = options.out / "place"
        whole = [*line, "--out", str(place / "result")]
        heard = _heard(name, whole, place)
        middle = LOADED + (heard.seconds - LOADED) / 2
        found.append((heard, interrupted(name, whole, place, middle)))
        record = [{**asdict(first), "ended": second and asdict(second)} for first, second in found]
        (options.out / "interruption.json").write_text(json.dumps(record, indent=2) + "\n")
    Console(width=140).print(interruption_table(found))
    faults = [f"{heard.command}: {fault}" for heard, ended in found for fault in _faults(heard, ended, options.limit)]
    for fault in faults:
        Console(stderr=True).print(fault, markup=False)
    if faults:
        raise SystemExit(1)


def _faults(heard: Heard, ended: Ended | None, limit: float) -> Iterator[str]:
    if heard.longest > limit:
        yield f"hears nothing for {heard.longest:.1f} s of CPU time, until {heard.where}"
    if ended is not None and (fault := ended.fault(limit)):
        yield fault


if __name__ == "__main__":
    main()
