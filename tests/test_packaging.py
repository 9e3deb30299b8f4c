"""The wheel holds the tasks and the bases, and no unfinished training."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).parents[1]
PARTS = ("metacalo", "tasks", "pretrained", "pyproject.toml", "README.md", "LICENSE", ".gitignore")


def test_the_wheel_holds_what_ships(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; it is not installed here")
    tree, wheels = tmp_path / "tree", tmp_path / "wheels"
    tree.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.work")
    for part in PARTS:
        path = REPOSITORY / part
        if path.is_dir():
            shutil.copytree(path, tree / part, ignore=ignore)
        else:
            shutil.copy(path, tree / part)
    unfinished = tree / "pretrained" / "mine.work"
    unfinished.mkdir()
    (unfinished / "ar.state").write_bytes(b"half")
    command = [sys.executable, "-m", "pip", "wheel", str(tree), "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = wheels.iterdir()
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert b"metacalo = metacalo.cli:main" in archive.read(
            next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        )
    code = {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob("metacalo/**/*.py")}
    code |= {f"metacalo/evaluate/templates/report.{part}" for part in ("html.jinja", "css")}
    code |= {"metacalo/sweep/space.toml", "metacalo/sweep/templates/sweep.html.jinja"}
    data = {
        f"metacalo/_data/{path.relative_to(tree)}"
        for kind in ("tasks", "pretrained")
        for path in (tree / kind).rglob("*")
        if path.is_file() and unfinished not in path.parents
    }
    assert {f"metacalo/_data/tasks/pblar/{part}" for part in ("detector.toml", "showers.h5")} <= data
    assert "metacalo/_data/pretrained/base-no-pblar/config.json" in data
    assert names == code | data
    assert wheel.stat().st_size < 60e6
