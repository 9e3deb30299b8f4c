"""What a trial is judged by: showers held back from the shots, by cross-validation, and the time it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from metacalo.adaptation.adapt_generator import adapt_generator
from metacalo.adaptation.early_stopping import mean_loss
from metacalo.adaptation.methods import MethodSettings
from metacalo.errors import MetacaloError
from metacalo.evaluate.metrics import fpd, standardise, wasserstein1
from metacalo.evaluate.observables import observables
from metacalo.model_folders.adapted import ShowerModel
from metacalo.showers.shower_file import Showers
from metacalo.sweep.space import Hyperparameters
from metacalo.training_data.shower_pool import ShowerPool

__all__ = ["FIDELITIES", "CrossValidation", "Objective", "needs_showers"]

Objective = Literal["w1", "fpd", "loss", "seconds", "shower_ms"]
"""w1: mean Wasserstein-1 distance of the standardised observables, generated showers against the shots.
fpd: Frechet physics distance of the same.
loss: mean loss of the held-back shots, in the units of the generator's loss.
seconds: wall time of adaptation, mean of the folds.
shower_ms: wall time of generation, milliseconds a shower."""

FIDELITIES: Final = ("w1", "fpd", "loss")
"""Objectives that are how well; the others are how fast."""


def needs_showers(objectives: tuple[Objective, ...]) -> bool:
    """Whether showers must be generated: where that is so, how they are sampled counts."""
    return bool({"w1", "fpd", "shower_ms"} & set(objectives))


@dataclass(frozen=True)
class _Fold:
    """A part of the shots that is held back, and the others as adaptation sees them."""

    model: ShowerModel  # the base behind the normaliser of the other shots
    kept: ShowerPool
    held: ShowerPool
    conditions: Showers


@dataclass(frozen=True)
class CrossValidation:
    """The shots in folds: each is held back in turn from normaliser, adaptation and early stopping.

    Attributes:
        name: of the generator.
        folds: with the normaliser of each, which all trials share: no hyperparameter touches it.
        shots: all, in the order of the folds.
        objectives: what is asked for.
        showers_per_shot: generated for the conditions of each held-back shot.
    """

    name: str
    folds: tuple[_Fold, ...]
    shots: Showers
    objectives: tuple[Objective, ...]
    showers_per_shot: int

    @classmethod
    def prepare(
        cls,
        before: ShowerModel,
        shots: Showers,
        name: str,
        objectives: tuple[Objective, ...],
        *,
        folds: int,
        showers_per_shot: int,
        seed: int,
        done: Callable[[], object] = lambda: None,
    ) -> CrossValidation:
        """Deals `shots` out to `folds` parts at random and fits the normalisers; `done` is called after each."""
        parts = np.array_split(np.random.default_rng(seed).permutation(len(shots)), folds)
        made = []
        for part in parts:
            kept, held = shots[np.setdiff1d(np.arange(len(shots)), part)], shots[part]
            normaliser = before.base.preprocessing.fit(kept, prior=before.normaliser)
            cells = before.base.generator(name).sees_cells
            pools = [ShowerPool(each, normaliser, before.detector, cells=cells) for each in (kept, held)]
            made.append(_Fold(replace(before, normaliser=normaliser, generators={}), pools[0], pools[1], held))
            done()
        return cls(name, tuple(made), shots[np.concatenate(parts)], objectives, showers_per_shot)

    def judge(
        self,
        hyper: Hyperparameters,
        settings: MethodSettings,
        on_check: Callable[[int, float], object] = lambda _step, _loss: None,
    ) -> dict[str, float]:
        """Adapts to all folds but one, for each, and measures: always `loss` and `seconds`, the rest if asked for.

        The same hyperparameters give the same figures, times aside: splits, batches and noise have the seed of
        `settings`, whatever the trial.

        Args:
            hyper: what is tried.
            settings: seed, device and the like.
            on_check: sees the held-back losses of early stopping in the first fold, see `adapt_generator`; a trial that
                it ends costs a part of one fold.

        Raises:
            MetacaloError: the adapted generator gives values that are not finite.
        """
        settings = settings.model_copy(update=hyper.adaptation())
        losses, seconds, spent = [], [], 0.0
        made: list[np.ndarray] = []
        for index, fold in enumerate(self.folds):
            generator = fold.model.base.generator(self.name)
            hyper.sampling().choose(generator)
            run = adapt_generator(
                generator,
                fold.kept,
                settings,
                rates=fold.model.base.rates(self.name),
                on_check=on_check if index == 0 else lambda _step, _loss: None,
            )
            seconds.append(run["seconds"])
            losses.append(mean_loss(generator, fold.held, settings))
            if needs_showers(self.objectives):
                started = time.perf_counter()
                made += self._generated(replace(fold.model, generators={self.name: generator}), fold, settings)
                spent += time.perf_counter() - started
        weights = [len(fold.conditions) for fold in self.folds]
        found = {"loss": float(np.average(losses, weights=weights)), "seconds": float(np.mean(seconds))}
        if not np.isfinite(found["loss"]):
            raise MetacaloError("the loss of the held-back shots is not finite")
        return found | (self._distances(np.concatenate(made), spent) if made else {})

    def _generated(self, model: ShowerModel, fold: _Fold, settings: MethodSettings) -> Iterator[np.ndarray]:
        at = [np.repeat(x, self.showers_per_shot) for x in _conditions(fold.conditions)]
        parts = model.batches(self.name, *at, seed=settings.seed, device=settings.device, autocast=settings.autocast)
        for part in parts:
            yield part.showers

    def _distances(self, showers: np.ndarray, spent: float) -> dict[str, float]:
        energy = np.repeat(self.shots.energy, self.showers_per_shot)
        wanted = observables(self.shots.showers, self.shots.energy).features()[0]
        reference, sample = standardise(wanted, observables(showers, energy).features()[0])
        found = {"w1": float(wasserstein1(reference, sample).mean()), "shower_ms": 1e3 * spent / len(showers)}
        if "fpd" in self.objectives:
            found["fpd"] = fpd(reference, sample).value
        return found


def _conditions(showers: Showers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return showers.energy, showers.theta, showers.phi
