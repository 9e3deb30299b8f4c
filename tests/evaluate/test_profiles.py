from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import kstest

from metacalo.evaluate import EvaluateSettings, compare, table
from metacalo.evaluate.observables import observables
from metacalo.evaluate.profiles import Chi2, profile_chi2, profiles


def toys(rng, n, spread=1.0):
    """Showers with a profile of eight bins, strongly correlated, that sum to 1."""
    walk = 0.004 * np.cumsum(rng.normal(size=(n, 8)) * spread, axis=1)
    return 1 / 8 + walk - walk.mean(axis=1, keepdims=True)


def drawn(n, m, spread=1.0, times=600, shift=0.0):
    rng = np.random.default_rng(1)
    return [profile_chi2(toys(rng, n), toys(rng, m, spread) + shift) for _ in range(times)]


@pytest.mark.parametrize(("n", "m", "spread"), [(30, 30, 1.0), (300, 60, 1.0), (60, 200, 2.0)])
def test_of_one_mean_the_expectation_is_1_and_p_values_are_uniform(n, m, spread):
    found = drawn(n, m, spread)
    values = np.array([one.value for one in found])
    assert {one.ndf for one in found} == {7}  # eight bins that sum to 1
    assert values.mean() == pytest.approx(1, abs=3 * values.std() / np.sqrt(len(found)))
    assert kstest([one.p_value for one in found], "uniform").pvalue > 0.01


def test_correlations_count():
    rng = np.random.default_rng(2)
    first, second = toys(rng, 400), toys(rng, 400)
    rough = np.where(np.arange(8) % 2, 1, -1) * 2.5 * first.std(axis=0) / np.sqrt(400)
    # neighbours fluctuate together: a zigzag of two standard errors is impossible, a smooth shift is not
    assert profile_chi2(first, second).value < 3
    diagonal = np.mean((second - first + rough).mean(axis=0) ** 2 / (first.var(axis=0) + second.var(axis=0)) * 400)
    assert profile_chi2(first, second + rough).value > 2 * diagonal


def test_few_showers_have_the_variances_alone_and_no_p_value():
    rng = np.random.default_rng(3)
    found = [profile_chi2(rng.normal(5, 1, (9, 12)), rng.normal(5, 1, (9, 12))) for _ in range(400)]
    assert all(one.ndf == 12 and np.isnan(one.p_value) for one in found)
    values = np.array([one.value for one in found])
    assert values.mean() == pytest.approx(1, abs=3 * values.std() / np.sqrt(400))


def test_bins_hardly_ever_filled_are_left_out_and_nothing_is_no_figure():
    rng = np.random.default_rng(4)
    first, second = rng.normal(5, 1, (2, 50, 3))
    first[:, 2] = second[:, 2] = 0
    first[:9, 2] = 1
    assert profile_chi2(first, second).ndf == 2
    second[0, 2] = 1
    assert profile_chi2(first, second).ndf == 3
    for nothing in (np.zeros((50, 3)), first[:1]):
        value, ndf, p_value = profile_chi2(nothing, nothing)
        assert ndf == 0
        assert np.isnan([value, p_value]).all()


def test_constant_bins_and_a_constant_sample_are_no_failure():
    rng = np.random.default_rng(5)
    first = rng.normal(5, 1, (60, 3))
    first[:, 1] = 4.0
    found = profile_chi2(first, np.full((40, 3), 4.0))
    assert found.ndf == 2
    assert found.value > 10
    assert found.p_value < 1e-6
    assert isinstance(found, Chi2)


def test_profiles_are_those_of_the_picture(halves):
    seen = observables(halves[0].showers, halves[0].energy)
    shapes = profiles(seen)
    assert {name: columns.shape for name, columns in shapes.items()} == {
        "longitudinal_profile": (400, 45),
        "lateral_profile": (400, 9),
        "voxel_spectrum": (400, 30),
    }
    np.testing.assert_array_equal(shapes["voxel_spectrum"].sum(axis=1), seen.spectrum.sum(axis=1))


def test_geant4_halves_agree_and_a_wrong_depth_does_not(halves):
    deeper = replace(halves[1], showers=np.roll(halves[1].showers, 1, axis=3))
    settings = EvaluateSettings(classifiers=False, splits=3)
    good, bad = (compare(sample, halves[0], settings) for sample in (halves[1], deeper))
    for name in ("longitudinal_profile", "lateral_profile", "voxel_spectrum"):
        entry = good["groups"][name]["chi2"]
        assert entry["value"] == pytest.approx(1, abs=4 * np.sqrt(2 / entry["ndf"]))
        assert entry["floor"] == pytest.approx(1, abs=4 * np.sqrt(2 / entry["ndf"]))
        assert entry["p_value"] > 1e-3
        assert entry["error"] < 1
    assert "chi2" not in good["groups"]["moments"]
    depth = bad["groups"]["longitudinal_profile"]["chi2"]
    assert depth["value"] > 2.5
    assert depth["p_value"] < 1e-6
    assert depth["floor"] == good["groups"]["longitudinal_profile"]["chi2"]["floor"]
    assert bad["groups"]["lateral_profile"]["chi2"] == good["groups"]["lateral_profile"]["chi2"]
    json.dumps(bad, allow_nan=False)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table({"wrong": bad}))
    message = {re.split(r"\s{2,}", line.strip())[0]: line for line in capture.get().splitlines()}
    assert f"{depth['value']:.2f} ± {depth['error']:.2f}" in message["chi2/ndf, mean longitudinal profile"]
    assert f"{depth['floor']:.2f} ± {depth['floor_error']:.2f}" in message["chi2/ndf, mean longitudinal profile"]
    assert "chi2/ndf, mean voxel spectrum" in message
