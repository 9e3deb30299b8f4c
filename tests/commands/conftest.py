from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metacalo.adapt import AdaptResult, AdaptSettings, adapt
from metacalo.model_folders.base import Base, resolve_base
from metacalo.showers import Showers, write_showers
from tests.samples import shipped

BASE = "base-no-pblar"
"""The shipped base that has never seen PbLAr."""
SHOTS = 60
SHORT = AdaptSettings(base=BASE, shots=SHOTS, steps=6, check_every=2, patience=3, compared_showers=20)


@pytest.fixture(scope="session")
def base() -> Base:
    return resolve_base(BASE)


@pytest.fixture(scope="session")
def pblar() -> Showers:
    """120 Geant4 showers of PbLAr at all energies."""
    return shipped("pblar", np.arange(0, 28 * 120, 28))


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory, pblar: Showers) -> Path:
    """Those showers as a file that describes its detector."""
    path = tmp_path_factory.mktemp("sample") / "sample.h5"
    write_showers(path, pblar)
    return path


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> AdaptResult:
    """Both generators adapted to 60 of the 120 showers."""
    return adapt(sample, tmp_path_factory.mktemp("adapted") / "model", SHORT, command="metacalo adapt --shots 60")


@pytest.fixture
def short() -> AdaptSettings:
    """The settings of `adapted`."""
    return SHORT
