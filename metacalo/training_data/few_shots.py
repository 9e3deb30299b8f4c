"""Tasks as adaptation meets a new detector: behind a normaliser of few showers, which the inner loop sees again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from metacalo.config import Settings
from metacalo.errors import ShowerFileError
from metacalo.normaliser.preprocessing import AnyNormaliser, DetectorPrior, Preprocessing
from metacalo.normaliser.response import convention_scale
from metacalo.showers.shower_file import Showers
from metacalo.showers.tasks import Task
from metacalo.training_data.distribution import Window
from metacalo.training_data.episodes import Episode, TaskStream, cut_episode
from metacalo.training_data.shower_pool import ShowerPool

__all__ = ["FewShotSettings", "FewShotStream", "FewShots", "draw_few_shots"]

_FEWEST_SHOWERS = 4  # of a task: two shots and two others
_MOST_SHOWERS = 1200  # of a task that are encoded behind each of its normalisers


class FewShotSettings(Settings):
    """Which normalisers of few showers the episodes of a task are behind."""

    shots: tuple[int, int] = Field(
        default=(30, 400), description="fewest and most showers of a normaliser; at most half of those of a task"
    )
    draws: int = Field(
        default=2, ge=0, description="normalisers of each task; 0 = episodes are behind the one of all its showers"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not 2 <= self.shots[0] <= self.shots[1]:
            message = f"shots = {list(self.shots)}: the fewest (2 at least) and the most are needed, in this order"
            raise ValueError(message)
        return self


@dataclass(frozen=True)
class FewShots:
    """Showers of a task behind a normaliser of some of them.

    Attributes:
        pool: all of them.
        shots: rows that the normaliser was fitted on.
        others: the other rows.
    """

    pool: ShowerPool
    shots: Tensor
    others: Tensor


class FewShotStream(TaskStream):
    """A stream whose episodes are what adaptation has to solve; mixed batches are as ever.

    Latents of the shots that a normaliser was fitted on are more normal than those of showers that it has not seen. An
    inner loop that steps on the former and is judged on the latter learns to make of few shots what holds for others.

    Args:
        task: see `TaskStream`.
        normaliser: of all showers, for mixed batches.
        rows: see `TaskStream`.
        capacity: see `TaskStream`.
        met: of which each episode takes one, all alike.
        cells: see `ShowerPool`.
        seed: see `TaskStream`.
        thread: see `TaskStream`.
    """

    def __init__(
        self,
        task: Task,
        normaliser: AnyNormaliser,
        rows: np.ndarray,
        capacity: int,
        met: Sequence[FewShots],
        *,
        cells: bool = True,
        seed: int = 0,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        super().__init__(task, normaliser, rows, capacity, cells=cells, seed=seed, thread=thread)
        self._met = tuple(met)

    def draw_episode(
        self,
        *,
        inner_steps: int,
        support: int,
        query: int,
        generator: torch.Generator,
        within: Window | None = None,
    ) -> Episode:
        """An episode behind one of the normalisers: support from its shots, query from the others, with replacement.

        Windows are for other streams: `within` must be None.
        """
        if within is not None:
            raise ValueError("an episode of few shots has no window")
        met = self._met[int(torch.randint(len(self._met), (1,), generator=generator))]
        rows = [
            among[torch.randint(len(among), (n,), generator=generator)]
            for among, n in ((met.shots, inner_steps * support), (met.others, query))
        ]
        return cut_episode(self.task.name, met.pool.batch(torch.cat(rows), generator), inner_steps, support)

    def skip_episode(self, *, inner_steps: int, support: int, query: int) -> None:
        """Nothing: showers of episodes are not counted here."""


def draw_few_shots(
    task: Task,
    showers: Showers,
    prior: DetectorPrior,
    preprocessing: Preprocessing,
    settings: FewShotSettings,
    rng: np.random.Generator,
    *,
    cells: bool = True,
) -> list[FewShots]:
    """Showers of a task behind normalisers of few of them, as `metacalo adapt` fits them.

    Args:
        task: its detector gives the prediction.
        showers: of the task; at most 1,200 are used.
        prior: predicts the normaliser. It knows the task, so that predictions are better than for a new detector.
        preprocessing: fits the normalisers.
        settings: how many showers each has, log-uniform.
        rng: draws the shots.
        cells: see `ShowerPool`.

    Raises:
        ShowerFileError: the task has fewer than four showers.
    """
    if len(showers) < _FEWEST_SHOWERS:
        raise ShowerFileError(
            f"{task.path}: task '{task.name}' has {len(showers)} showers to train on, and episodes of few shots need "
            f"{_FEWEST_SHOWERS}: two shots and others to judge by; leave the task out or set few_shots.draws = 0"
        )
    showers = showers[: min(len(showers), _MOST_SHOWERS)]
    fewest, most = (min(n, max(2, len(showers) // 2)) for n in settings.shots)
    met = []
    for _ in range(settings.draws):
        n = round(float(np.exp(rng.uniform(np.log(fewest), np.log(most)))))
        order = rng.permutation(len(showers))
        shots = showers.select(np.sort(order[:n]))
        scale = convention_scale(shots.showers, shots.energy)
        guess = prior.predict(torch.from_numpy(task.detector.descriptors()), scale=scale)
        pool = ShowerPool(showers, preprocessing.fit(shots, prior=guess), task.detector, cells=cells)
        met.append(FewShots(pool, *(torch.from_numpy(np.sort(part)) for part in (order[:n], order[n:]))))
    return met
