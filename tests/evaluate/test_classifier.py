from __future__ import annotations

import numpy as np
import pytest
import torch

from metacalo.evaluate.classifier import _conditions, _parts, auc_error, high_level_auc, low_level_auc
from metacalo.evaluate.observables import observables


def features(sample):
    return observables(sample.showers, sample.energy).features()[0]


def high(reference, generated, **options):
    return high_level_auc(reference, features(reference), generated, features(generated), **options)


@pytest.mark.parametrize("auc", [high, low_level_auc])
def test_halves_of_one_sample_cannot_be_told_apart(auc, halves):
    found = auc(*halves, rotations=3)
    assert abs(found.value - 0.5) < 3 * found.error
    assert 0.01 < found.error < 0.05


@pytest.mark.parametrize("auc", [high, low_level_auc])
def test_a_wrong_response_is_seen_and_the_seed_fixes_the_figure(auc, halves, too_much):
    state = torch.get_rng_state()
    found = auc(halves[0], too_much, rotations=2)
    assert found.value > 0.75
    assert auc(halves[0], too_much, rotations=2) == found
    assert torch.equal(torch.get_rng_state(), state)
    assert auc(halves[0], too_much, rotations=1, seed=5) != found


def test_a_sample_is_not_told_from_itself(halves):
    assert high(halves[0], halves[0], rotations=2).value == pytest.approx(0.5, abs=1e-6)


def test_samples_of_different_sizes_are_balanced_and_tiny_ones_give_no_figure(halves):
    found = high(halves[0], halves[1].select(np.arange(60)), rotations=1)
    assert abs(found.value - 0.5) < 4 * found.error
    assert np.isnan(high(halves[0], halves[1].select(np.arange(9))).value)


def test_showers_of_equal_conditions_share_a_part(halves):
    part = _parts(_conditions([halves[0], halves[0]]), np.random.default_rng(0))
    np.testing.assert_array_equal(part[:400], part[400:])
    np.testing.assert_array_equal(np.bincount(part), 160)
    point = np.zeros((100, 3))  # a fixed energy and angle: nothing to keep together
    np.testing.assert_array_equal(np.bincount(_parts(point, np.random.default_rng(0))), 20)


def test_auc_error_is_that_of_hanley_and_mcneil():
    # Table II of the paper: 58 and 51 cases, area 0.893, standard error 0.032.
    assert auc_error(0.893, 51, 58) == pytest.approx(0.032, abs=0.001)
    assert auc_error(1.0, 10, 10) == 0
