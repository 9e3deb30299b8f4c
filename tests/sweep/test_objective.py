"""Cross-validation: nothing of a fold sees the showers that judge it, and figures are of the right showers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from metacalo.adaptation.methods import MethodSettings
from metacalo.showers.shower_file import Showers
from metacalo.sweep import objective
from metacalo.sweep.objective import CrossValidation
from metacalo.sweep.space import Hyperparameters
from tests.samples import shipped


class Model:
    """Stands for a base, its preprocessing and an adapted model: it remembers, and generates what it is asked to."""

    base: Any

    def __init__(self, made: list[np.ndarray] | None = None) -> None:
        self.base = self.preprocessing = self
        self.detector = self.normaliser = None
        self.fitted: list[Showers] = []
        self.adapted: list[Showers] = []
        self.made = made

    def fit(self, showers: Showers, prior: None) -> None:
        self.fitted.append(showers)

    def generator(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(sees_cells=False)

    def rates(self, _: str) -> dict:
        return {}

    def batches(self, _: str, energy: np.ndarray, *_angles: np.ndarray, **_settings: Any):
        yield SimpleNamespace(showers=np.concatenate([self.made[np.flatnonzero(self.energy == e)] for e in energy]))


@pytest.fixture(scope="module")
def shots() -> Showers:
    """Sixty, with energies that are all different."""
    return shipped("pblar", slice(0, 3000, 50))


@pytest.fixture
def model(monkeypatch, shots) -> Model:
    made = Model(shots.showers)
    made.energy = shots.energy

    def adapt(generator, kept, settings, *, rates, on_check):
        made.adapted.append(kept)
        on_check(5, 1.0)
        return {"seconds": 2.0}

    monkeypatch.setattr(objective, "ShowerPool", lambda showers, *_, **__: showers)
    monkeypatch.setattr(objective, "replace", lambda model, **_: model)
    monkeypatch.setattr(objective, "adapt_generator", adapt)
    monkeypatch.setattr(objective, "mean_loss", lambda _generator, held, _settings: float(len(held)))
    return made


def prepare(model: Model, shots: Showers, *objectives, folds=3, showers_per_shot=1, seed=1) -> CrossValidation:
    return CrossValidation.prepare(
        model, shots, "diffusion", objectives, folds=folds, showers_per_shot=showers_per_shot, seed=seed
    )


def test_what_judges_a_fold_is_seen_by_nothing_in_it(model, shots):
    judged = prepare(model, shots, "loss")
    judged.judge(Hyperparameters(), MethodSettings())
    everything = set(shots.hashes())
    held = [set(fold.conditions.hashes()) for fold in judged.folds]
    assert set().union(*held) == everything
    assert sum(map(len, held)) == len(everything) == 60
    for fold, out, fitted, adapted in zip(judged.folds, held, model.fitted, model.adapted, strict=True):
        assert set(fold.held.hashes()) == out
        assert set(fitted.hashes()) == set(adapted.hashes()) == everything - out


def test_folds_depend_on_the_seed_alone(model, shots):
    first, again, other = (prepare(model, shots, "loss", seed=seed).shots.hashes() for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("copies", [1, 2])
def test_a_generator_that_is_right_has_no_distance(model, shots, copies):
    found = prepare(model, shots, "w1", "shower_ms", showers_per_shot=copies).judge(Hyperparameters(), MethodSettings())
    assert set(found) == {"loss", "seconds", "w1", "shower_ms"}
    assert found["w1"] == pytest.approx(0, abs=1e-6)  # which a shower with another one's energy would spoil
    assert (found["loss"], found["seconds"]) == (20, 2)


def test_a_generator_that_is_wrong_has_a_distance(model, shots):
    model.made = 1.5 * shots.showers
    found = prepare(model, shots, "fpd").judge(Hyperparameters(), MethodSettings())
    assert found["w1"] > 0.02
    assert found["fpd"] > 0.1


def test_no_showers_are_made_for_the_loss_and_pruning_looks_at_the_first_fold(model, shots, monkeypatch):
    monkeypatch.setattr(model, "batches", None)
    checks = []
    prepare(model, shots, "loss").judge(Hyperparameters(), MethodSettings(), lambda *check: checks.append(check))
    assert checks == [(5, 1.0)]
    assert len(model.adapted) == 3
