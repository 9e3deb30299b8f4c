"""No test reads a clock, waits too briefly, or sleeps and hopes: a busy machine is slow without being wrong."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CLOCKS = {
    "time",
    "perf_counter",
    "monotonic",
    "process_time",
    "thread_time",
    "perf_counter_ns",
    "time_ns",
    "monotonic_ns",
}
LIMITS = {"wait", "get", "result", "run", "communicate", "Barrier"}
LEAST = 600  # seconds: a limit for programs that hang, which no right one comes near


def faults(source: str) -> list[str]:
    """What in a test module depends on how fast the machine is."""
    return [f"line {line}: {what}" for line, what in sorted(_faults(ast.parse(source)))]


def _faults(tree: ast.Module):
    in_loops = {inner for node in ast.walk(tree) if isinstance(node, ast.While) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield node.lineno, "imports names of time: write time.sleep"
        if (
            isinstance(node, ast.Compare)
            and _orders(node)
            and len([side for side in ast.walk(node) if _is_duration(side)]) > 1
        ):
            yield node.lineno, "compares two measured times"
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if _of_time(node.func) and name in CLOCKS:
            yield node.lineno, f"reads a clock, time.{name}"
        if _of_time(node.func) and name == "sleep" and node not in in_loops and _number(node.args[0]) != 0:
            yield node.lineno, "sleeps in the hope that something has happened: wait for it in a loop"
        given = [word.value for word in node.keywords if word.arg == "timeout"]
        given += node.args[:1] if name == "wait" else []
        for limit in given if name in LIMITS else []:
            if (seconds := _number(limit)) is not None and seconds < LEAST:
                yield node.lineno, f"waits for {seconds} s only; {LEAST} at least"


def _of_time(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"


def _orders(node: ast.Compare) -> bool:
    return any(isinstance(sign, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for sign in node.ops)


def _number(node: ast.expr) -> float | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int | float) else None


def _is_duration(node: ast.AST) -> bool:
    """`found["seconds"]` or `found.seconds`, by the last word of the name."""
    name = ""
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        name = str(node.slice.value)
    elif isinstance(node, ast.Attribute):
        name = node.attr
    return name.split("_")[-1] in {"seconds", "ms", "wall", "cpu", "waited"}


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("assert time.perf_counter() - began < 2", "reads a clock, time.perf_counter"),
        ("from time import monotonic", "imports names of time"),
        ("assert a['seconds'] < 0.5 * b['seconds']", "compares two measured times"),
        ("assert after.wall > before.wall", "compares two measured times"),
        ("time.sleep(0.5)\nassert done", "sleeps in the hope"),
        ("assert done.wait(5)", "waits for 5 s only"),
        ("subprocess.run(line, timeout=30)", "waits for 30 s only"),
        ("while not path.exists():\n    time.sleep(0.01)\nassert found['seconds'] > 0\ntime.sleep(0)", None),
    ],
)
def test_the_check_finds_what_it_is_for(source: str, fault: str | None) -> None:
    found = faults(source)
    assert found == [] if fault is None else fault in found[0]


def test_no_test_depends_on_how_busy_the_machine_is() -> None:
    commands = {path.parent for path in TESTS.rglob("__main__.py")}  # which people run, and may tell times
    modules = [path for path in sorted(TESTS.rglob("*.py")) if path.parent not in commands or "test_" in path.name]
    assert len(modules) > 100
    found = {path.relative_to(TESTS).as_posix(): faults(path.read_text(encoding="utf-8")) for path in modules}
    assert {name: lines for name, lines in found.items() if lines} == {}
