from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from metacalo.cli import main
from metacalo.showers import data_folder

# tests are small: one thread is fastest, and a busy machine may be slow without being wrong
torch.set_num_threads(1)
settings.register_profile("metacalo", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("metacalo")

# tests send signals; whoever starts them in the background, as by nohup, has them ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


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


def content(folder: Path) -> dict[Path, bytes | None]:
    """All files with their bytes, and all folders."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refused(command: Callable[..., Ran], tmp_path: Path) -> Callable[..., str]:
    """Runs a command that must fail, and gives its one sentence; nothing under `tmp_path` may have changed."""

    def run(*arguments: object) -> str:
        before = content(tmp_path)
        ran = command(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert re.fullmatch(r"metacalo: [^\n]+\n", ran.err)
        assert content(tmp_path) == before
        return ran.err

    return run


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adaptations and evaluations draw no profiles, which takes seconds."""
    for place in ("adaptation.before_after", "evaluate.report"):
        monkeypatch.setattr(f"metacalo.{place}.profile_figure", lambda *_, **__: None)


@pytest.fixture
def few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have two figures instead of all."""
    from metacalo.evaluate.figures.catalogue import CATALOGUE

    chosen = [entry for entry in CATALOGUE if entry.name in ("response", "occupancy")]
    monkeypatch.setattr("metacalo.evaluate.pages.CATALOGUE", chosen)


@pytest.fixture(scope="module")
def fits_are_remembered() -> Iterator[None]:
    """Pretraining runs of a module fit the tables of the same showers once."""
    from metacalo.normaliser.preprocessing import PREPROCESSING

    class Remembering(type(PREPROCESSING["tables"])):
        def __init__(self) -> None:
            self.known: dict[bytes, object] = {}

        def fit_detectors(self, detectors):
            given = list(detectors)
            key = b"".join(
                part.tobytes() for showers, about in given for part in (showers.hashes(), showers.theta, about)
            )
            if key not in self.known:
                self.known[key] = super().fit_detectors(given)
            return self.known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PREPROCESSING, "tables", Remembering())
        yield
