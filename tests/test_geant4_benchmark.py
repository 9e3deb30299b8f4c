from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.geant4 import COMPARED, differences, main, maximum, trend
from metacalo.showers import resolve_task
from tests.geant4 import needs_geant4


@pytest.mark.parametrize(("alpha", "beta"), [(4.0, 0.5), (6.0, 0.6)])
def test_the_maximum_of_a_gamma_profile(alpha, beta):
    depth = 0.8
    t = (np.arange(45) + 0.5) * depth
    assert maximum(t ** (alpha - 1) * np.exp(-beta * t), depth) == pytest.approx((alpha - 1) / beta, abs=1e-6)


def test_halves_of_one_file_agree_and_a_changed_one_does_not():
    with resolve_task("siw").open() as file:
        showers = file.load(np.arange(600))
    first, second = showers[:400], showers[400:]
    agreeing = differences(first, second)
    assert [found.name for found in agreeing] == list(COMPARED)
    assert max(abs(found.sigmas) for found in agreeing) < 4
    deeper = replace(second, showers=np.roll(second.showers, 1, axis=3))
    assert differences(first, deeper)[1].sigmas > 6
    richer = replace(second, showers=np.float32(1.1) * second.showers)
    assert differences(first, richer)[0].sigmas > 6


def test_a_trend_is_fitted_whatever_the_spectrum():
    energy, theta = np.array([1e3, 1e4, 1e5]), np.array([1.0, 1.5, 2.0])
    columns = trend(energy, theta)
    assert columns.shape == (3, 4)
    np.testing.assert_allclose(columns[:, 3], 1 / np.sin(theta))


@needs_geant4
def test_the_tables(capsys):
    main(["--tasks", "scipb", "--showers", "4"])
    printed = capsys.readouterr().out
    assert "ln(E/E_c) - 0.5" in printed
    assert printed.count("scipb") == 1 + len(COMPARED)
