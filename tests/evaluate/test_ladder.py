"""The ladder: known departures at fixed energies and angles are found, with the errors that they have."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from metacalo.evaluate.figures.compared import Compared
from metacalo.evaluate.figures.pull_matrix import pull_matrix
from metacalo.evaluate.ladder import CORRELATIONS, LADDER_OBSERVABLES, Rung, ladder
from metacalo.evaluate.observables import observables
from metacalo.showers.shower_file import Showers

N = 600


def toy(seed: int, energies: tuple[float, ...] | None = (1e4, 5e4), lean: float = 0.0) -> Showers:
    """Showers of 4 x 8 x 6 cells: Gamma-distributed deposits around a profile, leaning in phi by `lean` cos theta."""
    draw = np.random.default_rng(seed)
    energy = draw.choice(energies, N) if energies else np.exp(draw.uniform(np.log(1e3), np.log(1e5), N))
    theta = draw.uniform(0.9, 2.2, N)
    phi = (np.arange(8) + 0.5) * np.pi / 4 - np.pi
    mean = np.exp(-np.arange(4.0))[:, None, None] * np.array([1, 3, 5, 4, 2, 1.0]) * np.ones(8)[:, None]
    side = 1 + lean * np.cos(theta)[:, None] * np.cos(phi)
    cells = draw.gamma(2.0, 0.5, (N, 4, 8, 6)) * mean * side[:, None, :, None]
    showers = cells / mean.sum() * energy[:, None, None, None] * (draw.random(cells.shape) < 0.7)
    return Showers(*(values.astype(np.float32) for values in (showers, energy, theta, np.zeros(N))))


def rungs(generated: Showers, reference: Showers, **options: bool) -> list[Rung]:
    seen = [observables(sample.showers, sample.energy) for sample in (generated, reference)]
    return ladder(generated, reference, seen[0], seen[1], **options)


def test_samples_of_one_distribution_are_within_errors():
    found = rungs(toy(1), toy(2))
    assert [rung.label for rung in found[:2]] == ["10 GeV", "50 GeV"]
    assert [rung.kind for rung in found[2:]] == ["angle"] * 5
    pulls = np.array([list(rung.pulls().values()) for rung in found])
    assert pulls.shape == (7, 2 * len(LADDER_OBSERVABLES) + len(CORRELATIONS))
    assert 0.7 < np.std(pulls) < 1.3
    assert all(0.3 < chi2 / ndf < 2.5 for chi2, ndf in (rung.chi2 for rung in found))


def test_shift_and_width_of_the_response():
    """All deposits times 1.1 at 50 GeV alone: the mean moves by a tenth over the spread, and the width by a tenth."""
    reference, moved = toy(1), toy(2)
    factor = np.where(moved.energy > 2e4, 1.1, 1.0).astype(np.float32)
    moved = replace(moved, showers=moved.showers * factor[:, None, None, None])
    low, high = rungs(moved, reference)[:2]
    at_high = reference.energy > 2e4
    response = reference.showers.sum((1, 2, 3))[at_high] / reference.energy[at_high]
    expected = 0.1 * response.mean() / response.std()
    assert high.shifts["response"].value == pytest.approx(expected, abs=4 * high.shifts["response"].error)
    assert high.shifts["response"].error == pytest.approx(np.sqrt((1 + 1.1**2) / at_high.sum()), rel=0.15)
    assert high.widths["response"].value == pytest.approx(1.1, abs=4 * high.widths["response"].error)
    assert high.widths["response"].error == pytest.approx(1.1 / np.sqrt(at_high.sum()), rel=0.2)  # sqrt(2 / 2n), normal
    assert abs(low.pulls()["response"]) < 4


def test_a_lean_in_phi_shows_with_its_sign_at_either_end_of_theta():
    at_angle = {rung.label: rung for rung in rungs(toy(1), toy(2, lean=0.5)) if rung.kind == "angle"}
    pulls = [at_angle[f"cos theta {low}"].pulls()["cos phi"] for low in ("-1 to -0.45", "0.45 to 1")]
    assert pulls[0] > 5
    assert pulls[1] < -5
    assert abs(at_angle["cos theta -0.15 to 0.15"].pulls()["cos phi"]) < 4


def test_correlations_of_layers_that_were_lost():
    """Layers dealt out anew among showers of one energy keep their means and widths, and lose what they share."""
    reference = toy(1, (1e4,))
    common = np.random.default_rng(5).normal(0, 0.3, (N, 1)) * np.linspace(-1, 1, 6)
    reference = replace(reference, showers=(reference.showers * np.exp(common)[:, None, None]).astype(np.float32))
    order = np.random.default_rng(6)
    shuffled = np.stack([reference.showers[order.permutation(N), ..., z] for z in range(6)], axis=-1)
    (found, *_) = rungs(replace(reference, showers=shuffled), reference)
    assert found.pulls()["next layers"] < -5
    assert abs(found.pulls()["radius"]) < 3


def test_a_continuous_spectrum_is_cut_into_narrow_bins_without_its_trend():
    """Occupancy that rises with the energy, and energies that differ within a bin, are no departure."""
    found = [rung for rung in rungs(toy(1, None), toy(2, None)) if rung.kind == "energy"]
    assert len(found) == 6
    assert found[0].label == "1.01 to 2.14 GeV"
    assert all(abs(pull) < 5 for rung in found for pull in rung.pulls().values())


def test_classifiers_within_an_energy():
    reference, moved = toy(1), toy(2)
    moved = replace(moved, showers=moved.showers * np.float32(1.5))
    low, high, *angles = rungs(moved, reference, classifiers=True)
    assert low.auc is not None
    assert high.auc is not None
    assert min(low.auc.value, high.auc.value) > 0.9
    assert all(rung.auc is None for rung in angles)


def test_json_and_picture():
    reference, generated = toy(1), toy(2)
    json.dumps([rung.as_json() for rung in rungs(generated, reference)], allow_nan=False)
    figure = pull_matrix(Compared.of({"Geant4": reference, "one": generated, "two": toy(3)}))
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:2] == ["one: 10 GeV", "one: 50 GeV"]
    few = [sample[slice(0, 20)] for sample in (reference, generated)]
    assert pull_matrix(Compared.of(dict(zip(("Geant4", "one"), few, strict=True)))) is None
