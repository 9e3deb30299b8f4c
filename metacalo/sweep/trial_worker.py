"""One of the processes that share a study: it takes trials until the study has as many as wanted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from optuna import TrialPruned, create_trial
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from metacalo.errors import MetacaloError

__all__ = ["ENDED", "Worker"]

ENDED: Final = (TrialState.COMPLETE, TrialState.PRUNED)
"""States of trials that count."""

_STARTED: Final = (*ENDED, TrialState.RUNNING)
_POLL: Final = 0.5  # seconds between two looks at what others do
_BEAT = "alive"  # user attribute of a running trial, which changes as long as its worker lives
_RETRIES = "retries"


@dataclass
class Worker:
    """Runs trials of `study` with `objective` until `trials` of them have ended, in all workers together.

    Never more are run. A worker asks for a trial only where fewer are running or have ended, and gives it back where as
    many with lower numbers are alive; numbers are given by the storage, so that of two who ask at once one gives way.

    A worker that runs a trial changes its `alive` every `heartbeat` seconds. Where it has not changed for `GRACE` times
    as long by the clock of another worker (so that clocks need not agree), the trial has failed and waits to be run
    again, with its parameters.

    Attributes:
        study: see `join_study`.
        objective: values of a trial; may raise `TrialPruned`, or `MetacaloError` where the trial cannot be judged.
        trials: how many.
        heartbeat: seconds between two signs of life.
        retries: how often a trial is run again whose worker was lost.
        ended: called with every trial of this worker that has ended.
        waiting: called while others run the last trials.
    """

    GRACE = 6

    study: Study
    objective: Callable[[Trial], Sequence[float]]
    trials: int
    heartbeat: float = 5.0
    retries: int = 3
    ended: Callable[[FrozenTrial], object] = lambda _trial: None
    waiting: Callable[[], object] = lambda: None
    _seen: dict[int, tuple[object, float]] = field(default_factory=dict)

    def run(self) -> None:
        """Returns when the study is complete.

        Raises:
            KeyboardInterrupt: the trial that ran waits for the next worker, as does one during which anything else
                was raised.
        """
        while True:
            self._fail_lost()
            if self._number(ENDED) >= self.trials:
                return
            if self._number(_STARTED) >= self.trials:
                self.waiting()
                time.sleep(_POLL)
                continue
            trial = self.study.ask()
            if self._is_surplus(trial):
                self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
                continue
            self._run(trial)

    def _run(self, trial: Trial) -> None:
        try:
            with _alive(trial, self.heartbeat):
                values = list(self.objective(trial))
            finished = self.study.tell(trial, values, skip_if_finished=True)
        except TrialPruned:
            finished = self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        except UpdateFinishedTrialError:  # another worker took this one for lost, and has it run again
            return
        except MetacaloError as error:
            trial.set_user_attr("reason", str(error))
            finished = self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        except BaseException:
            self._fail(self.study.trials[trial.number], counts=False)
            raise
        self.ended(finished)

    def _number(self, states: Sequence[TrialState]) -> int:
        return len(self.study.get_trials(deepcopy=False, states=tuple(states)))

    def _is_surplus(self, trial: Trial) -> bool:
        live = self.study.get_trials(deepcopy=False, states=(*_STARTED, TrialState.WAITING))
        return sum(other.number < trial.number for other in live) >= self.trials

    def _fail_lost(self) -> None:
        now, running = time.monotonic(), self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in running:
            sign = trial.user_attrs.get(_BEAT)
            last, since = self._seen.get(trial.number, (None, now))
            if trial.number not in self._seen or sign != last:
                self._seen[trial.number] = (sign, now)
            elif now - since > self.GRACE * self.heartbeat:
                self._fail(trial)

    def _fail(self, trial: FrozenTrial, *, counts: bool = True) -> None:
        """Fails a trial and has it run again, unless another worker has done so or its worker was lost too often."""
        try:
            self.study.tell(trial.number, state=TrialState.FAIL)
        except (ValueError, UpdateFinishedTrialError):  # it has ended
            return
        lost = trial.user_attrs.get(_RETRIES, 0) + counts
        if lost <= self.retries:
            kept = {name: value for name, value in trial.user_attrs.items() if name == "default"}
            self.study.add_trial(
                create_trial(
                    state=TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    system_attrs=trial.system_attrs,
                    user_attrs={**kept, _RETRIES: lost, "retry_of": trial.user_attrs.get("retry_of", trial.number)},
                )
            )


@contextmanager
def _alive(trial: Trial, interval: float) -> Iterator[None]:
    """Signs of life of a trial while it runs."""
    ended = threading.Event()

    def beat() -> None:
        count = 0
        while not ended.is_set():
            try:
                trial.set_user_attr(_BEAT, count)
            except UpdateFinishedTrialError:
                return
            except StorageInternalError:  # one sign that is missing costs less than the trial
                pass
            count += 1
            ended.wait(interval)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
