"""A task that does not fit in memory, dealt out into portions each of which looks like the whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metacalo.showers.chunks import pieces
from metacalo.showers.shower_file import ShowerFile

__all__ = ["Portions"]

_PIECE = 64  # showers side by side in a file that are dealt together: whole chunks of files that metacalo writes
_FEWEST_PIECES = 32  # of a portion, where chunks allow it


@dataclass(frozen=True)
class Portions:
    """The training rows of a task in portions of at most `capacity` showers.

    Files are often sorted by energy, or there is one for each energy. So a portion is no run of rows: the rows are cut
    into pieces (a few whole chunks, that none is decompressed twice), neighbouring pieces go to different portions, and
    each portion has pieces from all along the sample, in an order drawn at random. Every pass over them deals
    them anew; what is dealt follows from the seed and the number of the pass. A sample that fits is one, its rows
    in their order.

    Attributes:
        rows: of the file, sorted, int64 (n,).
        capacity: showers of a portion at most.
        seed: of what is dealt.
        starts: first row of each piece and the end of the last, int64; only two for a sample that fits.
        per_portion: pieces of a portion at most.
    """

    rows: NDArray[np.int64]
    capacity: int
    seed: int
    starts: NDArray[np.int64]
    per_portion: int

    @classmethod
    def of(cls, file: ShowerFile, rows: NDArray[np.int64], capacity: int, seed: int = 0) -> Portions:
        """Deals out sorted `rows` of a file."""
        if len(rows) <= capacity:
            return cls(rows, capacity, seed, np.array([0, len(rows)]), 1)
        size = min(_PIECE, max(1, capacity // _FEWEST_PIECES))
        piece = pieces(file.datasets, rows, size)
        starts = np.concatenate([[0], np.flatnonzero(np.diff(piece)) + 1, [len(rows)]])
        return cls(rows, capacity, seed, starts, capacity // size)

    def sample(self) -> NDArray[np.int64]:
        """Up to `capacity` rows from all along the sample; all of them, in their order, where they fit."""
        return np.concatenate([self.portion(number) for number in range(min(2, len(self)))])[: self.capacity]

    def __len__(self) -> int:
        """Portions of one pass."""
        return -(-(len(self.starts) - 1) // self.per_portion)

    def portion(self, number: int) -> NDArray[np.int64]:
        """Rows of that portion; numbers count on from pass to pass."""
        of_pass, index = divmod(number, len(self))
        if len(self) == 1:
            return self.rows
        rng = np.random.default_rng((self.seed, of_pass))
        n_pieces = len(self.starts) - 1
        rounds = -(-n_pieces // len(self))
        dealt_to = rng.permuted(np.tile(np.arange(len(self)), (rounds, 1)), axis=1).reshape(-1)[:n_pieces]
        order = np.random.default_rng((self.seed, of_pass, index)).permutation(np.flatnonzero(dealt_to == index))
        return np.concatenate([self.rows[self.starts[piece] : self.starts[piece + 1]] for piece in order])
