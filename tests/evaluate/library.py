"""A frozen-shower library: what diversity and no-copy tests must catch."""

from __future__ import annotations

import numpy as np

from metacalo.showers import Showers


def library(shots: Showers, n: int, seed: int = 0) -> Showers:
    """`n` showers of a frozen-shower library: shots scaled in energy, turned, mirrored, cut at 15 keV."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(shots), n)
    factor = np.exp(rng.uniform(-0.7, 0.7, n)).astype(np.float32)
    showers = shots.showers[rows] * factor[:, None, None, None]
    for row in range(n):
        showers[row] = np.roll(showers[row], rng.integers(showers.shape[2]), axis=1)[:, :: rng.choice([-1, 1])]
    showers[showers < 0.01515] = 0
    return Showers(showers, shots.energy[rows] * factor, shots.theta[rows], shots.phi[rows], shots.detector)
