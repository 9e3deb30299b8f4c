"""Normalised showers in memory, and mixed batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from metacalo.detectors.detector import Detector
from metacalo.generators.base import Batch
from metacalo.normaliser.condition_vector import encode_conditions
from metacalo.normaliser.encoded import without_correlations
from metacalo.normaliser.latents import Latents
from metacalo.normaliser.preprocessing import AnyNormaliser, Encoded
from metacalo.showers.shower_file import Showers
from metacalo.training_data.distribution import Window, split_rows
from metacalo.training_data.reflection import has_image_in_x, reflected

__all__ = ["ShowerPool", "mixed_batch"]

_CHUNK = 256  # showers that are encoded at a time


class ShowerPool:
    """Normalised showers of one detector in memory, ready to be drawn as batches.

    Draws dequantise anew and reflect at random: y -> -y is an exact symmetry of a shower in the frame of its direction,
    and so is x -> -x together with theta -> pi - theta.

    Args:
        showers: in MeV; or some after others, where not all should be in memory at once.
        normaliser: of the detector.
        detector: whose descriptors the condition vectors hold.
        cells: whether the latents of cells are wanted (`ShowerGenerator.sees_cells`).
    """

    def __init__(
        self, showers: Showers | Iterable[Showers], normaliser: AnyNormaliser, detector: Detector, *, cells: bool = True
    ) -> None:
        encoded, incident = [], []
        for some in [showers] if isinstance(showers, Showers) else showers:
            energy, theta = (torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in (some.energy, some.theta))
            for start in range(0, len(some), _CHUNK):
                part = slice(start, start + _CHUNK)
                voxels = torch.from_numpy(some.showers[part])
                encoded.append(normaliser.encode(voxels, energy[part], theta[part], cells=cells))
            incident.append((some.energy, some.theta, some.phi))
        self.normaliser = normaliser
        self._encoded = _joined(encoded)
        self._energy, self._theta, self._phi = (np.concatenate(values) for values in zip(*incident, strict=True))
        self._descriptors = detector.descriptors()

    def __len__(self) -> int:
        return len(self._encoded)

    def batch(self, rows: Tensor, generator: torch.Generator, *, reflect: bool = True) -> Batch:
        """The showers of `rows` (n,), dequantised and, by default, reflected at random."""
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
    draws: Sequence[tuple[ShowerPool, Tensor]],
    generator: torch.Generator | Sequence[tuple[int, torch.Generator]],
    *,
    reflect: bool = True,
) -> Batch:
    """One batch of rows of several pools whose normalisers share a copula, pool after pool; see `ShowerPool`.

    What costs time is done once for all, but for what is drawn; correlations of layers go pool by pool.

    Args:
        draws: pools, and the rows (n,) of each.
        generator: dequantises and reflects; or numbers of showers with a generator for each.
        reflect: mirror at random.
    """
    encoded = _joined([pool.encoded(rows) for pool, rows in draws])
    sizes = [len(rows) for _, rows in draws]
    copula = draws[0][0].normaliser.copula
    slices = [(len(encoded), generator)] if isinstance(generator, torch.Generator) else generator
    ends = np.cumsum([n for n, _ in slices]).tolist()
    dequantised = [
        encoded[end - n : end].dequantise(drawn, copula) for end, (n, drawn) in zip(ends, slices, strict=True)
    ]
    latents = Latents.from_flat(torch.cat([part.flat() for part in dequantised]), dequantised[0].grid)
    longitudinal = [pool.normaliser.longitudinal for pool, _ in draws]
    latents = without_correlations(latents, encoded.log_energy, copula, longitudinal, sizes, cells=encoded.with_cells)
    mirrored = np.zeros(len(latents), bool)
    if reflect:
        flip_y, flip_x = torch.cat([torch.rand(2, n, generator=drawn) for n, drawn in slices], dim=1) < 0.5
        if encoded.with_cells:  # the rest of a shower is that of its images
            latents = reflected(latents, flip_y, flip_x)
        mirrored = flip_x.numpy() & has_image_in_x(latents)
    flips = np.split(mirrored, np.cumsum(sizes)[:-1])
    conditions = [pool.conditions(rows, flip) for (pool, rows), flip in zip(draws, flips, strict=True)]
    return Batch(latents, torch.cat(conditions))


def _joined(parts: list[Encoded]) -> Encoded:
    return type(parts[0]).concatenate(parts)
