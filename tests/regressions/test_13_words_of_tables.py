"""Tables and figures of adaptations, sweeps and benchmarks read as a physicist would write them."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from metacalo.adapt import draw_shots
from metacalo.adaptation.before_after import summary_table
from metacalo.benchmark import BenchmarkSettings, Cost, cost_table
from metacalo.errors import ShowerFileError
from metacalo.showers import data_folder, open_showers
from metacalo.sweep import trial_figures as figures
from metacalo.sweep.sweep_summary import findings_table


def trial(number: int) -> dict[str, object]:
    return {"number": number, "state": "complete", "values": {"w1": 0.1}, "params": {"rate": 1.0}}


def found(trials: int) -> dict[str, object]:
    return {
        "study": "mine",
        "best": trial(0),
        "default": trial(0),
        "importances": {},
        "objectives": ["w1"],
        "trials": [trial(number) for number in range(trials)],
    }


def text_of(table: object) -> str:
    console = Console(width=80, record=True)
    console.print(table)
    return console.export_text()


@pytest.mark.parametrize("trials", [1, 2, 3, 24])
def test_trials_are_whole_numbers(trials):
    figure = figures._history(found(trials))
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == round(tick) for tick in ticks)


def test_one_trial_is_not_trials():
    assert "trials: 1 complete" in text_of(findings_table(found(1)))


def test_speed_is_against_geant4():
    costs = [
        Cost("diffusion", "PyTorch", 1, 4.0),
        Cost("ar", "PyTorch", 1, 1000.0),
        Cost("", "Geant4, measured once elsewhere", 1, 97.0),
    ]
    text = text_of(cost_table(costs, BenchmarkSettings(energy=10)))
    assert "times as long" not in text
    assert "24.2" in text
    assert "0.097" in text  # slower than Geant4, and not 0 times


@pytest.mark.parametrize(("steps", "message"), [(1, "1 step in 0.5 s"), (15, "15 steps in 0.5 s")])
def test_steps_and_the_method_are_one_line(steps, message):
    run = {
        "steps": steps,
        "seconds": 0.5,
        "method": "conditioning+bias",
        "parameters": {"share": 0.035, "total": 1013284},
    }
    message = f"diffusion: {message}, conditioning+bias: 3.5 % of its parameters"
    metrics = {
        "detector": "PbLAr",
        "shots": {"number": 400},
        "base": {"name": "base-no-pblar"},
        "generators": {"diffusion": run},
    }
    assert summary_table(metrics).caption.splitlines()[0] == message


@pytest.mark.parametrize(("showers", "message"), [(0, "holds no shower;"), (1, "holds 1 shower;")])
def test_a_file_with_too_few_showers_to_adapt_to(showers, message):
    with open_showers(data_folder("tasks") / "siw" / "showers.h5") as file:
        file.energy = file.energy[:showers]
        with pytest.raises(ShowerFileError, match=message):
            draw_shots(file, 2, 1)
