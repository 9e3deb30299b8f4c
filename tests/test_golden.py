"""Showers of the shipped bases are those that they were: golden figures, written by `python -m tests.golden`.

A shower that another machine's rounding turns into another one moves a mean by about 0.14 of its statistical error;
another hundred showers move it by about 1.4 of them.
"""

from __future__ import annotations

import json

import pytest

from tests.golden import FILE, GENERATORS, OBSERVABLES, N, bases, figures, shipped

TOLERANCE = 0.5
"""Statistical errors. Weights that are 1e-4 off moved the figures of `ar` by at most 0.3, those of
`diffusion` by 0.01."""

GOLDEN = json.loads(FILE.read_text(encoding="utf-8"))


def deviations(found: dict[str, dict[str, float]], expected: dict[str, dict[str, float]]) -> dict[str, float]:
    """Differences of means and of widths, in statistical errors of those expected."""
    assert found.keys() == expected.keys() == set(OBSERVABLES)
    moved = {}
    for name, figure in expected.items():
        error = figure["width"] / N**0.5
        moved[f"{name} mean"] = abs(found[name]["mean"] - figure["mean"]) / error
        moved[f"{name} width"] = abs(found[name]["width"] - figure["width"]) / (error / 2**0.5)
    return moved


def test_all_bases_have_figures() -> None:
    assert sorted(GOLDEN) == bases()
    assert all(tuple(of_base) == GENERATORS for of_base in GOLDEN.values())


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("base", bases())
def test_showers_are_those_that_they_were(base: str, generator: str) -> None:
    moved = deviations(figures(shipped(base), generator), GOLDEN[base][generator])
    assert {name: far for name, far in moved.items() if far > TOLERANCE} == {}


def test_other_showers_of_the_same_base_are_seen() -> None:
    other = deviations(figures(shipped("base"), "diffusion", seed=2), GOLDEN["base"]["diffusion"])
    assert max(other.values()) > 2 * TOLERANCE
