"""Each benchmark as a user runs it, on a budget of seconds, and the formulas of their tables."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import card, geant4, likelihoods, time_to_quality
from benchmarks.fidelity import __main__ as fidelity
from benchmarks.fidelity import row as fidelity_row
from benchmarks.fidelity.figures import averaged
from benchmarks.measuring import workers
from benchmarks.meta import __main__ as meta
from benchmarks.meta.row import BOUND, FROM_SCRATCH
from benchmarks.meta.table import markdown as meta_markdown
from benchmarks.meta.table import paired, pictures, steps_to
from benchmarks.meta.training import BASELINE, StudySettings
from benchmarks.speed import evaluation, exported, main_job, outer_step, processes, reading
from metacalo.evaluate import classifier
from metacalo.model_folders.base import resolve_base
from metacalo.showers import Showers, data_folder, open_showers, resolve_task, write_showers
from tests.geant4 import needs_geant4

BASE, SHOTS, SHOWERS = "base-no-pblar", 24, 40


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small tasks, and a file of 8 showers of 10 GeV."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, n in (("siw", 90), ("scipb", 40), ("pbwo4", 40)):
        with open_showers(data_folder("tasks") / name / "showers.h5") as file:
            write_showers(folder / name / "showers.h5", file.load(slice(0, n)))
        shutil.copy(data_folder("tasks") / name / "detector.toml", folder / name)
    return folder


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fixed")
    with open_showers(data_folder("tasks") / "pblar" / "showers.h5") as file:
        some = file.load(np.arange(32))
    energy = np.full(32, 1e4, np.float32)
    scaled = some.showers * (energy / some.energy)[:, None, None, None]
    write_showers(folder / "pblar_10GeV.h5", Showers(scaled, energy, some.theta, some.phi, some.detector))
    (folder / "adapt.toml").write_text("steps = 1\nbatch = 4\n", encoding="utf-8")
    return folder


@pytest.fixture
def options(fixed: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    monkeypatch.setattr(classifier, "_TREES", 5)
    monkeypatch.setattr(fidelity, "SPEED_SHOWERS", 5)

    def given(out: Path, *more: object) -> list[str]:
        known = ["--base", BASE, "--task", "pblar", "--fixed", fixed, "--config", fixed / "adapt.toml", "--showers"]
        known += [SHOWERS, "--diversity", 50, "--rotations", 1, "--picture-shots", SHOTS, "--jobs", 1, "--out", out]
        return [*map(str, (*known, *more))]

    return given


def test_fidelity_and_card(options, tmp_path, capsys):
    out = tmp_path / "out"
    wanted = ("--shots", SHOTS, "--generator", "diffusion", "frozen", "--samplers", "euler:1", "euler:2", "--ladder")
    fidelity.main(options(out, *wanted))
    result = json.loads((out / "table.json").read_text(encoding="utf-8"))
    assert [row["label"] for row in result["rows"].values()] == ["diffusion euler:1", "diffusion euler:2", "frozen"]
    for row in result["rows"].values():
        assert all(math.isfinite(row["figures"][name]["value"]) for name in ("mean_w1", "fpd", "high_level_auc"))
        assert [(at["energy_GeV"], at["extrapolation"]) for at in row["fixed"]] == [(10.0, False)]
        assert row["fixed"][0]["ladder"][0]["label"] == "10 GeV"
    text = (out / "table.md").read_text(encoding="utf-8")
    for title in ("Distances and classifiers", "Against the frozen library", "Shapes", "Fixed energies and angles"):
        assert f"\n## {title}" in text
    assert text.count("| 10 GeV |") >= 6  # of the response and of the ladder
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in ("frontier.png", "profiles-pblar.png"))
    # an interrupted run goes on, and only with the same settings
    kept = dict(list(result["rows"].items())[:2])
    (out / "table.json").write_text(json.dumps(result | {"rows": kept}), encoding="utf-8")
    capsys.readouterr()
    fidelity.main(options(out, *wanted, "--resume"))
    assert capsys.readouterr().out.count(" s)") == 1
    again = json.loads((out / "table.json").read_text(encoding="utf-8"))
    assert {key: row["metrics"] for key, row in again["rows"].items()} == {
        key: row["metrics"] for key, row in result["rows"].items()
    }
    with pytest.raises(SystemExit, match="was made with other showers; leave --resume out"):
        fidelity.main(options(out, *wanted, "--resume", "--showers", 39))
    base = resolve_base(BASE)
    lines = card.fidelity_lines(base, [out / "table.json"] * 2)
    made = card.card(base, lines, {"seconds": 12.3, "GiB": 1.5})
    assert made.startswith(f"# {BASE}\n")
    assert made.count("### Distances and classifiers") == 2
    assert "12.3 s, 1.50 GiB" in made


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--generator", "difusion"), "unknown generator 'difusion' .* did you mean 'diffusion'"),
        (("--fixed", "nowhere"), "--fixed nowhere: there is no such folder"),
        (("--shots", 1), "--shots 1: 0, or 2 and more, are possible"),
        (("--samplers", "euler"), "--samplers euler: give a sampler and its steps"),
        (("--samplers", "eular:2"), "--samplers eular:2.*sampler"),
    ],
)
def test_mistakes_of_fidelity_are_one_sentence(options, tmp_path, more, message):
    with pytest.raises(SystemExit, match=f"^fidelity: .*{message}"):
        fidelity.main(options(tmp_path / "out", *more))


def test_shots_are_nested_and_the_reference_is_unseen():
    known = np.random.default_rng(0).random(500) < 0.3
    few, many = (fidelity_row.split(known, shots, 1, 100) for shots in (20, 200))
    assert known[few[0]].all()
    assert set(few[0]) < set(many[0])
    for shots, reference in (few, many):
        assert len(reference) == 100
        assert not known[reference].any()
        assert not set(shots) & set(reference)


def test_seeds_are_averaged():
    entries = [{"value": value, "error": 0.1, "floor": 0.5, "floor_error": None} for value in (1.0, 1.4)]
    assert averaged(entries) == {"value": 1.2, "error": pytest.approx(0.2), "floor": 0.5, "floor_error": None}


@pytest.fixture(scope="module")
def study(tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudySettings, Path]:
    out = tmp_path_factory.mktemp("study")
    sizes = "patch = [9, 16, 15]\nwidth = 12\nblocks = 1\nheads = 2\nrank = 1\nembedding = 2\n"
    (out / "recipe.toml").write_text(f"[diffusion.dit]\n{sizes}", encoding="utf-8")
    settings = StudySettings(
        heldout=("siw",),
        data=str(tasks),
        recipe=str(out / "recipe.toml"),
        algorithms=(BASELINE, "meta-sgd"),
        methods=("adapters", "bias"),
        best_method="adapters",
        shots=(0, 20),
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
    meta.study("siw", settings, out, 1e6)
    return settings, out


def test_the_study_of_the_outer_loop(study, tmp_path):
    settings, out = study
    result = meta.collected(settings, out, "python -m benchmarks.meta --x")
    assert result["missing"] == []
    arms = [(row["algorithm"], row["method"]) for row in result["rows"].values() if row["shots"] == 20]
    assert arms == [
        *((BASELINE, "adapters"), ("meta-sgd", "adapters")),
        *((name, "full") for name in FROM_SCRATCH),
        *((BOUND, "adapters"), (BASELINE, "bias")),
    ]
    assert all(row["w1"] >= row["geometric_w1"] > 0 for row in result["rows"].values())
    text = meta_markdown(result)
    assert "    python -m benchmarks.meta --x" in text
    assert "| 20 | scratch | from scratch | 100.0 % | - | - |" in text
    pictures(result, tmp_path)
    assert (tmp_path / "siw.png").read_bytes().startswith(b"\x89PNG")
    before = (out / "siw.json").read_text()
    meta.study("siw", settings, out, 0.0)  # what is finished is not measured again
    assert (out / "siw.json").read_text() == before


def test_formulas_of_the_study():
    ours = [{"seed": seed, "loss": loss} for seed, loss in ((1, 1.0), (2, 12.0), (3, 100.0))]
    theirs = [{"seed": seed, "loss": loss} for seed, loss in ((2, 10.0), (1, 0.0))]
    assert paired(ours, theirs, "loss") == (1.5, 0.5, 2)
    checks = {"checks": [[0, 5.0], [10, 4.0], [20, 3.0], [30, 3.5]]}
    assert [steps_to(checks, loss) for loss in (5.0, 4.5, 3.0, 2.0)] == [0, 10, 20, None]
    assert [meta.seconds_of(text) for text in ("90s", "10m", "1.5h")] == [90, 600, 5400]
    assert list(time_to_quality.looks(25.0)) == [10.0, 20.0, 25.0]
    assert time_to_quality.passed({"w1": 1, "geometric_w1": 1, "fpd": 2}, {"w1": 1, "geometric_w1": 1, "fpd": 2})
    assert not time_to_quality.passed({"w1": 1, "geometric_w1": 1, "fpd": 3}, {"w1": 1, "geometric_w1": 1, "fpd": 2})


@pytest.mark.filterwarnings("ignore::metacalo.detectors.condition_range.OutsideRangeWarning")
def test_time_to_quality(tmp_path):
    with open_showers(data_folder("tasks") / "pblar" / "showers.h5") as file:
        write_showers(tmp_path / "few.h5", file.load(slice(0, 80)))
    chosen = [
        "--task",
        str(tmp_path / "few.h5"),
        "--shots",
        "20",
        "--showers",
        "40",
        "--rivals",
        "tables",
        "--limit",
        "0.1",
    ]
    time_to_quality.main([*chosen, "--fewer", "--out", str(tmp_path / "out")])
    table = json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))
    assert math.isfinite(table["adapted"]["fpd"])
    assert all(math.isfinite(point["fpd"]) for curve in table["curves"].values() for point in curve)


def test_likelihoods(tmp_path):
    likelihoods.main(["--showers", "20", "--out", str(tmp_path / "out")])
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == [
        *("siw, others", "scipb", "siw, ring 2 dead", "siw, one layer off")
    ]
    assert (tmp_path / "out" / "scores.png").stat().st_size > 5000
    with resolve_task("siw").open() as file:
        showers = file.load(np.arange(3))
    assert not likelihoods.dead_ring(showers).showers[:, 2].any()
    np.testing.assert_array_equal(likelihoods.shifted(showers).showers[..., 1:], showers.showers[..., :-1])


@pytest.mark.parametrize(("alpha", "beta"), [(4.0, 0.5), (6.0, 0.6)])
def test_the_maximum_of_a_gamma_profile(alpha, beta):
    t = (np.arange(45) + 0.5) * 0.8
    assert geant4.maximum(t ** (alpha - 1) * np.exp(-beta * t), 0.8) == pytest.approx((alpha - 1) / beta, abs=1e-6)


def test_samples_of_geant4_that_differ_are_found():
    with resolve_task("siw").open() as file:
        showers = file.load(np.arange(600))
    first, second = showers[:400], showers[400:]
    assert max(abs(found.sigmas) for found in geant4.differences(first, second)) < 4
    assert geant4.differences(first, replace(second, showers=np.roll(second.showers, 1, axis=3)))[1].sigmas > 6
    assert geant4.differences(first, replace(second, showers=np.float32(1.1) * second.showers))[0].sigmas > 6


@needs_geant4
def test_geant4(capsys):
    geant4.main(["--tasks", "scipb", "--showers", "4"])
    printed = capsys.readouterr().out
    assert "ln(E/E_c) - 0.5" in printed
    assert printed.count("scipb") == 1 + len(geant4.COMPARED)


@pytest.mark.parametrize(
    ("measurement", "chosen", "words"),
    [
        (evaluation, ["--showers", "60"], ("with classifiers", "million voxels a second")),
        (
            outer_step,
            ["--generator", "diffusion", "--inner-steps", "1", "--repeats", "1"],
            ("cases",),
        ),
        (reading, ["--gigabytes", "0.005", "--capacity", "64", "--waiting-capacity", "64"], ("waiting", "of training")),
    ],
)
@pytest.mark.filterwarnings("ignore:.*equal to an earlier one")
def test_speed(measurement: Any, chosen: list[str], words: tuple[str, ...], tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(outer_step, "cases", lambda *_: [outer_step.Case("plain", "diffusion", 1)])
    measurement.main([*chosen, *([] if measurement is evaluation else ["--out", str(tmp_path / "out")])])
    printed = capsys.readouterr().out
    assert all(word in printed for word in words)
    assert "nan" not in printed


def test_hours_for_lemurs():
    step = {"showers": 64, "seconds": 0.4, "prepared": 0.064}
    steps = [{"generator": name, "kind": kind, **step} for name in ("ar", "diffusion") for kind in ("mixed", "meta")]
    found = {"steps": steps, "flop": {"ar": 3e8, "diffusion": 1e8}, "encode": 1e-3}
    hours = {name: (low, high) for name, low, high in processes.hours(found)}
    low, high = hours["arithmetic on one H100"]
    draws = processes.LEMURS * processes.PASSES
    assert low == pytest.approx(4e8 * draws / (processes.PEAK_TFLOPS["H100"] * 1e12 * processes.UTILISATION[1]) / 3600)
    assert high / low == pytest.approx(processes.UTILISATION[1] / processes.UTILISATION[0])
    # a millisecond of preparation for each of both generators' showers, and another of encoding
    assert hours["preparation of data on one core"] == pytest.approx((2e-3 * draws / 3600, 4e-3 * draws / 3600))


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["benchmarks.speed"], 1, "speed: give one of evaluation, exported, main-job"),
        (["benchmarks.speed", "reading", "--out", "out", "--task", "siww"], 2, "reading: unknown task 'siww'"),
        (["benchmarks.speed", "exported", "--onnx", "no.onnx"], 1, "exported: no.onnx: there is no such file"),
        (["benchmarks.meta", "--budget", "soon"], 2, "--budget soon: a number"),
    ],
)
def test_mistakes_are_one_sentence(arguments, code, sentence, tmp_path):
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, "Traceback" in ran.stderr) == (code, False)
    assert sentence in ran.stderr


def test_the_main_job_and_exported_files_have_commands():
    """Both are run whole by CI and in tests/export; here only that they parse."""
    for measurement in (main_job, exported):
        with pytest.raises(SystemExit) as stopped:
            measurement.main(["--help"])
        assert stopped.value.code == 0


def test_workers_end_when_their_parent_is_killed():
    """A worker has its threads, and ends with its parent, however that ends."""
    with workers(1, 1) as pool:
        assert pool.submit(os.getppid).result() == os.getpid()
    code = "\n".join(
        [
            "import time, os",
            "from benchmarks.measuring import workers",
            "if __name__ == '__main__':",
            "    with workers(1, 1) as pool:",
            "        print(pool.submit(os.getpid).result(), flush=True)",
            "        pool.submit(time.sleep, 600).result()",
        ]
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        os.kill(int(parent.stdout.readline()), 0)  # the worker is there
        parent.kill()
        assert parent.stdout.read() == ""  # ends when the last process that could write to it has ended
