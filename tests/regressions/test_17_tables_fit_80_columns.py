"""Tables fit a terminal of 80 columns with nothing cut, and a pipe gets the width that they need."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from rich.table import Table

from metacalo.benchmark import BenchmarkSettings, Cost, cost_table
from metacalo.cli.app import show
from metacalo.evaluate import EvaluateSettings, compare, table
from metacalo.inspection.inspection import inspect
from metacalo.inspection.inspection_table import inspection_table
from metacalo.pretraining.plan import plan_pretraining, plan_tables
from metacalo.pretraining.presets import resolve_recipe
from metacalo.scoring.score_tables import outlier_table, score_table
from metacalo.showers import data_folder
from metacalo.sweep import findings_table
from tests.samples import shipped


@pytest.fixture
def terminal(monkeypatch, capsys):
    """What `show` prints on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")

    def shown(*tables):
        for each in tables:
            show(each)
        return capsys.readouterr().out

    return shown


def check(text, *words):
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    joined = " ".join(text.split())
    assert [word for word in words if word not in joined] == []


def test_evaluate(terminal):
    reference, one = shipped("siw", slice(0, 200)), shipped("siw", slice(200, 320))
    found = compare(one, reference, settings=EvaluateSettings(classifiers=False))
    one_file = terminal(table({"ar": found}))
    check(one_file, "mean W1 (standardised observables)", "kernel physics distance")
    check(terminal(table({"diffusion, 8 steps": found, "ar": found})), "kernel physics distance")


def test_inspect_plan_and_benchmark(terminal):
    check(terminal(inspection_table(inspect("siw", showers=50))), "mesh 9 x 16 x 45")
    check(terminal(*plan_tables(plan_pretraining(resolve_recipe(None, None, name="x"), None))), "family/Cu-LAr-09")
    costs = [Cost("diffusion", "exported graph, ONNX Runtime", 1000, 1234.5), Cost("", "Geant4", 1, 12345.0)]
    check(terminal(cost_table(costs, BenchmarkSettings())), "exported", "Runtime", "Geant4")


def test_sweep_and_score(terminal):
    params = {"method": "conditioning+bias", "rate": 1.234567, "sampler_steps": 16}
    trial = {"number": 17, "values": {"w1": 0.0712}, "params": params}
    study = {"study": "metacalo-0123456789abcdef-" * 4, "best": trial, "default": trial, "objectives": ["w1"]}
    check(terminal(findings_table({**study, "importances": {"rate": 0.5}, "trials": []})), "conditioning+bias")
    moments = {"showers": 123456, "mean": -12345.6, "std": 1234.5}
    entry = {
        **moments,
        "quantiles": {"0.01": -12345.6, "0.5": -11234.5, "0.99": -1234.5},
        "by_energy": [moments],
        "outliers": [
            {
                "row": 123456,
                "energy_MeV": 98765.4,
                "theta": 1.571,
                "phi": 3.142,
                "response": 0.9876,
                "score": -12345.6,
                "deviations": {"bound_diffusion": -12.3, "bound_ar": -12.3, "log_likelihood_ar": -1.2},
            }
        ],
    }
    entry["against"] = {**entry, "auc": 0.987, "auc_error": 0.012}
    names = ("bound_diffusion", "bound_ar", "log_likelihood_ar")
    scores = {"model": "out/new", "detector": "PbLAr", "against": "a-second-file-of-showers.h5", "showers": 123456}
    scores |= {"scores": dict.fromkeys(names, entry), "energy_edges_MeV": [1000, 100000]}
    check(terminal(score_table(scores)), "-11234.5", "0.012")
    check(terminal(outlier_table(scores)), "-12345.6", "98.8")


def test_tasks_on_a_terminal():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    with subprocess.Popen(
        [sys.executable, "-m", "metacalo", "tasks"],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        stdin=theirs,
        env={**environment, "TERM": "dumb"},
        cwd=data_folder("tasks").parent,
    ):
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    check(text.decode().replace("\r", ""), "family/Cu-LAr-09 Cu lAr 16.59 17.7 19.86 9 x 16 x 45 130")


def test_a_pipe_gets_the_width_that_is_needed(capsys):
    wide = Table(*(f"column-number-{number}" for number in range(20)))
    wide.add_row(*("x" * 15 for _ in range(20)))
    show(wide)
    printed = capsys.readouterr().out
    assert all(f"column-number-{number}" in printed.splitlines()[1] for number in range(20))
    assert printed.count("x" * 15) == 20
