from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacalo.errors import ShowerFileError
from metacalo.normaliser.condition_vector import condition_size, encode_conditions
from metacalo.showers import DESCRIPTORS, Detector

ONE = np.array([1.0])


def encode(
    energy: float = 1e4, theta: float = 1.2, phi: float = 0.3, descriptors: tuple[float, ...] = ()
) -> np.ndarray:
    return encode_conditions(energy * ONE, theta * ONE, phi * ONE, np.array(descriptors))[0].numpy()


def test_columns_by_hand() -> None:
    vector = encode(1e4, 1.2, 0.3, (0.5, -0.25))
    u = 0.0  # 10 GeV lies half way between 1 and 100 GeV in ln(E)
    harmonics = [f(2**k * math.pi / 2 * u) for k in range(3) for f in (math.sin, math.cos)]
    angles = [math.cos(1.2), math.cos(1.2) ** 2, math.sin(0.3), math.cos(0.3)]
    np.testing.assert_allclose(vector, [u, *harmonics, *angles, 0.5, -0.25], atol=1e-6)


@pytest.mark.parametrize(("energy", "u"), [(1e3, -1.0), (1e5, 1.0), (1e6, 2.0)])
def test_the_trained_range_is_minus_one_to_one(energy: float, u: float) -> None:
    vector = encode(energy)
    assert vector[0] == pytest.approx(u, abs=1e-6)
    assert vector[1] == pytest.approx(math.sin(math.pi / 2 * u), abs=1e-6)
    assert vector[6] == pytest.approx(math.cos(2 * math.pi * u), abs=1e-5)


def test_shape_and_type() -> None:
    detector = Detector.from_layers("Pb:2.0", "lAr:4.0", n_layers=90)
    many = np.full(7, 2e3, np.float32)
    vectors = encode_conditions(many, many * 0 + 1, many * 0, detector.descriptors())
    assert vectors.shape == (7, condition_size(len(DESCRIPTORS)))
    assert vectors.dtype == torch.float32
    np.testing.assert_array_equal(vectors[3, -len(DESCRIPTORS) :], detector.descriptors())


@given(st.floats(100, 1e6), st.floats(0.1, 3.0), st.floats(-10, 10))
def test_the_azimuth_wraps_round_and_theta_mirrors(energy: float, theta: float, phi: float) -> None:
    vector = encode(energy, theta, phi)
    np.testing.assert_allclose(encode(energy, theta, phi + 2 * math.pi), vector, atol=1e-5)
    mirrored = encode(energy, math.pi - theta, phi)
    np.testing.assert_allclose(mirrored[7], -vector[7], atol=1e-6)
    np.testing.assert_allclose(np.delete(mirrored, 7), np.delete(vector, 7), atol=1e-6)


@pytest.mark.parametrize("energy", [0.0, -5.0, math.nan, math.inf])
def test_an_energy_that_cannot_be(energy: float) -> None:
    with pytest.raises(ShowerFileError, match="incident energies must be finite and above zero"):
        encode(energy)


@pytest.mark.parametrize("angle", [{"theta": math.nan}, {"phi": math.inf}])
def test_an_angle_that_cannot_be(angle: dict[str, float]) -> None:
    with pytest.raises(ShowerFileError, match="theta and phi must be finite"):
        encode(**angle)
