from __future__ import annotations

import numpy as np
import pytest

from metacalo.evaluate.copies import copies
from metacalo.evaluate.signatures import Signatures, signatures
from tests.evaluate.library import library


@pytest.fixture(scope="module")
def marks(geant4):
    """100 shots, 400 unseen showers and 300 others."""
    found = signatures(geant4)
    return found[:100], found[100:500], found[500:]


def test_geant4_is_no_copy(marks):
    shots, unseen, others = marks
    found = copies(others, shots, unseen)
    assert found.expected.value == pytest.approx(4 / 401)
    assert found.share.value < found.expected.value + 4 * (found.expected.error + found.share.error)
    assert found.ratio.value == pytest.approx(1, abs=0.05)
    assert found.ratio_floor.value == pytest.approx(1, abs=0.05)


def test_a_library_is_caught(marks, geant4):
    shots, unseen, _ = marks
    found = copies(signatures(library(geant4.select(np.arange(100)), 300)), shots, unseen)
    assert found.share == (1.0, 0.0)
    assert found.control.value < 0.2
    assert found.ratio.value < 0.02
    assert found.ratio_floor.value == pytest.approx(1, abs=0.05)


def test_showers_of_little_variety_are_near_to_all_and_no_copies(marks):
    shots, unseen, others = marks
    middle = Signatures(0.7 * others.vectors + 0.3 * others.vectors.mean(axis=0), others.energy)
    found = copies(middle, shots, unseen)
    assert found.share.value > 0.1
    assert found.control.value == pytest.approx(found.share.value, abs=3 * found.share.error + 3 * found.control.error)
    assert found.ratio.value == pytest.approx(1, abs=0.05)


def test_a_few_copies_are_counted(marks, geant4):
    shots, unseen, others = marks
    made = signatures(library(geant4.select(np.arange(100)), 60))
    mixed = Signatures(
        np.concatenate([made.vectors, others.vectors[:240]]), np.append(made.energy, others.energy[:240])
    )
    found = copies(mixed, shots, unseen)
    assert found.share.value == pytest.approx(0.2, abs=0.03)
    assert found.share.error == pytest.approx(np.sqrt(0.2 * 0.8 / 300), rel=0.1)


def test_the_expected_share_is_exact():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(200):
        sample = Signatures(rng.random((250, 2), dtype=np.float32), np.full(250, 1e3))
        found.append(copies(sample[:100], sample[100:120], sample[120:]))
    shares = np.array([one.share.value for one in found])
    expected = found[0].expected
    assert expected.value == 1 / 131
    assert shares.mean() == pytest.approx(expected.value, abs=4 * shares.std() / np.sqrt(200))
    assert shares.std() == pytest.approx(np.hypot(expected.error, found[0].share.error or 0.0085), rel=0.4)


@pytest.mark.parametrize("n_shots", [60, 600])
def test_distances_are_to_as_many_shots_as_unseen_showers(n_shots):
    points = np.random.default_rng(1).random((2000, 2), dtype=np.float32)  # few dimensions: numbers matter much
    sample = Signatures(points, np.full(2000, 1e3))
    found = copies(sample[1400:], sample[:n_shots], sample[600:1400])
    assert found.ratio.value == pytest.approx(1, abs=0.15)
    assert found.ratio_floor.value == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("n_unseen", [2, 30])
def test_fewer_unseen_showers_than_shots_will_do(marks, n_unseen):
    shots, unseen, others = marks
    found = copies(others[:50], shots, unseen[:n_unseen])
    assert found.expected.value == 1 / (n_unseen + 1)
    assert 0 <= found.share.value <= 1
    assert 0.7 < found.ratio.value < 1.3
    assert copies(others[:50], shots, unseen[:n_unseen]) == found
