"""The gamma profile against scipy's distribution, and against real showers."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from metacalo.normaliser.gamma_profile import log_layer_fractions
from metacalo.showers import discover_tasks

KNOTS = torch.log(torch.tensor([1e3, 1e4, 1e5]))


def test_fractions_are_those_of_the_distribution() -> None:
    detector = discover_tasks()["siw"].detector
    found = log_layer_fractions(torch.from_numpy(detector.descriptors()), KNOTS, 45).double().exp().numpy()
    edges = np.arange(46) * detector.grid.dz_mm / detector.X0_mm
    for knot, energy in enumerate((1e3, 1e4, 1e5)):
        shape = 1 + 0.5 * (np.log(energy / detector.E_c_MeV) - 0.5)
        expected = np.diff(stats.gamma.cdf(edges, shape, scale=2.0))
        np.testing.assert_allclose(found[:, knot], expected + 3e-4, rtol=1e-4)


def test_showers_have_nearly_that_profile() -> None:
    """Within a factor of 1.5 in each layer that holds 1 % or more of the energy, in every detector that ships whole."""
    tasks = discover_tasks()
    for name in ("siw", "scipb", "pblar"):
        with tasks[name].open() as file:
            showers = file.load(np.arange(400))
        near = np.abs(np.log(showers.energy / 1e4)) < 0.7
        in_layers = showers.showers[near].sum((1, 2), dtype=np.float64)
        mean = (in_layers / in_layers.sum(1, keepdims=True)).mean(0)
        descriptors = torch.from_numpy(tasks[name].detector.descriptors())
        expected = log_layer_fractions(descriptors, KNOTS[1:2], len(mean)).exp().numpy()[:, 0]
        assert np.abs(np.log(expected / mean))[mean > 0.01].max() < 0.4
