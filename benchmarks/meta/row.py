"""One row of the meta-learning study: a base adapted to shots by one method, and what unseen showers say of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.fidelity.row import BATCH, split
from benchmarks.meta.training import StudySettings, TrainedBase
from metacalo.adapt import AdaptSettings
from metacalo.adaptation.adapt_generator import adapt_generator
from metacalo.adaptation.methods import Method
from metacalo.evaluate.metrics import fpd, standardise, wasserstein1
from metacalo.evaluate.observables import observables
from metacalo.generators.base import ShowerGenerator, bf16
from metacalo.generators.diffusion import Diffusion, LossWeights
from metacalo.model_folders.adapted import ShowerModel, zero_shot
from metacalo.model_folders.base import Base
from metacalo.normaliser.preprocessing import PREPROCESSING, AnyNormaliser, PreprocessingName
from metacalo.normaliser.response import convention_scale
from metacalo.showers.shower_file import Showers
from metacalo.showers.tasks import Task
from metacalo.training_data.shower_pool import ShowerPool

__all__ = ["BOUND", "FROM_SCRATCH", "Detector", "Wanted", "compared", "distances", "measure"]

FROM_SCRATCH: Mapping[str, PreprocessingName] = {"scratch": "tables", "usual": "log"}
"""In the place of an algorithm, fresh weights: behind metacalo's normaliser or the usual one, of the shots alone."""

BOUND = "bound"
"""In the place of an algorithm, multi-task training moved by all showers of the detector that are not compared with,
under the normaliser of the shots: what better weights could gain at most, by whatever way they come about."""

_USUAL_STEPS = 8  # of sampling, whose paths are not straight where latents are not white
_CELLS = LossWeights(total=0, layers=0, rings=0, hits=0, cells=1)  # all that the usual preprocessing has

_DRAWS = 4  # of the loss's noise, for each unseen shower
_LEAST = 1e-6  # of a distance whose logarithm is taken


class Wanted(NamedTuple):
    """A row that is wanted."""

    heldout: str
    algorithm: str
    method: Method
    shots: int
    seed: int

    @property
    def key(self) -> str:
        """Its name in table.json."""
        return " | ".join(map(str, self))


class Detector:
    """A held-out detector: shots and unseen showers by seed, and the normalisers that all rows share.

    Args:
        task: its showers.
        base: that of the baseline; all bases have the same hyperprior.
        settings: see `StudySettings`.
    """

    def __init__(self, task: Task, base: Base, settings: StudySettings) -> None:
        self.task, self._base, self._settings = task, base, settings
        self.split = lru_cache(maxsize=2)(self._split)
        self.fitted = lru_cache(maxsize=2)(self._fitted)
        self.unmoved = lru_cache(maxsize=2)(self._unmoved)
        self._cells = base.generator(settings.generator).sees_cells

    def _split(self, shots: int, seed: int) -> tuple[Showers, Showers]:
        """Shots and unseen showers."""
        with self.task.open() as file:
            never = np.zeros(len(file), bool)
            rows = split(never, shots, seed, self._settings.showers)
            return file.load(rows[0]), file.load(rows[1])

    def _fitted(
        self, shots: int, seed: int, alone: PreprocessingName | None = None
    ) -> tuple[AnyNormaliser, ShowerPool, float]:
        """Normaliser, the unseen showers under it, and the seconds it took.

        It is the base's guess moved by the shots, if any, or one of the shots `alone`.
        """
        given, unseen = self.split(shots, seed)
        started = time.perf_counter()
        if shots == 0:
            normaliser = self.before(given).normaliser
        else:
            guess = self.before(given).normaliser if alone is None else None
            normaliser = (self._base.preprocessing if alone is None else PREPROCESSING[alone]).fit(given, prior=guess)
        seconds = time.perf_counter() - started
        return normaliser, self.pool(unseen, normaliser), seconds

    def _unmoved(self, shots: int, seed: int) -> float:
        """Loss of the unseen showers before the first step, under the normaliser of the shots."""
        _, pool, _ = self.fitted(shots, seed)
        return unseen_loss(self._base.generator(self._settings.generator), pool, self._settings.device)

    def pool(self, showers: Showers, normaliser: AnyNormaliser) -> ShowerPool:
        """Showers under a normaliser, ready for the study's generator."""
        return ShowerPool(showers, normaliser, self.task.detector, cells=self._cells)

    def all_but(self, unseen: Showers) -> Showers:
        """All showers of the detector that are not among `unseen`."""
        with self.task.open() as file:
            return file.load(np.flatnonzero(~np.isin(file.hashes(), unseen.hashes())))

    def before(self, shots: Showers) -> ShowerModel:
        """The base's own guess, in the energy convention of the shots."""
        scale = convention_scale(shots.showers, shots.energy) if len(shots) else 1.0
        return zero_shot(self._base, self.task.detector, scale=scale)


def measure(wanted: Wanted, trained: TrainedBase, detector: Detector, settings: StudySettings) -> dict[str, Any]:
    """All figures of a row.

    The loss is that of unseen showers under the normaliser of the row, with noise that all rows share: between rows of
    the same detector, shots and seed it differs by the network alone. Distances are of standardised observables.
    """
    alone = FROM_SCRATCH.get(wanted.algorithm)
    fresh, bound = alone is not None, wanted.algorithm == BOUND
    shots, unseen = detector.split(wanted.shots, wanted.seed)
    normaliser, unseen_pool, fit_seconds = detector.fitted(wanted.shots, wanted.seed, alone)
    settled = settings.adaptation(wanted.method, wanted.seed)
    name = settings.generator
    generator = trained.base.generator(name) if alone is None else _fresh(name, trained.base, alone, wanted.seed)
    record: dict[str, Any] = {"seconds": 0.0, "steps": 0, "best_step": 0, "checks": [], "parameters": {"share": 0.0}}
    if wanted.shots:
        pool = detector.pool(detector.all_but(unseen) if bound else shots, normaliser)
        settled = _patient(settled, settings, settled.highest_rate if bound else 1e-3) if fresh or bound else settled
        record = adapt_generator(generator, pool, settled, rates={} if fresh else trained.base.rates(name))
    model = ShowerModel(trained.base, detector.task.detector, normaliser, {name: generator})
    return {
        **wanted._asdict(),
        "loss": unseen_loss(generator, unseen_pool, settings.device),
        "unmoved": None if fresh else detector.unmoved(wanted.shots, wanted.seed),
        **distances(model, name, unseen, wanted.seed, settings.device),
        "seconds": {"normaliser": fit_seconds, "network": record["seconds"]},
        "steps": {"taken": record["steps"], "best": record["best_step"]},
        "checks": record["checks"],
        "share": record["parameters"]["share"],
    }


def _fresh(name: str, base: Base, alone: PreprocessingName, seed: int) -> ShowerGenerator:
    """The same network with fresh weights, reading and writing the latents of the preprocessing."""
    torch.manual_seed(seed)
    if alone == "log":
        settings = base.config.diffusion.model_copy(update={"weights": _CELLS, "steps": _USUAL_STEPS})
        return Diffusion(settings, base.config.grid, base.config.condition_size)
    return base.fresh(name)


def _patient(usual: AdaptSettings, settings: StudySettings, rate: float) -> AdaptSettings:
    """Adaptation's schedule stretched for a network that knows nothing, or for all showers."""
    return usual.model_copy(
        update={"steps": settings.scratch_steps, "learning_rate": rate, "patience": 5, "check_every": 15}
    )


@torch.no_grad()
def unseen_loss(generator: ShowerGenerator, pool: ShowerPool, device: str) -> float:
    """Mean loss over all showers of the pool, the same noise every time."""
    generator.eval().to(device)
    noise = torch.Generator().manual_seed(11)
    losses = []
    for rows in torch.split(torch.arange(len(pool)), 250):
        batch = pool.batch(rows, noise, reflect=False).to(device)
        with bf16(device):
            losses += [(float(generator.loss(batch, noise)), len(rows)) for _ in range(_DRAWS)]
    return sum(loss * n for loss, n in losses) / sum(n for _, n in losses)


def distances(model: ShowerModel, name: str, unseen: Showers, seed: int, device: str) -> dict[str, float]:
    """Means of W1 over observables, arithmetic and geometric, and FPD, of a generated shower for each unseen one."""
    incident = (unseen.energy, unseen.theta, unseen.phi)
    parts = model.generate(name, *incident, seed=seed, batch_size=BATCH, device=device)
    sample = np.concatenate([part.showers for part in parts])
    return compared(unseen, Showers(sample, *incident, unseen.detector))


def compared(unseen: Showers, others: Showers) -> dict[str, float]:
    """Distances of `others` from `unseen`; the observables are in the standard deviations of `unseen`."""
    features = (observables(part.showers, part.energy).features()[0] for part in (unseen, others))
    theirs, ours = standardise(*features)
    w1 = wasserstein1(theirs, ours)
    return {
        "w1": float(w1.mean()),
        "geometric_w1": float(np.exp(np.log(np.maximum(w1, _LEAST)).mean())),
        "fpd": fpd(theirs, ours).value,
    }
