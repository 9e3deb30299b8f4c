from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metacalo.showers import Showers
from tests.evaluate.library import library
from tests.samples import shipped


@pytest.fixture(scope="session")
def geant4() -> Showers:
    """800 Geant4 showers of PbLAr."""
    return shipped("pblar", slice(0, 800))


@pytest.fixture(scope="session")
def halves(geant4) -> tuple[Showers, Showers]:
    return geant4.select(np.arange(0, 800, 2)), geant4.select(np.arange(1, 800, 2))


@pytest.fixture(scope="session")
def frozen(halves) -> Showers:
    """400 showers of a library of 50, all of them from the first half."""
    return library(halves[0].select(np.arange(50)), 400)


@pytest.fixture(scope="session")
def too_much(halves) -> Showers:
    """The second half with a response that is 10 % too large."""
    return replace(halves[1], showers=halves[1].showers * np.float32(1.1))
