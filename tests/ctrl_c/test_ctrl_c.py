"""What the interruption benchmark says of commands that print too much, or leave something, at Ctrl-C."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.ctrl_c.__main__ import Ended, Heard, interruption_table

WELL = Ended("adapt", 2.5, 3.0, 6.0, 130, "metacalo: interrupted; x was not written\n", ())


@pytest.mark.parametrize(
    ("limit", "changes", "fault"),
    [
        (4.0, {}, None),
        (2.0, {}, "takes 3.0 s of CPU time"),
        (4.0, {"left": (".x.tmp-1-y",)}, "leaves .x.tmp-1-y"),
        (4.0, {"code": 1, "message": "Traceback"}, "ends with code 1 and tells 'Traceback'"),
    ],
)
def test_faults_are_found(limit: float, changes: dict, fault: str | None) -> None:
    assert replace(WELL, **changes).fault(limit) == fault


def test_a_row_of_the_table() -> None:
    table = interruption_table([(Heard("adapt", 5.0, 0.25, "methods.step"), WELL)])
    assert [next(iter(column.cells)) for column in table.columns] == [
        "adapt", "5.0", "0.25", "methods.step", "2.5", "3.00", "x was not written"
    ]  # fmt: skip
