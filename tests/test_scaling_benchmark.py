"""The scaling benchmark's arithmetic; its runs are pretraining's, tested there."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from benchmarks.scaling import LEMURS, PASSES, PEAK_TFLOPS, UTILISATION, hours, tables


def found(seconds: float, prepared: float) -> dict[str, Any]:
    step = {"showers": 64, "seconds": seconds, "prepared": prepared}
    steps = [{"generator": name, "kind": kind, **step} for name in ("ar", "diffusion") for kind in ("mixed", "meta")]
    return {"steps": steps, "flop": {"ar": 3e8, "diffusion": 1e8}, "encode": 1e-3}


def test_hours_for_lemurs() -> None:
    told = {name: (low, high) for name, low, high in hours(found(0.4, 0.064))}
    low, high = told["arithmetic on one H100"]
    assert low == pytest.approx(4e8 * LEMURS * PASSES / (PEAK_TFLOPS["H100"] * 1e12 * UTILISATION[1]) / 3600)
    assert high / low == pytest.approx(UTILISATION[1] / UTILISATION[0])
    assert told["arithmetic on one A100"][0] > low
    # a millisecond of preparation for each of both generators' showers, and another of encoding
    low, high = told["preparation of data on one core"]
    assert low == pytest.approx(2e-3 * LEMURS * PASSES / 3600)
    assert high == pytest.approx(2 * low)


def test_efficiency_is_one_where_two_processes_take_half_the_time() -> None:
    console = Console(file=StringIO(), width=120)
    for table in tables({1: found(0.4, 0.1), 2: found(0.2, 0.1), 4: found(0.2, 0.1)}):
        console.print(table)
    lines = [line.split() for line in console.file.getvalue().splitlines() if "mixed" in line]  # type: ignore[attr-defined]
    assert [(line[7], line[-2]) for line in lines[:1]] == [("1", "100%")]
    assert [line[-2] for line in lines if "ar" in line] == ["100%", "100%", "50%"]
