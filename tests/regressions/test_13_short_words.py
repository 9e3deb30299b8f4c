"""What a physicist prints in a session fits a line or two."""

from __future__ import annotations

import pytest

from metacalo.generators.frozen import FrozenLibrary
from metacalo.model_folders.adapted import load_model
from metacalo.showers import resolve_task


@pytest.fixture(scope="module")
def printed():
    task = resolve_task("siw")
    model = load_model("base", detector=task.detector)
    with task.open() as file:
        shots = file.load(slice(0, 30))
        made = [
            model,
            model.base,
            model.normaliser,
            model.base.hyperprior,
            file,
            shots,
            FrozenLibrary.from_shots(shots),
        ]
        return {type(each).__name__: repr(each) for each in made}


def test_what_is_printed_is_short(printed):
    assert {name: len(text) for name, text in printed.items() if len(text) > 240 or "\n" in text} == {}


def test_what_is_printed_says_what_it_is(printed):
    assert printed["ShowerModel"] == (
        "ShowerModel('SiW', generators=ar, diffusion, cells=9 x 16 x 45, zero shots, 1 to 100 GeV, "
        "theta 0.87 to 2.27 rad, base='base')"
    )
    assert printed["Base"].startswith("Base('base', generators=ar, diffusion, cells=9 x 16 x 45, 1 to 100 GeV")
    assert printed["Showers"].startswith("Showers(30 showers, cells=9 x 16 x 45, 1.0")
