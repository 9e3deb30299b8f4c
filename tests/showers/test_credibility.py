from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacalo.model_folders.adapted import zero_shot
from metacalo.model_folders.base import resolve_base
from metacalo.normaliser.fitting import fit_normaliser
from metacalo.normaliser.marginals import ConditionalMarginals, scores_of_levels
from metacalo.normaliser.normaliser import PRIOR_STRENGTH, Normaliser
from metacalo.normaliser.prior_weight import credibility
from metacalo.showers import Showers, resolve_task

SPREAD = 0.3
N_SITES, N_KNOTS = 40, 4


def table(centre: float, weight: float) -> ConditionalMarginals:
    """Rows of normals, `SPREAD` wide."""
    rows = (N_SITES, N_KNOTS)
    quantiles = (centre + SPREAD * scores_of_levels()).expand(*rows, -1)
    return ConditionalMarginals(
        torch.arange(float(N_KNOTS)), torch.full(rows, -8.0), torch.full(rows, 8.0), quantiles, torch.full(rows, weight)
    )


def believed(hits_off: float, shares_off: float, weight: float) -> float:
    """Credibility of predictions that are off by so many spreads, by rows of `weight` values."""
    fitted = SimpleNamespace(parts={name: table(0.0, weight) for name in ("hits", "shares")})
    off = {"hits": hits_off, "shares": shares_off}
    predicted = SimpleNamespace(parts={name: table(spreads * SPREAD, 0.0) for name, spreads in off.items()})
    return credibility(fitted, predicted)


def test_what_a_prediction_is_worth_follows_from_its_error() -> None:
    # worth 1 / (d^2 - 1 / w) values, over those of a usual detector: 6 and 200
    weight, hits_off, shares_off = 100.0, 0.6, 0.13
    expected = [1 / (off**2 - 1 / weight) for off in (hits_off, shares_off)]
    wanted = (expected[0] / 6 * expected[1] / 200) ** 0.5
    assert believed(hits_off, shares_off, weight) == pytest.approx(wanted, rel=1e-3)


def test_departures_as_small_as_those_of_chance_are_believed_most() -> None:
    assert believed(0.1, 0.1, 100.0) == pytest.approx(3.0)


def test_a_prediction_that_is_far_off_keeps_a_little() -> None:
    assert believed(50.0, 50.0, 100.0) == pytest.approx(0.02)


def test_rows_with_a_value_each_tell_nothing() -> None:
    assert believed(50.0, 50.0, 1.0) == 1.0


@given(st.floats(0.0, 5.0), st.floats(0.0, 5.0), st.floats(1.5, 1e4))
def test_never_believed_more_for_being_farther_off(near: float, more: float, weight: float) -> None:
    assert 0.02 - 1e-6 <= believed(near + more, near + more, weight) <= believed(near, near, weight) + 1e-6 <= 3.1


@pytest.fixture(scope="module")
def crystal_shots() -> Showers:
    with resolve_task("pbwo4").open() as file:
        return file.load(np.arange(100))


@pytest.fixture(scope="module")
def alone(crystal_shots: Showers) -> Normaliser:
    """Fitted to the shots alone."""
    return fit_normaliser(crystal_shots.showers, crystal_shots.energy, crystal_shots.theta)


def predicted_for(task: str) -> Normaliser:
    return zero_shot(resolve_base("base"), resolve_task(task).detector).normaliser


def test_the_prediction_for_another_detector_is_found_out(alone: Normaliser) -> None:
    own, anothers = (credibility(alone, predicted_for(task)) for task in ("pbwo4", "siw"))
    assert own > 4 * anothers
    assert anothers < 0.3


def test_a_wrong_prediction_hardly_moves_the_tables(crystal_shots: Showers, alone: Normaliser) -> None:
    wrong = predicted_for("siw")
    moved = fit_normaliser(crystal_shots.showers, crystal_shots.energy, crystal_shots.theta, prior=wrong)
    stubborn = alone.shrunk_towards(
        replace(wrong, energy_dependence=alone.energy_dependence), dict.fromkeys(PRIOR_STRENGTH, 1000.0)
    )
    known = alone.hits.weight > 5
    error, worst = (
        float((table.hits.quantiles - alone.hits.quantiles)[known].abs().mean()) for table in (moved, stubborn)
    )
    assert error < 0.25 * worst
