"""Where training showers come from: pools of normalised showers, streams of tasks, and their episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from metacalo.generators.base import Batch
from metacalo.meta.distribution import Window, split_rows
from metacalo.showers.conditions import encode_conditions
from metacalo.showers.detector import Detector
from metacalo.showers.encoded import without_correlations
from metacalo.showers.hdf5 import Showers
from metacalo.showers.latents import Latents
from metacalo.showers.preprocessing import AnyNormaliser, Encoded
from metacalo.showers.tasks import Task

__all__ = ["Episode", "ShowerPool", "TaskStream", "cut_episode", "is_reserved", "mixed_batch"]

_CHUNK = 256  # showers that are encoded at a time


def is_reserved(hashes: np.ndarray, one_in: int) -> np.ndarray:
    """Rows kept out of training for evaluation: one in `one_in` by content hash, the same whatever the file."""
    return hashes.astype(np.uint64) % np.uint64(one_in) == 0 if one_in else np.zeros(len(hashes), bool)


class ShowerPool:
    """Normalised showers of one detector in memory, ready to be drawn as batches.

    Draws dequantise anew and reflect at random: y -> -y is an exact symmetry of a shower in the frame of its direction,
    and so is x -> -x together with theta -> pi - theta.

    Args:
        showers: in MeV.
        normaliser: of the detector.
        detector: whose descriptors the condition vectors hold.
        cells: whether the latents of cells are wanted (`ShowerGenerator.sees_cells`).
    """

    def __init__(self, showers: Showers, normaliser: AnyNormaliser, detector: Detector, *, cells: bool = True) -> None:
        energy, theta = (torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in (showers.energy, showers.theta))
        parts = [slice(start, start + _CHUNK) for start in range(0, len(showers), _CHUNK)]
        self.normaliser = normaliser
        self._encoded = _joined(
            [
                normaliser.encode(torch.from_numpy(showers.showers[part]), energy[part], theta[part], cells=cells)
                for part in parts
            ]
        )
        self._energy, self._theta, self._phi = showers.energy, showers.theta, showers.phi
        self._descriptors = detector.descriptors()

    def __len__(self) -> int:
        return len(self._encoded)

    def batch(self, rows: Tensor, generator: torch.Generator, *, reflect: bool = True) -> Batch:
        """The showers of `rows` (n,), dequantised and, unless told otherwise, reflected at random."""
        return mixed_batch([(self, rows)], generator, reflect=reflect)

    def rows(self, n: int, generator: torch.Generator) -> Tensor:
        """`n` row numbers drawn with replacement."""
        return torch.randint(len(self), (n,), generator=generator)

    def rows_apart(
        self, support: int, query: int, generator: torch.Generator, within: Window | None = None
    ) -> tuple[Tensor, Tensor]:
        """Row numbers of `support` and of `query` other showers, see `split_rows`; of a window where one is given."""
        among = torch.arange(len(self))
        if within is not None:
            among = within.rows(self._energy, self._theta, at_least=support + query)
        return split_rows(among, support, query, generator)

    def encoded(self, rows: Tensor) -> Encoded:
        """The showers of `rows` before they are dequantised."""
        return self._encoded[rows]

    def conditions(self, rows: Tensor, mirrored: np.ndarray) -> Tensor:
        """Condition vectors of `rows`; `mirrored` ones have theta -> pi - theta."""
        index = rows.numpy()
        theta = np.where(mirrored, np.pi - self._theta[index], self._theta[index])
        return encode_conditions(self._energy[index], theta, self._phi[index], self._descriptors)


def mixed_batch(
    parts: Sequence[tuple[ShowerPool, Tensor]],
    generator: torch.Generator | Sequence[tuple[int, torch.Generator]],
    *,
    reflect: bool = True,
) -> Batch:
    """One batch of rows of several pools whose normalisers share a copula, pool after pool; see `ShowerPool`.

    What costs time is done once for all, but for what is drawn; correlations of layers go pool by pool.

    Args:
        parts: pools, and the rows (n,) of each.
        generator: dequantises and reflects; or numbers of showers with a generator for each.
        reflect: mirror at random.
    """
    encoded = _joined([pool.encoded(rows) for pool, rows in parts])
    sizes = [len(rows) for _, rows in parts]
    copula = parts[0][0].normaliser.copula
    slices = [(len(encoded), generator)] if isinstance(generator, torch.Generator) else generator
    ends = np.cumsum([n for n, _ in slices]).tolist()
    dequantised = [
        encoded[end - n : end].dequantise(drawn, copula) for end, (n, drawn) in zip(ends, slices, strict=True)
    ]
    latents = Latents.from_flat(torch.cat([part.flat() for part in dequantised]), dequantised[0].grid)
    longitudinal = [pool.normaliser.longitudinal for pool, _ in parts]
    latents = without_correlations(latents, encoded.log_energy, copula, longitudinal, sizes, cells=encoded.with_cells)
    mirrored = np.zeros(len(latents), bool)
    if reflect:
        flip_y, flip_x = torch.cat([torch.rand(2, n, generator=drawn) for n, drawn in slices], dim=1) < 0.5
        latents = _reflect(latents, flip_y, flip_x)
        mirrored = flip_x.numpy() & _even_phi(latents)
    flips = np.split(mirrored, np.cumsum(sizes)[:-1])
    conditions = [pool.conditions(rows, flip) for (pool, rows), flip in zip(parts, flips, strict=True)]
    return Batch(latents, torch.cat(conditions))


def _joined(parts: list[Encoded]) -> Encoded:
    return type(parts[0]).concatenate(parts)


def _even_phi(latents: Latents) -> bool:
    return latents.grid[1] % 2 == 0


def _reflect(latents: Latents, flip_y: Tensor, flip_x: Tensor) -> Latents:
    """Mirrors phi -> -phi where `flip_y`, phi -> pi - phi where `flip_x` (needs an even number of phi cells)."""
    cells = latents.cells
    cells = torch.where(flip_y[:, None, None, None], cells.flip(2), cells)
    if _even_phi(latents):
        mirrored = cells.flip(2).roll(cells.shape[2] // 2, 2)
        cells = torch.where(flip_x[:, None, None, None], mirrored, cells)
    return replace(latents, cells=cells)


class TaskStream:
    """The training rows of a task, through a pool of at most `capacity` showers.

    A task that fits is read once. A larger one is read part by part, a new part after as many showers were drawn as a
    part holds; so a file larger than memory trains, and which part is read follows from the count of draws.
    """

    def __init__(self, task: Task, normaliser: AnyNormaliser, rows: np.ndarray, capacity: int) -> None:
        self.task = task
        self._normaliser, self._rows, self._capacity = normaliser, rows, capacity
        self.drawn = 0
        self._part = -1
        self._pool: ShowerPool | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, n: int, generator: torch.Generator) -> Batch:
        """`n` showers of the present part."""
        return mixed_batch([self.draw_rows(n, generator)], generator)

    def draw_rows(self, n: int, generator: torch.Generator) -> tuple[ShowerPool, Tensor]:
        """The present part of the task and `n` of its rows."""
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
        """An episode of the present part, or of a window of energy and angle in it.

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
        """Counts `n` showers as drawn, and returns the part of the task that they are of."""
        part = self.drawn // self._capacity
        # not past the end of the part: a large draw must not step over the next one
        self.drawn = min(self.drawn + n, (part + 1) * self._capacity)
        return part % -(-len(self._rows) // self._capacity)

    def _present(self, n: int) -> ShowerPool:
        """The part of the task from which `n` showers are now drawn."""
        part = self._count(n)
        if self._pool is None or part != self._part:
            rows = self._rows[part * self._capacity : (part + 1) * self._capacity]
            with self.task.open() as file:
                self._pool = ShowerPool(file.load(rows), self._normaliser, self.task.detector)
            self._part = part
        return self._pool


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
