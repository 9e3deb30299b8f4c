"""`metacalo sweep`: what it writes, that it is reproducible, goes on after an interruption, and refuses mistakes."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from metacalo.model_folders.adapted import load_model
from metacalo.showers import open_showers
from metacalo.storage.checkpoint import load_tensors, tensor_hash
from metacalo.storage.locking import sole_writer
from metacalo.sweep import SweepSettings, search, sweep

SPACE = """
[method]
choices = ["bias", "modulation", "conditioning+bias"]
[rate]
low = 0.3
high = 3.0
log = true
[sampler_steps]
choices = [1, 2]
[batch]
choices = [16]
[steps]
choices = [2]
"""
SHOTS, TRIALS = 24, 4


@pytest.fixture(scope="session")
def space(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="session")
def small(base, space) -> SweepSettings:
    given = {"base": str(base.path), "shots": SHOTS, "trials": TRIALS, "startup": 3, "compared_showers": 0}
    return SweepSettings(**given).with_space(SweepSettings().space.from_toml(space))


@pytest.fixture(scope="session")
def swept(tmp_path_factory, sample, small):
    return sweep(sample, tmp_path_factory.mktemp("sweep") / "out", small, command="metacalo sweep")


@pytest.fixture
def cheap(monkeypatch, small):
    """Trials and the last adaptation cost nothing: a value is the rate, and the model an empty file."""

    class Judged:
        asked = 0

        def judge(self, hyper, settings, on_check):
            Judged.asked += 1
            if Judged.asked == self.stop:
                os.kill(os.getpid(), signal.SIGINT)
            return {"w1": hyper.rate, "loss": hyper.rate, "seconds": 1 / hyper.rate, "shower_ms": 1.0}

        stop = 0

    def adapt_into(place, detector, settings, **_):
        with place as folder:
            (folder / "config.json").write_text("{}")

    monkeypatch.setattr(search.CrossValidation, "prepare", lambda *_, **__: Judged())
    monkeypatch.setattr("metacalo.sweep.result.adapt_into", adapt_into)
    return Judged


@pytest.fixture
def arguments(sample, base, space):
    message = ("--detector", sample, "--base", base.path, "--shots", SHOTS, "--trials", TRIALS, "--space", space)
    return ("sweep", *message)


def test_the_folder_is_a_model_with_the_trials_beside(swept, base, sample, small):
    parts = {path.name for path in swept.out.iterdir()}
    model = {"config.json", "metrics.json", "provenance.json", "normaliser.safetensors", "shots.safetensors"}
    assert parts == {*model, "adapters-diffusion.safetensors", "sweep.json", "sweep.html"}
    assert {path.name for path in swept.out.parent.iterdir()} == {"out", "out.work"}
    found = json.loads((swept.out / "sweep.json").read_text())
    assert found == swept.found
    assert swept.written
    assert [trial["number"] for trial in found["trials"]] == list(range(TRIALS))
    complete = [trial for trial in found["trials"] if trial["state"] == "complete"]
    assert len(complete) >= 3
    assert found["best"]["values"]["w1"] == min(trial["values"]["w1"] for trial in complete)
    assert found["default"]["number"] == 0
    assert found["default"]["params"] | {"method": "conditioning+bias", "rate": 1.0} == found["default"]["params"]
    assert len({str(trial["params"]) for trial in found["trials"]}) == TRIALS
    adapted = json.loads((swept.out / "config.json").read_text())["adapt"]
    assert adapted["method"] == found["best"]["params"]["method"] == load_model(swept.out, base=base.path).method
    assert len(load_model(swept.out, base=base.path).shots) == SHOTS
    assert found["sampling"] == {"steps": found["best"]["params"]["sampler_steps"]}


def test_the_model_samples_as_the_best_trial_did(swept, base, command, tmp_path):
    steps = swept.found["best"]["params"]["sampler_steps"]
    message = ("generate", "--model", swept.out, "--showers", 3)
    for name, options in {"as it is": (), "the same": ("--steps", steps), "other": ("--steps", 3)}.items():
        assert command(*message, *options, "--out", tmp_path / name).code == 0
    showers = {}
    for path in tmp_path.iterdir():
        with open_showers(path) as file:
            showers[path.name] = file.load().showers
    np.testing.assert_array_equal(showers["as it is"], showers["the same"])
    assert (showers["as it is"] != showers["other"]).any()


def test_the_report_needs_nothing_else(swept):
    page = (swept.out / "sweep.html").read_text()
    assert {"history", "slices", "parallel"} <= set(re.findall(r'<figure id="([a-z]+)"', page))
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page)
    assert "<script" not in page
    assert page.count("<tr>") > TRIALS


def test_the_same_seed_gives_the_same_trials_and_the_same_model(swept, sample, small, tmp_path):
    again = sweep(sample, tmp_path / "out", small, storage=str(tmp_path / "trials.db"))
    for key in ("params", "values", "checks", "state"):
        assert [trial[key] for trial in again.found["trials"]] == [trial[key] for trial in swept.found["trials"]]
    for name in ("adapters-diffusion", "normaliser", "shots"):
        first, second = (folder / f"{name}.safetensors" for folder in (swept.out, again.out))
        assert first.read_bytes() == second.read_bytes()
    assert not (tmp_path / "out.work").exists()


def test_a_worker_that_comes_last_leaves_the_result_as_it_is(swept, arguments, command, monkeypatch):
    before = (swept.out / "sweep.json").stat().st_mtime_ns
    changed = tensor_hash(load_tensors(swept.out / "adapters-diffusion.safetensors")[0])
    ran = command(*arguments, "--config", settings_of(swept.out.parent), "--out", swept.out)
    assert (ran.code, ran.err) == (0, "")
    assert "was written by another worker of the study" in ran.out
    assert (swept.out / "sweep.json").stat().st_mtime_ns == before
    assert tensor_hash(load_tensors(swept.out / "adapters-diffusion.safetensors")[0]) == changed


def settings_of(folder: Path) -> Path:
    path = folder / "sweep.toml"
    path.write_text("startup = 3\ncompared_showers = 0\n")
    return path


def test_an_interrupted_sweep_goes_on(cheap, arguments, command, tmp_path):
    cheap.stop = 3
    ran = command(*arguments, "--out", tmp_path / "out")
    assert ran.code == 130
    message = "metacalo: interrupted; the trials that have ended are kept; the same command goes on with them"
    assert ran.err == f"{message}\n"
    assert not (tmp_path / "out").exists()
    ran = command(*arguments, "--out", tmp_path / "out")
    assert (ran.code, cheap.asked) == (0, TRIALS + 1)
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    lost = next(trial for trial in found["trials"] if trial["state"] == "fail")
    again = next(trial for trial in found["trials"] if trial.get("retry_of") == lost["number"])
    assert again["params"] == lost["params"]
    assert again["state"] == "complete"
    ran = command(*arguments, "--trials", TRIALS + 2, "--out", tmp_path / "out")
    assert (ran.code, cheap.asked) == (0, TRIALS + 3)
    assert json.loads((tmp_path / "out" / "sweep.json").read_text())["ended"] == TRIALS + 2


def test_the_result_is_written_by_one_worker_at_a_time(cheap, small, sample, tmp_path):
    """Who is ready while another one writes waits for it, and does not fail."""
    out, written = tmp_path / "out", []
    worker = Thread(target=lambda: written.append(sweep(sample, out, small).written))
    with sole_writer(out):
        worker.start()
        while cheap.asked < TRIALS:
            time.sleep(0.01)
        worker.join(1)
        assert not out.exists()
    worker.join()
    assert written == [True]
    assert {path.name for path in out.iterdir()} == {"config.json", "sweep.json", "sweep.html"}
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.work"}


def test_two_objectives_give_a_front_and_the_model_of_the_best_fidelity(cheap, arguments, command, tmp_path):
    ran = command(*arguments, "--objectives", "w1", "seconds", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert sorted(found["front"]) == list(range(TRIALS))  # none is better in both
    assert found["best"]["number"] == found["front"][0]
    assert 'id="front"' in (tmp_path / "out" / "sweep.html").read_text()


def test_no_password_is_kept_or_printed(cheap, arguments, command, tmp_path, monkeypatch):
    opened, given = search.opened_storage, []
    monkeypatch.setattr(
        search, "opened_storage", lambda url: given.append(url) or opened(f"sqlite:///{tmp_path / 's.db'}")
    )
    ran = command(*arguments, "--storage", "postgresql://me:hush@host/x", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert given == ["postgresql+psycopg://me:hush@host/x"]
    kept = [ran.out, ran.err, *(path.read_text() for path in (tmp_path / "out").iterdir())]
    assert not any("hush" in text for text in kept)
    assert "postgresql://me:***@host/x" in (tmp_path / "out" / "sweep.json").read_text()


BAD = {
    "trials": (("--trials", 0), "--trials = 0 is not valid"),
    "shots": (("--shots", 121), "holds 120 showers, --shots 121 wants more; ask for at most 120"),
    "few shots": (("--shots", 10), "--shots = 10 is not valid"),
    "objective": (("--objective", "w2"), "did you mean 'w1'?"),
    "no fidelity": (("--objective", "seconds"), "give w1, fpd or loss"),
    "two fidelities": (("--objectives", "w1", "fpd"), "give w1, fpd or loss"),
    "prune": (("--prune", "mediann"), "did you mean 'median'?"),
    "generator": (("--generator", "frozen"), "--generator = 'frozen' is not valid"),
    "storage": (("--storage", "trials"), "neither a URL nor a file"),
    "no space file": (("--space", "nowhere.toml"), "nowhere.toml: there is no such settings file"),
    "task": (("--detector", "pblarr"), "did you mean 'pblar'?"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_one_sentence_and_leaves_nothing(case, refused, arguments, tmp_path):
    given, message = BAD[case]
    assert message in refused(*arguments, *given, "--out", tmp_path / "out")


def test_a_space_with_a_wrong_key_names_the_file(refused, arguments, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[learning-rate]\nlow = 1e-4\nhigh = 1e-2\n")
    message = f"metacalo: {path}: unknown key 'learning-rate'; did you mean 'learning_rate'?\n"
    assert refused(*arguments, "--space", path, "--out", tmp_path / "out") == message


def test_a_foreign_out_and_a_foreign_study_are_refused(cheap, command, arguments, tmp_path):
    out, storage = tmp_path / "out", ("--storage", tmp_path / "s.db", "--study", "mine")
    out.mkdir()
    ran = command(*arguments, *storage, "--out", out)
    assert (ran.code, cheap.asked) == (2, 0)
    assert "exists already; give --force" in ran.err
    assert command(*arguments, *storage, "--out", out, "--force").code == 0
    ran = command(*arguments, *storage, "--out", tmp_path / "other", "--seed", 2)
    assert ran.code == 2
    assert "study 'mine' of this storage was made with another" in ran.err
    assert not (tmp_path / "other").exists()
