"""The sampling benchmark on a tiny distilled base: its points, its table, and an interrupted run that goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import sampling
from benchmarks.sampling import Point
from metacalo.evaluate import classifier
from metacalo.generators.diffusion import CALODIT
from metacalo.model_folders.base import Base
from metacalo.pretrain import PretrainSettings, pretrain
from metacalo.showers import data_folder, open_showers, write_showers

SIZES = {"patch": (9, 16, 15), "width": 12, "blocks": 1, "heads": 2, "rank": 1, "embedding": 2}
STAGE = {"batch": 6, "warmup": 1}
SHOWERS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 120 showers of SiW, half of which a distilled base and a plain one have seen."""
    folder = tmp_path_factory.mktemp("tasks")
    with open_showers(data_folder("tasks") / "siw" / "showers.h5") as file:
        write_showers(folder / "siw" / "showers.h5", file.load(slice(0, 120)))
    shutil.copy(data_folder("tasks") / "siw" / "detector.toml", folder / "siw")
    for name, steps in (("distilled", 2), ("plain", 0)):
        settings = {
            "name": name,
            "tasks": (str(folder),),
            "reserve_one_in": 2,
            "generators": ("diffusion",),
            "diffusion": {"dit": SIZES},
            "train_diffusion": {"steps": 2, **STAGE},
            "distil": {"steps": steps, **STAGE},
        }
        pretrain(PretrainSettings.build(settings), folder / name)
    return folder


@pytest.fixture(scope="module")
def options(folder: Path) -> list[str]:
    told = ["--base", folder / "distilled", "--beside", folder / "plain", "--data", folder, "--showers", SHOWERS]
    return [*map(str, (*told, "--task", "siw", "--evaluations", 4, "--rotations", 1))]


@pytest.fixture(scope="module")
def ran(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sampling") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "_TREES", 5)
        sampling.main([*options, "--out", str(out)])
    return out


@pytest.fixture
def result(ran: Path) -> dict[str, Any]:
    return json.loads((ran / "table.json").read_text(encoding="utf-8"))


def test_every_sampler_at_the_number_of_evaluations(result: dict[str, Any], folder: Path) -> None:
    found = [(Path(p["base"]).name, p["sampler"], p["steps"], p["evaluations"]) for p in result["points"].values()]
    solvers = [("euler", 4, 4), ("heun", 2, 3), ("ddim", 4, 4)]
    expected = [("distilled", *part) for part in [("shortcut", 4, 4), *solvers]]
    assert found == expected + [("plain", *part) for part in solvers]
    for point in result["points"].values():
        assert point["ms"] > 0
        assert point["showers"]["generated"] == SHOWERS
        for name in ("mean_w1", "fpd", "low_level_auc", "high_level_auc"):
            assert {"value", "error", "floor", "floor_error"} == set(point[name])
    assert result["bases"][str(folder / "plain")]["hash"] == Base.load(folder / "plain").hash


def test_the_table_and_the_picture(ran: Path) -> None:
    text = (ran / "table.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    assert {len(row) for row in rows} == {11}
    assert [row[0] for row in rows[2:4]] == ["diffusion shortcut", "diffusion euler"]
    assert [row[:3] for row in rows if row[0] == "diffusion heun (plain)"] == [["diffusion heun (plain)", "2", "3"]]
    assert rows[-1][:5] == ["Geant4", "-", "-", "-", str(SHOWERS)]
    assert "at zero shots, task siw" in text
    assert (ran / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_run_goes_on(
    ran: Path, result: dict[str, Any], options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(classifier, "_TREES", 5)
    shutil.copytree(ran, tmp_path / "out")
    kept = dict(list(result["points"].items())[:-1])
    (tmp_path / "out" / "table.json").write_text(json.dumps(result | {"points": kept}), encoding="utf-8")
    again = [*options, "--out", str(tmp_path / "out"), "--resume"]
    sampling.main(again)
    assert capsys.readouterr().out.count(" ms, ") == 1
    found = json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))["points"]
    assert list(found) == list(result["points"])
    for key, point in found.items():
        assert point["mean_w1"] == result["points"][key]["mean_w1"]  # the same showers
    with pytest.raises(SystemExit, match="was made with other settings; leave --resume out or give another --out"):
        sampling.main([*again, "--seed", "7"])


def test_a_slow_point_makes_fewer_showers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "BATCH", 20)
    told = ["--base", folder / "plain", "--data", folder, "--showers", 60, "--rotations", 0, "--evaluations", 1]
    sampling.main([*map(str, (*told, "--seconds", 1e-3, "--out", tmp_path / "out"))])
    text = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "| diffusion euler | 1 | 1 | " in text
    assert " | 20 | - | - | " in text


def test_what_a_published_base_can_be_sampled_with(folder: Path) -> None:
    base = Base.load(folder / "plain")
    published = base.config.model_copy(update={"diffusion": CALODIT})
    bases = {"calodit": Base(base.path, published, base.hash, base.hyperprior, base.seen, base.weights)}
    assert sampling.planned(bases, sampling.EVALUATIONS) == [
        Point("calodit", "diffusion", "ddpm", steps) for steps in (50, 400)
    ]
    both = base.config.model_copy(update={"generators": ("ar", "diffusion")})
    bases = {"both": Base(base.path, both, base.hash, base.hyperprior, base.seen, base.weights)}
    points = sampling.planned(bases, sampling.EVALUATIONS)
    assert points[0] == Point("both", "ar")
    assert {(p.sampler, p.evaluations) for p in points[1:]} == {
        *(("euler", n) for n in (1, 2, 4, 8, 16, 50)),
        *(("heun", n) for n in (3, 7, 15, 49)),
        *(("ddim", n) for n in (1, 2, 4, 8, 16, 50)),
        ("ddpm", 50),
        ("ddpm", 400),
    }


def test_mistakes_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    for more, told in (
        (("--base", "bas"), "unknown base 'bas'"),
        (("--base", folder / "plain", "--task", "siv"), "unknown task 'siv'"),
        (("--base", folder / "plain", "--task", "siw", "--data", folder, "--shots", 110), "unseen showers are left"),
    ):
        with pytest.raises(SystemExit, match=f"^sampling: .*{told}"):
            sampling.main([*map(str, more), "--out", str(tmp_path / "out")])
