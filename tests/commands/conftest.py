from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from metacalo.adapt import AdaptResult, AdaptSettings, adapt
from metacalo.cli import main
from metacalo.model_folders.base import Base, resolve_base
from metacalo.showers import Showers, data_folder, open_showers, write_showers

BASE = "base-no-pblar"
"""The shipped base that has never seen PbLAr."""
SHOTS = 60
SHORT = AdaptSettings(base=BASE, shots=SHOTS, steps=6, check_every=2, patience=3, compared_showers=20)


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs `metacalo` with those arguments in this process, through its entry point."""

    monkeypatch.setattr(os, "_exit", sys.exit)  # of a command that was interrupted

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["metacalo", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def process() -> Callable[..., Ran]:
    """Runs `metacalo` with those arguments as a user does: in a process of its own."""

    def run(*arguments: object) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "metacalo.cli", *map(str, arguments)],
            cwd=data_folder("tasks").parent,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def base() -> Base:
    return resolve_base(BASE)


@pytest.fixture(scope="session")
def pblar() -> Showers:
    """120 Geant4 showers of PbLAr at all energies."""
    with open_showers(data_folder("tasks") / "pblar" / "showers.h5") as file:
        return file.load(np.arange(0, 28 * 120, 28))


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory, pblar: Showers) -> Path:
    """Those showers as a file that describes its detector."""
    path = tmp_path_factory.mktemp("sample") / "sample.h5"
    write_showers(path, pblar)
    return path


def write_plain(path: Path, showers: Showers, factor: float = 1.0) -> Path:
    """Showers (times `factor`) as other programs write them: a Par04 file that says nothing about its detector."""
    with h5py.File(path, "w") as file:
        file["showers"] = np.float32(factor) * showers.showers
        file["incident_energy"] = showers.energy
        file["incident_theta"] = showers.theta
        file["incident_phi"] = showers.phi
    return path


@pytest.fixture
def plain() -> Callable[..., Path]:
    return write_plain


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> AdaptResult:
    """Both generators adapted to 60 of the 120 showers."""
    return adapt(sample, tmp_path_factory.mktemp("adapted") / "model", SHORT, command="metacalo adapt --shots 60")


@pytest.fixture
def short() -> AdaptSettings:
    """The settings of `adapted`."""
    return SHORT
