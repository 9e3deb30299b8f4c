from __future__ import annotations

from dataclasses import replace

import numpy as np
from matplotlib.image import imread

from metacalo.evaluate.plots import profile_figure


def test_the_picture_holds_any_number_of_samples(tmp_path, halves, too_much):
    path = tmp_path / "profiles.png"
    empty = replace(too_much, showers=np.zeros_like(too_much.showers))
    samples = {
        "Geant4": halves[0],
        "before adaptation": too_much,
        "after adaptation (diffusion)": halves[1],
        "0": empty,
    }
    profile_figure(samples, path, title="PbLAr")
    picture = imread(path)
    assert picture.shape[0] > 800
    assert picture.shape[1] > 1200
    assert 0.01 < np.mean(picture[..., :3].min(axis=-1) < 0.9) < 0.6


def test_empty_showers_alone_can_be_drawn(tmp_path, halves):
    empty = replace(halves[0], showers=np.zeros_like(halves[0].showers))
    profile_figure({"Geant4": empty, "generated": empty}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 10_000
