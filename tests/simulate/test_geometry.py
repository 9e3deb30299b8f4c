from __future__ import annotations

import pytest

from metacalo.simulate.geometry import BRANCHING, branches, spans
from metacalo.simulate.job import Job, Sheet, Substance

LEAD = Substance("G4_Pb", 11.35, {"Pb": 1.0})


def job(*sheets: Sheet) -> Job:
    return Job("barrel", 800.0, 4000.0, sheets, {"Pb": LEAD}, 9, 16, 45, 10.0, 5.0, "e-", "G4EmStandardPhysics", 0.7)


def test_sheets_touch_and_the_plates_end_where_the_stack_begins():
    plates = Sheet("Pb", 3.0, "front"), Sheet("Pb", 0.5, "front")
    places = spans(job(*plates, Sheet("Pb", 2.0, "passive"), Sheet("Pb", 4.0, "active")))
    assert [(span.low, span.high) for span in places] == [
        (796.5, 799.5),
        (799.5, 800.0),
        (800.0, 802.0),
        (802.0, 806.0),
    ]


@pytest.mark.parametrize("n", [1, 2, 4, 5, 16, 17, 180, 181])
def test_a_tree_has_every_sheet_once_and_in_order(n):
    sheets = spans(job(*(Sheet("Pb", 1.0 + i / n, "active") for i in range(n))))

    def leaves(part):
        if len(part) == 1:
            return list(part)
        assert len(branches(part)) <= BRANCHING
        return [leaf for branch in branches(part) for leaf in leaves(branch)]

    assert leaves(sheets) == sheets


def test_a_job_comes_through_json_as_it_was():
    message = job(Sheet("Pb", 2.0, "active"))
    assert Job.from_json(message.to_json()) == message
