from __future__ import annotations

import numpy as np
import pytest
import torch

from metacalo.evaluate.classifier import (
    _calibrated,
    _calibration,
    _conditions,
    _divergence,
    _folds,
    auc_error,
    classify_observables,
    classify_voxels,
)
from metacalo.evaluate.observables import observables


def features(sample):
    return observables(sample.showers, sample.energy).features()[0]


def high(reference, generated, **options):
    return classify_observables(reference, features(reference), generated, features(generated), **options)


@pytest.mark.parametrize("classify", [high, classify_voxels])
def test_halves_of_one_sample_cannot_be_told_apart(classify, halves):
    auc, jsd, calibration = classify(*halves, rotations=3)
    assert abs(auc.value - 0.5) < 3 * auc.error
    assert 0.01 < auc.error < 0.05
    assert jsd.value < 3 * jsd.error
    assert calibration.value < 4 * calibration.error


@pytest.mark.parametrize("classify", [high, classify_voxels])
def test_a_wrong_response_is_seen_and_the_seed_fixes_the_figure(classify, halves, too_much):
    state = torch.get_rng_state()
    found = classify(halves[0], too_much, rotations=2)
    assert found.auc.value > 0.75
    assert 0.1 < found.jsd.value < 1
    assert classify(halves[0], too_much, rotations=2) == found
    assert torch.equal(torch.get_rng_state(), state)
    assert classify(halves[0], too_much, rotations=1, seed=5) != found


def test_a_sample_is_not_told_from_itself(halves):
    assert high(halves[0], halves[0], rotations=2).auc.value == pytest.approx(0.5, abs=1e-6)


def test_samples_of_different_sizes_are_balanced_and_tiny_ones_give_no_figure(halves):
    found = high(halves[0], halves[1].select(np.arange(60)), rotations=1).auc
    assert abs(found.value - 0.5) < 4 * found.error
    assert np.isnan(high(halves[0], halves[1].select(np.arange(9)))).all()


def test_showers_of_equal_conditions_share_a_fold(halves):
    fold = _folds(_conditions([halves[0], halves[0]]), np.random.default_rng(0))
    np.testing.assert_array_equal(fold[:400], fold[400:])
    np.testing.assert_array_equal(np.bincount(fold), 160)
    point = np.zeros((100, 3))  # a fixed energy and angle: nothing to keep together
    np.testing.assert_array_equal(np.bincount(_folds(point, np.random.default_rng(0))), 20)


def test_auc_error_is_that_of_hanley_and_mcneil():
    # Table II of the paper: 58 and 51 cases, area 0.893, standard error 0.032.
    assert auc_error(0.893, 51, 58) == pytest.approx(0.032, abs=0.001)
    assert auc_error(1.0, 10, 10) == 0


def test_calibration_and_divergence_of_known_gaussians():
    # Logits of N(-1, 1) against N(1, 1) are 2 x; given as 8 x, they are overconfident until they are calibrated.
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 20_000)
    x = rng.normal(2.0 * label - 1, 1)
    chosen = rng.random(40_000) < 0.5
    found = _calibrated(8 * x[chosen], label[chosen], 8 * x[~chosen])
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-2 * x[~chosen])), atol=0.02)
    fine, rough = (_calibration(p, label[~chosen]) for p in (found, 1 / (1 + np.exp(-8 * x[~chosen]))))
    assert fine.value < 4 * fine.error < 0.03
    assert rough.value > 0.05
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    exact = 1 - np.sum(weights * np.log2(1 + np.exp(-2 * (nodes + 1)))) / np.sqrt(2 * np.pi)
    jsd = _divergence(found, label[~chosen])
    assert jsd.value == pytest.approx(exact, abs=4 * jsd.error)
    assert _divergence(np.full(10, 0.5), np.repeat([0, 1], 5)).value == 0
