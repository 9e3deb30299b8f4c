"""Commands on a sample in several files: named by their folder or by a pattern."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metacalo.showers import Showers, open_showers, write_showers

Command = Callable[..., Any]


@pytest.fixture
def shards(tmp_path: Path, pblar: Showers) -> Path:
    """A folder with 120 showers of PbLAr in three files."""
    for number in range(3):
        write_showers(tmp_path / "mine" / f"showers-{number}.h5", pblar[slice(40 * number, 40 * (number + 1))])
    return tmp_path / "mine"


@pytest.mark.parametrize("name", ["", "showers-*.h5"])
def test_inspect(command: Command, shards: Path, name: str) -> None:
    ran = command("inspect", shards / name, "--json")
    assert (ran.code, ran.err) == (0, "")
    message = json.loads(ran.out)
    assert (message["showers"], message["convention"], message["detector"]["detector"]) == (120, "par04", "PbLAr")
    assert message["storage"]["file_bytes"] == sum(path.stat().st_size for path in shards.iterdir())


def test_convert_makes_one_file_of_them(command: Command, shards: Path, pblar: Showers, tmp_path: Path) -> None:
    ran = command("convert", shards, "--format", "par04", "--out", tmp_path / "one.h5")
    assert (ran.code, ran.err) == (0, "")
    with open_showers(tmp_path / "one.h5") as file:
        assert file.detector == pblar.detector
        np.testing.assert_array_equal(file.read(slice(None)), pblar.showers)


@pytest.mark.usefixtures("no_pictures")
def test_evaluate(command: Command, shards: Path, sample: Path, tmp_path: Path) -> None:
    message = ("--generated", shards / "showers-*.h5", "--reference", sample, "--no-classifiers", "--no-pages")
    ran = command("evaluate", *message, "--out", tmp_path / "report")
    assert ran.code == 0, ran.err
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["samples"]) == ["showers-*"]


def test_tasks(command: Command, shards: Path) -> None:
    ran = command("tasks", "--tasks", shards.parent)
    assert ran.code == 0
    assert "mine" in ran.out
    assert "120" in ran.out


def test_a_wrong_shard_is_one_sentence(command: Command, shards: Path) -> None:
    last = shards / "showers-2.h5"
    last.write_bytes(last.read_bytes()[:-5000])
    ran = command("inspect", shards)
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert f"{last}: the file is truncated" in ran.err.replace("\n", "")
