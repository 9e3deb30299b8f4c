"""The benchmark of the input pipeline: the files that it lays out, what it counts, and its tables."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks import input as benchmark
from metacalo.showers import resolve_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """384 showers in three files."""
    folder = tmp_path_factory.mktemp("input")
    benchmark.lay_out(folder, "siw", 384 * 6480 * 4 / 1e9, per_file=128)
    return folder


def test_the_data_are_as_large_as_wanted_and_each_file_is_sorted(folder: Path) -> None:
    assert len(list((folder / "siw").iterdir())) == 3
    with resolve_task(folder / "siw").open() as file:
        assert len(file) == 384
        assert file.datasets[0].dtype == np.float32
        assert (np.diff(file.energy[:128]) >= 0).all()
        assert file.detector is not None
        assert file.detector.family == ("W", "Si")


@pytest.mark.filterwarnings("ignore:.*equal to an earlier one")
def test_training_waits_for_its_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PARTS", 1)
    found = benchmark.waiting_of(folder, 128)
    assert list(found) == ["when needed", "ahead"]
    assert all(row.keys() == {"seconds", "waited"} for row in found.values())


def test_the_tables_hold_all_figures() -> None:
    memory = {"showers": 35_000.0, "preparing_seconds": 61.0, "drawing_GiB": 0.91, "most_GiB": 1.23}
    rates = {"reading": 1500.0, "drawing": 1800.0, "input": 818.0, "training": 250.0}
    waiting = {"when needed": {"seconds": 40.0, "waited": 5.0}, "ahead": {"seconds": 35.0, "waited": 0.07}}
    console = Console(width=200, record=True, file=io.StringIO())
    for table in benchmark._tables({"memory": {"1": memory}, "rates": rates, "waiting": waiting}):
        console.print(table)
    text = console.export_text()
    for figure in ("35,000", "61", "0.91", "1.23", "818", "3.27", "12.5 %", "0.2 %"):
        assert figure in text


def test_an_unknown_task_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--out", str(tmp_path / "out"), "--task", "siww"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("input: unknown task 'siww'")
