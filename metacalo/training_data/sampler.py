"""Draws mixed batches and episodes over tasks, for one process or for several that share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from metacalo.errors import ConfigError
from metacalo.generators.base import Batch
from metacalo.runtime.distributed import Ranks
from metacalo.training_data.distribution import draw_window, task_probabilities
from metacalo.training_data.episodes import Episode, TaskStream
from metacalo.training_data.shower_pool import ShowerPool, mixed_batch

__all__ = ["EpisodeSampler", "draw_generators"]

_ALONE = Ranks()


def draw_generators(n: int, generator: torch.Generator) -> list[torch.Generator]:
    """`n` generators seeded by one: what is drawn from each does not depend on who draws from the others."""
    seeds = torch.randint(2**62, (n,), generator=generator).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


class EpisodeSampler:
    """Draws mixed batches and episodes from task streams.

    A task is drawn with probability proportional to a power of its number of showers. With the square root a family
    member with few showers is seen often enough, and is not worn out.

    Args:
        streams: one for each task.
        generator: of all that is drawn.
        exponent: the power; 0 = all tasks alike, 1 = all showers alike.
        windows: share of the episodes that are restricted to a window of energy and angle, so that they differ within
            a detector as well.
        window_width: see `Window`.
        slices: parts of a mixed batch that are drawn from generators of their own, as each episode is, so that several
            processes can each draw some and together draw what one does.
        ranks: those processes.

    Attributes:
        showers: drawn so far, by all processes.
    """

    def __init__(
        self,
        streams: Sequence[TaskStream],
        generator: torch.Generator,
        *,
        exponent: float = 0.5,
        windows: float = 0.0,
        window_width: float = 0.5,
        slices: int = 1,
        ranks: Ranks = _ALONE,
    ) -> None:
        self._slices, self._ranks = slices, ranks
        self.showers = 0
        self._streams = list(streams)
        self._probabilities = task_probabilities([len(stream) for stream in streams], exponent)
        self._windows, self._window_width = windows, window_width
        self.generator = generator

    def weights(self) -> dict[str, float]:
        """Probability of each task."""
        named = zip(self._streams, self._probabilities.tolist(), strict=True)
        return {stream.task.name: probability for stream, probability in named}

    def _tasks(self, n: int) -> list[int]:
        drawn = torch.multinomial(self._probabilities, n, replacement=True, generator=self.generator)
        return [int(index) for index in drawn]

    def mixed_batch(self, n: int) -> Batch:
        """The share of this process in `n` showers of tasks drawn one by one; see `Batch.whole`.

        Raises:
            ConfigError: there are more processes than slices, or than showers.
        """
        self.showers += n
        counts = np.bincount(self._tasks(n), minlength=len(self._streams))
        draws = [
            stream.draw_rows(int(count), self.generator)
            for stream, count in zip(self._streams, counts, strict=True)
            if count
        ]
        slices = min(self._slices, n)
        if slices < self._ranks.world:
            raise ConfigError(
                f"{n} showers in {self._slices} slices are not enough for {self._ranks.world} processes; "
                "give the batch more showers, and set slices to a multiple of the processes"
            )
        ends = [n * i // slices for i in range(slices + 1)]
        drawn = draw_generators(slices, self.generator)
        own = self._ranks.share(slices)
        start, stop = ends[own.start], ends[own.stop]
        batch = mixed_batch(_cut(draws, start, stop), [(ends[i + 1] - ends[i], drawn[i]) for i in own])
        return replace(batch, start=start, total=n)

    def episodes(self, n: int, *, inner_steps: int, support: int, query: int) -> list[Episode]:
        """The share of this process in `n` episodes, each of one task; see `TaskStream.draw_episode`."""
        own, found = self._ranks.share(n), []
        self.showers += n * (inner_steps * support + query)
        sizes = {"inner_steps": inner_steps, "support": support, "query": query}
        tasks = self._tasks(n)
        for i, (index, generator) in enumerate(zip(tasks, draw_generators(n, self.generator), strict=True)):
            if i in own:
                within = draw_window(self._windows, self._window_width, generator)
                found.append(self._streams[index].draw_episode(**sizes, generator=generator, within=within))
            else:
                self._streams[index].skip_episode(**sizes)
        return found

    def state(self) -> dict[str, Tensor]:
        """All that decides what is drawn next."""
        return {
            "generator": self.generator.get_state(),
            "drawn": torch.tensor([stream.drawn for stream in self._streams]),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        self.generator.set_state(state["generator"])
        for stream, drawn in zip(self._streams, state["drawn"].tolist(), strict=True):
            stream.drawn = int(drawn)


def _cut(draws: Sequence[tuple[ShowerPool, Tensor]], start: int, stop: int) -> list[tuple[ShowerPool, Tensor]]:
    """The rows from `start` to `stop` of all rows, pool after pool."""
    kept, first = [], 0
    for pool, rows in draws:
        chosen = rows[max(0, start - first) : max(0, stop - first)]
        if len(chosen):
            kept.append((pool, chosen))
        first += len(rows)
    return kept
