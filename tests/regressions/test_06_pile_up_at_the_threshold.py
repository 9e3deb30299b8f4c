"""Generated cells do not pile up just above the threshold; there Geant4's spectrum is what it is elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metacalo.model_folders.adapted import zero_shot
from metacalo.model_folders.base import resolve_base
from metacalo.normaliser.latents import Latents
from metacalo.normaliser.response import convention_scale
from metacalo.showers.tasks import resolve_task


@pytest.mark.parametrize("name", ["pblar", "pbwo4"])
def test_spectrum_near_the_threshold(name):
    """200 shots, 600 unseen showers; independent latents, as generators without any structure have."""
    task = resolve_task(name)
    with task.open() as file:
        rows = np.random.default_rng(1).permutation(len(file))[:800]
        shots, unseen = file.load(np.sort(rows[:200])), file.load(np.sort(rows[200:]))
    base = resolve_base("base-no-pblar")
    guess = zero_shot(base, task.detector, scale=convention_scale(shots.showers, shots.energy)).normaliser
    normaliser = base.preprocessing.fit(shots, prior=guess)
    noise = Latents.noise(len(unseen), task.detector.grid.shape, torch.Generator().manual_seed(2))
    energy, theta = (torch.from_numpy(values) for values in (unseen.energy, unseen.theta))
    made = normaliser.inverse(noise, energy, theta).numpy()
    least = normaliser.threshold
    assert made[made > 0].min() > 0.998 * least
    edges = least * np.array([0.998, 1.05, 1.3, 2.0, 4.0])
    found, expected = (np.histogram(sample[sample > 0], edges)[0] for sample in (made, unseen.showers))
    # cells of one shower go together, and tables are of 200 showers: a factor, where lifting gave ten in the first bin
    assert (found < 1.6 * expected + 4 * np.sqrt(expected)).all(), (found, expected)
    assert (found > 0.6 * expected - 4 * np.sqrt(expected)).all(), (found, expected)
