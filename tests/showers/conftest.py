from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from metacalo.showers import Showers, Task, discover_tasks
from tests.samples import shipped, write_plain


@pytest.fixture(scope="session")
def tasks() -> dict[str, Task]:
    return discover_tasks()


@pytest.fixture(scope="session")
def siw() -> Showers:
    """Twelve showers of the SiW task."""
    return shipped("siw", slice(0, 12))


@pytest.fixture(scope="session")
def emptied_siw() -> Showers:
    """300 showers of SiW, the first of them emptied."""
    showers = shipped("siw", slice(0, 300))
    showers.showers[0] = 0
    return showers


@pytest.fixture(scope="session")
def rings(emptied_siw: Showers) -> torch.Tensor:
    """Ring energies of `emptied_siw`, (n, r, z)."""
    return torch.from_numpy(emptied_siw.showers).sum(2)


@pytest.fixture
def par04(tmp_path: Path, siw: Showers) -> Path:
    """A plain Par04 file as other programs write it: no attributes, contiguous, float32."""
    return write_plain(tmp_path / "plain.h5", siw)


def replace_dataset(path: Path, name: str, values: np.ndarray | None) -> None:
    """Puts other values into a file, or takes the dataset away."""
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if values is not None:
            file[name] = values


@pytest.fixture
def change():
    return replace_dataset
