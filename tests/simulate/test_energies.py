from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from metacalo.detectors.simulation_settings import BeamSettings
from metacalo.simulate.energies import shot, spectrum_text

N = 2000


def energies(**message) -> np.ndarray:
    beam = BeamSettings(**message)
    return np.array([shot(beam, "barrel", 1, index).energy for index in range(N)]) / 1e3


@pytest.mark.parametrize("index", [0.0, 1.0, 2.0, 2.7])
def test_energies_follow_the_spectrum(index):
    def cdf(energy):
        if index == 1:
            return np.log(energy) / math.log(100)
        power = 1 - index
        return (energy**power - 1) / (100**power - 1)

    assert stats.kstest(energies(energy_GeV="1:100", spectral_index=index), cdf).pvalue > 0.01


def test_values_are_drawn_evenly():
    drawn = energies(energy_GeV=(10, 50, 100))
    counts = [int((drawn == value).sum()) for value in (10, 50, 100)]
    assert sum(counts) == N
    assert stats.chisquare(counts).pvalue > 0.01


def test_angles_lie_in_their_ranges_and_fill_them():
    beam = BeamSettings(theta="0.9:2.2")
    made = [shot(beam, "barrel", 1, index) for index in range(N)]
    theta, phi = np.array([(one.theta, one.phi) for one in made]).T
    assert stats.kstest(theta, stats.uniform(0.9, 1.3).cdf).pvalue > 0.01
    assert stats.kstest(phi, stats.uniform(0, 2 * math.pi).cdf).pvalue > 0.01
    assert {shot(beam, "planar", 1, index).phi for index in range(20)} == {0.0}


def test_a_shot_follows_from_seed_and_index_alone():
    beam = BeamSettings()
    assert shot(beam, "barrel", 4, 17) == shot(beam, "barrel", 4, 17)
    assert shot(beam, "barrel", 5, 17) != shot(beam, "barrel", 4, 17)
    seeds = [shot(beam, "barrel", 4, index).seed for index in range(N)]
    assert len(set(seeds)) == N
    assert min(seeds) > 0
    assert max(seeds) < 2**31


def test_energies_are_what_a_file_of_float32_tells():
    one = shot(BeamSettings(), "barrel", 4, 17)
    assert all(np.float32(value) == value for value in (one.energy, one.theta, one.phi))


def test_the_spectrum_in_words():
    assert spectrum_text(BeamSettings(), "barrel") == (
        "log-uniform 1-100 GeV; theta uniform 0.87-2.27; phi uniform 0-6.283"
    )
    message = BeamSettings(energy_GeV=(10, 50), theta=1.5, phi=0)
    assert spectrum_text(message, "barrel") == "10, 50 GeV; theta 1.5; phi 0"
