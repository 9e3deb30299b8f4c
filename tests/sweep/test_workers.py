"""Workers on every kind of storage: never more trials than wanted, and none lost with the worker that ran it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna import TrialPruned
from optuna.trial import TrialState

from metacalo.errors import MetacaloError
from metacalo.sweep.worker import ENDED, Worker
from tests.sweep.toy import HEARTBEAT, join, square, start

TRIALS = 9


def wait_for(mark: Path) -> None:
    for _ in range(2000):
        if mark.exists():
            return
        time.sleep(0.02)
    raise AssertionError("no trial has started")


def test_two_processes_share_the_trials_exactly(storage, tmp_path):
    marks = [tmp_path / "first", tmp_path / "second"]
    workers = [start(storage, TRIALS, 0.1, mark) for mark in marks]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert all(mark.exists() for mark in marks)
    trials = join(storage).trials
    ended = [trial for trial in trials if trial.state in ENDED]
    assert len(ended) == TRIALS
    assert all(trial.state == TrialState.FAIL for trial in trials if trial not in ended)  # given back, and not run
    assert all(trial.values is None for trial in trials if trial not in ended)
    assert trials[0].params == {"x": 0.5}  # the first to be tried


def test_the_trial_of_a_killed_worker_is_run_again(storage, tmp_path):
    mark = tmp_path / "running"
    lost = start(storage, 1, 60, mark)
    wait_for(mark)
    os.kill(lost.pid, signal.SIGKILL)
    lost.join()
    study = join(storage)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    Worker(study, square, 1, heartbeat=HEARTBEAT).run()
    first, again = study.trials
    assert (first.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.params == first.params
    assert (again.user_attrs["retry_of"], again.user_attrs["retries"]) == (0, 1)


def test_a_worker_that_lives_is_not_taken_for_lost(tmp_path):
    storage, mark = str(tmp_path / "study.db"), tmp_path / "running"
    slow = start(storage, 1, 3 * Worker.GRACE * HEARTBEAT, mark)
    wait_for(mark)
    looks = []
    study = join(storage)
    Worker(study, square, 1, heartbeat=HEARTBEAT, waiting=lambda: looks.append(1)).run()
    slow.join()
    assert looks
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def test_a_trial_that_always_loses_its_worker_is_given_up(tmp_path):
    study = join(str(tmp_path / "study.db"))
    worker = Worker(study, square, 1, heartbeat=0.01, retries=2)
    for _ in range(3):
        study.ask().suggest_float("x", -1, 1)  # and no sign of life
        worker._fail_lost()
        time.sleep(0.1)
        worker._fail_lost()
    assert Counter(trial.state for trial in study.trials) == {TrialState.FAIL: 3}
    worker.run()
    assert study.trials[-1].state == TrialState.COMPLETE
    assert "retries" not in study.trials[-1].user_attrs


def test_what_interrupts_a_trial_leaves_it_to_the_next_worker(tmp_path):
    study = join(str(tmp_path / "study.db"))

    def stop(trial):
        square(trial)
        raise KeyboardInterrupt

    for _ in range(5):  # more often than a trial is run again whose worker is lost
        with pytest.raises(KeyboardInterrupt):
            Worker(study, stop, 2).run()
    Worker(study, square, 2).run()
    assert next(t.params["x"] for t in study.trials if t.state == TrialState.COMPLETE) == 0.5
    assert Counter(trial.state for trial in study.trials) == {TrialState.FAIL: 5, TrialState.COMPLETE: 2}


def test_pruned_trials_count_and_what_cannot_be_judged_says_why(tmp_path):
    study, ended = join(str(tmp_path / "study.db")), []

    def objective(trial):
        if trial.number == 1:
            raise TrialPruned
        if trial.number == 2:
            raise MetacaloError("a latent is not finite")
        return square(trial)

    Worker(study, objective, 4, ended=ended.append).run()
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED, TrialState.COMPLETE]
    assert [trial.state for trial in study.trials] == [trial.state for trial in ended] == states
    assert study.trials[2].user_attrs["reason"] == "a latent is not finite"


def test_one_worker_tries_the_same_again_however_often_it_is_interrupted(tmp_path):
    def tried(name, stops):
        study = join(str(tmp_path / name))
        for trials in (*stops, 8):  # the first ones end early, as a worker that goes away between two trials does
            Worker(join(str(tmp_path / name)), square, trials).run()
        return [trial.params["x"] for trial in study.trials]

    whole = tried("whole.db", [])
    assert len(set(whole)) == 8
    assert tried("parts.db", [1, 4]) == whole
    assert tried("whole.db", []) == whole
