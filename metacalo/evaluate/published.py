"""Published figures of other generators, as context: they are of other samples and cannot be ranked with yours."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["CALOCHALLENGE_2", "CALOCHALLENGE_SOURCE", "Published"]


class Published(NamedTuple):
    """One line of CaloChallenge's result table for dataset 2 (None: not given).

    Attributes:
        model: name of the generator.
        parameters: how many, in millions.
        fpd: Frechet physics distance, times 1000.
        low_level_auc, high_level_auc: of classifiers on voxels and on observables against Geant4.
        single_ms, batch_ms: milliseconds a shower on a CPU, in batches of 1 and of 100.
    """

    model: str
    parameters: float | None
    fpd: float
    low_level_auc: float
    high_level_auc: float
    single_ms: float | None
    batch_ms: float | None


CALOCHALLENGE_SOURCE: Final = (
    "CaloChallenge 2022: a community challenge for fast calorimeter simulation, arXiv:2410.21611"
)

CALOCHALLENGE_2: Final[tuple[Published, ...]] = (
    Published("Geant4 against itself", None, 10.8, 0.500, 0.499, None, None),
    Published("CaloDREAM", 28.4, 24.7, 0.531, 0.521, 16_940, 5_052),
    Published("CaloDiffusion", 0.52, 147, 0.577, 0.591, 36_500, 23_320),
    Published("conv. L2LFlows", 158, 157, 0.708, 0.737, 1_969, 121),
    Published("Calo-VQ", 1.2, 1_316, 0.986, 0.994, 168, 26),
    Published("CaloDiT (400 steps)", 1.2, 1_691, 0.984, 0.912, 24_640, 33_350),
)
"""Dataset 2: 9 x 16 x 45 cells, 100,000 showers of one detector (SiW), electrons of 1 to 1000 GeV."""
