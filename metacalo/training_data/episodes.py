"""Where training showers come from: streams of the showers of tasks, and their episodes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from threading import Event

import numpy as np
import torch
from torch import Tensor

from metacalo.generators.base import Batch
from metacalo.normaliser.preprocessing import AnyNormaliser
from metacalo.showers.shower_file import ShowerFile, Showers
from metacalo.showers.tasks import Task
from metacalo.training_data.distribution import Window
from metacalo.training_data.portions import Portions
from metacalo.training_data.read_ahead import ReadAhead, StoppedError
from metacalo.training_data.shower_pool import ShowerPool, mixed_batch

__all__ = ["Episode", "TaskStream", "cut_episode", "is_reserved"]

_READ = 512  # showers of a task that are in memory in MeV while a portion of it is read


def is_reserved(hashes: np.ndarray, one_in: int) -> np.ndarray:
    """Rows kept out of training for evaluation: one in `one_in` by content hash, the same whatever the file."""
    return hashes.astype(np.uint64) % np.uint64(one_in) == 0 if one_in else np.zeros(len(hashes), bool)


class TaskStream:
    """The training rows of a task, through a pool of at most `capacity` showers.

    A task that fits is read once, a larger one portion by portion (see `Portions`), a new one after `capacity` showers
    were drawn; so data larger than memory train, and which portion is read follows from the count of draws.

    Args:
        task: the detector and its showers.
        normaliser: of the task.
        rows: of its file that are trained on, sorted.
        capacity: showers of a portion; of a larger task the next portion is held too, once it is read.
        cells: see `ShowerPool`.
        seed: of what the portions are.
        thread: reads the next portion while one is drawn from; None reads it when it is needed. Draws are the same.
    """

    def __init__(
        self,
        task: Task,
        normaliser: AnyNormaliser,
        rows: np.ndarray,
        capacity: int,
        *,
        cells: bool = True,
        seed: int = 0,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self.task = task
        self._normaliser, self._cells, self._capacity, self._n = normaliser, cells, capacity, len(rows)
        self._file: ShowerFile | None = None
        with task.open() as file:
            self._portions = Portions.of(file, rows, capacity, seed)
        self._ahead = ReadAhead(self._read, thread if len(self._portions) > 1 else None)
        self.drawn = 0
        self._part = -1
        self._pool: ShowerPool | None = None

    def __len__(self) -> int:
        return self._n

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """`n` showers of the present portion."""
        return mixed_batch([self.draw_rows(n, generator)], generator)

    def draw_rows(self, n: int, generator: torch.Generator) -> tuple[ShowerPool, Tensor]:
        """The present portion of the task and `n` of its rows."""
        pool = self._present(n)
        return pool, pool.rows(n, generator)

    def draw_episode(
        self,
        *,
        inner_steps: int,
        support: int,
        query: int,
        generator: torch.Generator,
        within: Window | None = None,
    ) -> Episode:
        """An episode of the present portion, or of a window of energy and angle in it.

        Args:
            inner_steps: support batches.
            support: showers of each.
            query: showers of the query batch; none of them is in a support batch, see `split_rows`.
            generator: draws, dequantises and reflects.
            within: the window.
        """
        pool = self._present(inner_steps * support + query)
        rows = pool.rows_apart(inner_steps * support, query, generator, within)
        drawn = pool.batch(torch.cat(rows), generator)  # what costs time is done once for all
        return cut_episode(self.task.name, drawn, inner_steps, support)

    def skip_episode(self, *, inner_steps: int, support: int, query: int) -> None:
        """Counts the showers of an episode that another process draws."""
        self._count(inner_steps * support + query)

    def _count(self, n: int) -> int:
        """Counts `n` showers as drawn, and returns the portion of the task that they are of."""
        number = self.drawn // self._capacity
        # not past the end of the portion: a large draw must not step over the next one
        self.drawn = min(self.drawn + n, (number + 1) * self._capacity)
        return number if len(self._portions) > 1 else 0

    def _present(self, n: int) -> ShowerPool:
        """The portion of the task from which `n` showers are now drawn."""
        number = self._count(n)
        if self._pool is None or number != self._part:
            self._pool = None  # not in memory beside the next two
            self._pool, self._part = self._ahead.take(number), number
            if len(self._portions) == 1:
                self.close()
        return self._pool

    def _read(self, number: int, stop: Event) -> ShowerPool:
        """A portion of the task; of one stream in one thread at a time, as the file that stays open wants it."""
        rows = self._portions.portion(number)
        file = self._file = self._file or self.task.open()

        def showers() -> Iterator[Showers]:
            for start in range(0, len(rows), _READ):
                if stop.is_set():
                    raise StoppedError
                yield file.load(rows[start : start + _READ])

        return ShowerPool(showers(), self._normaliser, self.task.detector, cells=self._cells)

    def close(self) -> None:
        """Ends what is read ahead and closes the files; what was read stays, and draws go on as ever."""
        self._ahead.close()
        if self._file is not None:
            self._file.close()
        self._file = None


@dataclass(frozen=True)
class Episode:
    """One task's support batches, one per inner step, and its query batch of other showers."""

    task: str
    support: tuple[Batch, ...]
    query: Batch

    def to(self, device: torch.device | str) -> Episode:
        """The same episode on another device."""
        return Episode(self.task, tuple(batch.to(device) for batch in self.support), self.query.to(device))


def cut_episode(task: str, drawn: Batch, inner_steps: int, support: int) -> Episode:
    """An episode of one batch: support batches of so many showers one after another, the rest is the query batch."""
    ends = [support * step for step in range(1, inner_steps + 1)]
    *batches, last = (
        Batch(drawn.latents[start:end], drawn.conditions[start:end]) for start, end in pairwise([0, *ends, len(drawn)])
    )
    return Episode(task, tuple(batches), last)
