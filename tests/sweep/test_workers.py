"""Workers on every kind of storage: never more trials than wanted, and none lost with the worker that ran it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest
from optuna import TrialPruned
from optuna.trial import TrialState

from metacalo.errors import MetacaloError
from metacalo.sweep import trial_worker as worker
from metacalo.sweep.trial_worker import ENDED, Worker
from tests.sweep.toy import HEARTBEAT, join, square, start

TRIALS = 9


class Time:
    """A clock that stands still but for sleep."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    """What the workers of this process take for the time."""
    clock = Time()
    monkeypatch.setattr(worker, "time", clock)
    return clock


def test_two_processes_share_the_trials_exactly(storage, tmp_path):
    marks = [tmp_path / "first", tmp_path / "second"]
    processes = [start(storage, TRIALS, *pair) for pair in (marks, marks[::-1])]  # each waits for the other's first
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    trials = join(storage).trials
    ended = [trial for trial in trials if trial.state in ENDED]
    assert len(ended) == TRIALS
    assert all(trial.state == TrialState.FAIL for trial in trials if trial not in ended)  # given back, and not run
    assert all(trial.values is None for trial in trials if trial not in ended)
    assert trials[0].params == {"x": 0.5}  # the first to be tried


def test_the_trial_of_a_killed_worker_is_run_again(storage, tmp_path):
    lost = start(storage, 1, tmp_path / "running", tmp_path / "never")
    while not (tmp_path / "running").exists():
        assert lost.is_alive()
        time.sleep(0.02)
    os.kill(lost.pid, signal.SIGKILL)
    lost.join()
    study = join(storage)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    Worker(study, square, 1, heartbeat=HEARTBEAT).run()
    first, again = study.trials
    assert (first.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.params == first.params
    assert (again.user_attrs["retry_of"], again.user_attrs["retries"]) == (0, 1)


def test_a_worker_that_lives_is_not_taken_for_lost(tmp_path, clock):
    """It gives a sign whenever the other worker looks, for longer than a silent one is waited for."""
    study = join(str(tmp_path / "study.db"))
    other = study.ask()
    looks = []

    def live() -> None:
        looks.append(clock.now)
        other.set_user_attr("alive", len(looks))
        if clock.now > 3 * Worker.GRACE * HEARTBEAT:
            study.tell(other, square(other))

    Worker(study, square, 1, heartbeat=HEARTBEAT, waiting=live).run()
    assert len(looks) > Worker.GRACE
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def test_a_running_trial_gives_signs_of_life(tmp_path):
    study = join(str(tmp_path / "study.db"))

    def objective(trial):
        while study.trials[0].user_attrs.get("alive", 0) < 2:
            time.sleep(0.01)
        return square(trial)

    Worker(study, objective, 1, heartbeat=0.01).run()
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def test_a_trial_that_always_loses_its_worker_is_given_up(tmp_path, clock):
    study = join(str(tmp_path / "study.db"))
    last = Worker(study, square, 1, heartbeat=HEARTBEAT, retries=2)
    for _ in range(3):
        study.ask().suggest_float("x", -1, 1)  # and no sign of life
        last._fail_lost()
        clock.sleep(Worker.GRACE * HEARTBEAT + 0.01)
        last._fail_lost()
    assert Counter(trial.state for trial in study.trials) == {TrialState.FAIL: 3}
    last.run()
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
