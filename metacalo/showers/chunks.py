"""How rows lie on the disk: which of them are decompressed together, and how many are read at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metacalo.showers.shards import ShowerDataset

__all__ = ["pieces", "runs"]

LARGEST_BLOCK: Final = 64 * 2**20
"""Bytes that are decompressed at a time."""
NEAR: Final = 64
"""Rows of a dataset without chunks that are read along rather than passed by."""


def runs(dataset: ShowerDataset, rows: NDArray[np.int64]) -> Iterator[slice]:
    """Cuts sorted `rows` (n,) of a dataset so that a read from the first to the last row of a run wastes nothing.

    No chunk without a wanted row lies within a run, and none is read that takes more than `LARGEST_BLOCK` bytes, or
    one chunk where that is larger.
    """
    if len(rows) == 0:
        return
    chunk, block = dataset.chunks[0] if dataset.chunks else NEAR, _block_rows(dataset)
    cuts = (np.diff(rows // chunk) > 1) | (np.diff(rows // block) > 0)
    ends = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(rows)]
    yield from (slice(first, last) for first, last in pairwise(ends))


def pieces(datasets: Sequence[ShowerDataset], rows: NDArray[np.int64], at_most: int) -> NDArray[np.int64]:
    """For each of sorted `rows` (n,) of datasets one after another, the number of the piece that it lies in.

    A piece is of one dataset, of at most `at_most` rows, and of whole chunks unless a single chunk has more.
    """
    numbers, start, before = np.empty(len(rows), np.int64), 0, 0
    for dataset in datasets:
        first, last = np.searchsorted(rows, (start, start + len(dataset)))
        size = _whole_chunks(dataset, at_most)
        numbers[first:last] = before + (rows[first:last] - start) // size
        start, before = start + len(dataset), before + -(-len(dataset) // size)
    return numbers


def _whole_chunks(dataset: ShowerDataset, at_most: int) -> int:
    """The most rows up to `at_most` that are whole chunks; `at_most` where a single chunk has more."""
    chunk = dataset.chunks[0] if dataset.chunks else 1
    return at_most // chunk * chunk or at_most


def _block_rows(dataset: ShowerDataset) -> int:
    row_bytes = max(1, int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize)
    at_most = max(1, LARGEST_BLOCK // row_bytes)
    return _whole_chunks(dataset, at_most)
