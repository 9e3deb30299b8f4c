"""The study of the outer loop, on a small network and two detectors of training, and the arithmetic of its tables."""

from __future__ import annotations

import doctest
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import meta, meta_table, time_to_quality
from benchmarks.meta import collected, main, parser, planned, seconds_of, settings_of, study
from benchmarks.meta_cost import cases
from benchmarks.meta_cost import measure as measure_cost
from benchmarks.meta_row import BOUND, FROM_SCRATCH, Wanted, compared
from benchmarks.meta_table import markdown, paired, pictures, steps_to
from benchmarks.meta_training import BASELINE, StudySettings, TrainedBase
from benchmarks.time_to_quality import looks, passed
from metacalo.errors import ConfigError
from metacalo.evaluate import EvaluateSettings, compare
from metacalo.showers import data_folder, open_showers, write_showers
from metacalo.storage.checkpoint import load_json

RECIPE = """
[diffusion.dit]
patch = [9, 16, 15]
width = 12
blocks = 1
heads = 2
rank = 1
embedding = 2
"""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> StudySettings:
    folder = tmp_path_factory.mktemp("study")
    for name, showers in (("siw", 90), ("scipb", 40), ("pbwo4", 40)):
        shipped = data_folder("tasks") / name
        with open_showers(shipped / "showers.h5") as file:
            write_showers(folder / "tasks" / name / "showers.h5", file.load(slice(0, showers)))
        shutil.copy(shipped / "detector.toml", folder / "tasks" / name)
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return StudySettings(
        heldout=("siw",),
        data=str(folder / "tasks"),
        recipe=str(folder / "recipe.toml"),
        algorithms=(BASELINE, "meta-sgd"),
        methods=("adapters", "bias"),
        best_method="adapters",
        shots=(0, 20, 80),
        seeds=(1,),
        showers=40,
        start_seconds=0.01,
        algorithm_seconds=0.01,
        batch=4,
        episodes=1,
        support=2,
        query=2,
        scratch_steps=20,
        compile=False,
    )


@pytest.fixture(scope="module")
def finished(settings: StudySettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    study("siw", settings, out, 1e6)
    return out


def test_a_study_measures_all_that_is_planned(settings: StudySettings, finished: Path) -> None:
    result = collected(settings, finished, "python -m benchmarks.meta")
    assert result["missing"] == []
    # 80 shots would leave fewer than half of the showers to compare with
    assert {row["shots"] for row in result["rows"].values()} == {0, 20}
    arms = [(row["algorithm"], row["method"]) for row in result["rows"].values() if row["shots"] == 20]
    assert arms == [
        (BASELINE, "adapters"),
        ("meta-sgd", "adapters"),
        *((name, "full") for name in FROM_SCRATCH),
        (BOUND, "adapters"),
        (BASELINE, "bias"),
    ]
    for row in result["rows"].values():
        assert row["w1"] >= row["geometric_w1"] > 0
        assert (row["share"] > 0) == (row["shots"] > 0)
        if row["shots"] == 0 and row["algorithm"] == BASELINE:
            assert row["loss"] == row["unmoved"]


def test_what_is_finished_is_not_measured_again(settings: StudySettings, finished: Path) -> None:
    before = (finished / "siw.json").read_text()
    study("siw", settings, finished, 1e6)
    assert (finished / "siw.json").read_text() == before
    study("siw", settings, finished, 0.0)  # no time: what is there is kept
    assert (finished / "siw.json").read_text() == before


def test_bases_go_on_from_one_start(finished: Path) -> None:
    folder = finished / "bases" / "siw"
    plain, learned = (TrainedBase.load(folder / name) for name in (BASELINE, "meta-sgd"))
    assert plain.inner_rate is None
    assert learned.inner_rate is not None
    assert plain.base.rates("diffusion") == {}
    assert learned.base.rates("diffusion").keys() == learned.base.generator("diffusion").subspace("adapters").keys()
    assert plain.base.config.holdout == ("siw",)
    assert plain.base.config.prior == learned.base.config.prior
    assert {path.name for path in folder.iterdir()} == {"start", BASELINE, "meta-sgd"}


def test_tables_and_pictures(settings: StudySettings, finished: Path, tmp_path: Path) -> None:
    result = collected(settings, finished, "python -m benchmarks.meta --x")
    text = markdown(result)
    assert "    python -m benchmarks.meta --x" in text
    assert "| 20 | scratch | from scratch | 100.0 % | - | - |" in text
    assert text.count("| 20 | multitask | adapters |") == 2  # among the algorithms and among the methods
    assert "Not measured" not in text
    adapted, scratch = (
        next(row["geometric_w1"] for row in result["rows"].values() if (row["shots"], row["algorithm"]) == (20, name))
        for name in (BASELINE, "scratch")
    )
    assert f"| 20 | {adapted:.3f} | {scratch:.3f} | {100 * (1 - adapted / scratch):.0f} % |" in text
    pictures(result, tmp_path)
    assert (tmp_path / "siw.png").read_bytes().startswith(b"\x89PNG")


def test_differences_are_paired_by_seed() -> None:
    ours = [{"seed": seed, "loss": loss} for seed, loss in ((1, 1.0), (2, 12.0), (3, 100.0))]
    theirs = [{"seed": seed, "loss": loss} for seed, loss in ((2, 10.0), (1, 0.0))]
    assert paired(ours, theirs, "loss") == (1.5, 0.5, 2)
    assert paired(ours, theirs[:1], "loss") == (2.0, None, 1)


def test_steps_to_a_loss() -> None:
    row = {"checks": [[0, 5.0], [10, 4.0], [20, 3.0], [30, 3.5]]}
    assert [steps_to(row, loss) for loss in (5.0, 4.5, 3.0, 2.0)] == [0, 10, 20, None]


@pytest.mark.parametrize(("told", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_budgets(told: str, seconds: float) -> None:
    assert seconds_of(told) == seconds


@pytest.mark.parametrize("told", ["10", "m", "0m", "-5m", "1d", ""])
def test_wrong_budgets(told: str) -> None:
    with pytest.raises(ConfigError, match="such as 10m"):
        seconds_of(told)


def test_the_plan_begins_with_the_algorithms_seed_by_seed_and_the_baseline_first() -> None:
    settings = StudySettings(heldout=("pblar",), shots=(0, 50), seeds=(1, 2), start_seconds=1, algorithm_seconds=1)
    rows = list(planned("pblar", settings))
    assert rows[0] == Wanted("pblar", BASELINE, "conditioning+bias", 0, 1)
    first = rows[: 2 * 2 * 7]
    assert [row.seed for row in first] == sorted(row.seed for row in first)
    assert [row.algorithm for row in first[::7]] == [BASELINE] * 4
    assert {row.method for row in first} == {"conditioning+bias"}
    assert not {row.algorithm for row in first} & {BOUND, *FROM_SCRATCH}
    assert len(rows) == len(set(rows)) == 2 * (7 + 7 + 1 + 2 + 6)


def test_a_small_budget_is_for_a_smaller_study_of_what_is_not_asked_for() -> None:
    small, large = (settings_of(parser().parse_args([]), seconds) for seconds in (600.0, 3600.0))
    assert len(list(planned("pblar", small))) < len(list(planned("pblar", large))) / 4
    assert small.start_seconds + len(small.algorithms) * small.algorithm_seconds == pytest.approx(600 / 4)
    assert large.start_seconds + len(large.algorithms) * large.algorithm_seconds == pytest.approx(3600 / 2)
    assert settings_of(parser().parse_args(["--shots", "0", "10"]), 600.0).shots == (0, 10)


def test_wrong_arguments_end_with_one_sentence(
    finished: Path, settings: StudySettings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments, said in (
        (["--budget", "soon"], "--budget soon: a number"),
        (["--heldout", "nothing"], "unknown task 'nothing'"),
        (["--start", "pblar"], "--start pblar: TASK=BASE is needed"),
        (["--start", "siw=base"], "start names 'siw', which is not held out"),
        (["--start", "pblar=base"], "base 'base' was not trained without 'pblar'"),
        (["--start", "pblar=bas"], "unknown base 'bas'"),
        (["--shots", "1"], "0, or 2 and more, are possible"),
        (["--jobs", "0"], "--jobs 0: 1 or more is needed"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, "--out", str(tmp_path / "new")])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_costs_are_of_the_same_batch() -> None:
    wanted = cases(["diffusion"], [1], ["higher", "torch"])
    assert len(wanted) == len(set(wanted))
    plain = next(case for case in wanted if case.kind == "plain")
    row = measure_cost(plain._replace(inner_steps=1), "base", "siw", "cpu", 1)
    assert row["showers_per_second"] * row["seconds"] == pytest.approx(2 * (16 + 16))
    assert row["GiB"] > 0.1


def test_distances_are_those_of_evaluate() -> None:
    with open_showers(data_folder("tasks") / "siw" / "showers.h5") as file:
        first, second = file.load(slice(0, 100)), file.load(slice(100, 200))
    found, metrics = compared(first, second), compare(second, first, EvaluateSettings(classifiers=False))
    assert found["fpd"] == pytest.approx(metrics["fpd"]["value"], rel=1e-6)
    assert compared(first, first) == pytest.approx({"w1": 0.0, "geometric_w1": 1e-6, "fpd": 0.0}, abs=1e-6)


def test_a_plain_step_stands_beside_every_outer_one() -> None:
    wanted = cases(["ar"], [1, 5], ["higher"])
    plain = {case.inner_steps for case in wanted if case.kind == "plain" and case.half and case.fused}
    assert {case.inner_steps for case in wanted if case.kind != "sample"} == plain


@pytest.mark.parametrize(("option", "value"), [("--shots", "3000"), ("--showers", "4000"), ("--shots", "-1")])
def test_more_than_the_file_holds_cannot_be_compared(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        time_to_quality.main([option, value, "--out", str(tmp_path / "new")])
    assert stopped.value.code == 2
    assert f"{option} {value}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_looks_end_at_the_limit() -> None:
    assert list(looks(25.0)) == [10.0, 20.0, 25.0]
    assert list(looks(5.0)) == [5.0]


def test_all_distances_must_pass() -> None:
    wanted = {"w1": 1.0, "geometric_w1": 1.0, "fpd": 2.0}
    assert passed({"w1": 1.0, "geometric_w1": 0.5, "fpd": 1.9}, wanted)
    for key, value in wanted.items():
        assert not passed({**wanted, key: 1.1 * value}, wanted)


@pytest.mark.parametrize("module", [meta, meta_table, time_to_quality])
def test_examples_in_docstrings(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_settings_are_kept_as_json(settings: StudySettings, finished: Path) -> None:
    assert StudySettings.build(settings.model_dump(mode="json"), source="here") == settings
    assert set(load_json(finished / "siw.json")) == {"bases", "rows"}
