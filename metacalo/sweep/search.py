"""`metacalo sweep`: trials of adaptation and sampling settings for one detector, shared by any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna import Trial, TrialPruned
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from metacalo.adapt import draw_shots
from metacalo.adaptation.methods import MethodSettings
from metacalo.detectors.detector import Detector
from metacalo.errors import UnknownNameError
from metacalo.model_folders.adapted import ShowerModel, zero_shot
from metacalo.model_folders.base import resolve_base
from metacalo.normaliser.response import convention_scale
from metacalo.runtime.progress import Track, track
from metacalo.runtime.signals import note_on_interrupt
from metacalo.showers.sample_checks import warn_of_showers
from metacalo.showers.shower_file import Showers
from metacalo.showers.tasks import resolve_task
from metacalo.sweep.objective import CrossValidation
from metacalo.sweep.result import require_free_or_same, write_result
from metacalo.sweep.settings import SweepSettings, identity_of, study_name
from metacalo.sweep.study import SeededTPE, join_study, pruner_of
from metacalo.sweep.sweep_summary import findings
from metacalo.sweep.trial_storage import opened_storage, storage_url, without_password
from metacalo.sweep.trial_worker import ENDED, Worker
from metacalo.typing import PathLike

__all__ = ["SweepResult", "default_storage", "sweep"]


@dataclass(frozen=True)
class SweepResult:
    """What `sweep.json` holds, the folder, and whether this process wrote it (or another worker of the study)."""

    found: dict[str, Any]
    out: Path
    written: bool

    @property
    def generator(self) -> str:
        """What was adapted."""
        return str(self.found["settings"]["generator"])


def default_storage(out: PathLike) -> str:
    """SQLite in the work folder of `out`."""
    return f"sqlite:///{out}.work/study.db"


def sweep(
    detector: PathLike,
    out: PathLike,
    settings: SweepSettings | None = None,
    *,
    storage: str | None = None,
    described: Detector | None = None,
    force: bool = False,
    quiet: bool = False,
    command: str = "",
) -> SweepResult:
    """Runs trials until the study has as many as wanted, and writes the best one, adapted on all shots, to `out`.

    The same call in another process, at the same time or after this one was interrupted, goes on with the same study.

    Args:
        detector: a shower file, a task folder or the name of a task.
        out: folder to write: an adapted model that samples as the best trial did, `sweep.json` and `sweep.html`.
        settings: see `SweepSettings`.
        storage: see `storage_url`; by default SQLite in `<out>.work`.
        described: takes the place of what the file says about its detector.
        force: replace an existing `out` that is not of this study.
        quiet: draw no bars.
        command: recorded with the result, without passwords.

    Raises:
        ConfigError: the study is of other showers or settings, or the space cannot be sampled.
        ShowerFileError: the file cannot be read, or has fewer showers than shots.
        DetectorError, UnknownNameError: see `adapt`.
        MissingExtraError: the driver of the storage is not installed.
        OutputError: `out` exists and is not of this study, or it or the storage cannot be written.
    """
    settings, out = settings or SweepSettings(), Path(out)
    before, shots = _starting_point(detector, settings, described)
    identity, name = identity_of(settings, before, shots), study_name(settings, before.detector.name)
    require_free_or_same(out, identity, name, force)
    url = storage_url(storage or default_storage(out))
    kept = "the trials that have ended are kept; the same command goes on with them"
    with note_on_interrupt(kept), _quiet_optuna(), opened_storage(url) as trials:
        study = _joined(trials, name, identity, settings, before)
        _run_trials(study, settings, before, shots, quiet=quiet)
        found = findings(study, settings.objectives, settings.seed)
        result, written = write_result(
            detector,
            out,
            settings,
            identity,
            found,
            described=described,
            force=force,
            quiet=quiet,
            command=without_password(command),
            storage=without_password(str(storage or default_storage(out))),
        )
    return SweepResult(result, out, written)


def _starting_point(
    detector: PathLike, settings: SweepSettings, described: Detector | None
) -> tuple[ShowerModel, Showers]:
    """The base at zero shots, and the shots that `adapt` draws with the same seed."""
    base = resolve_base(settings.base)
    if settings.generator not in base.config.generators:
        raise UnknownNameError("generator", settings.generator, base.config.generators)
    settings.effective_space.require_samplers(base.generator(settings.generator))
    task = resolve_task(detector, detector=described)
    with task.open() as file:
        rows = draw_shots(file, settings.shots, settings.seed)
        shots = file.load(rows)
    warn_of_showers(shots, task.path, rows)
    return zero_shot(base, task.detector, scale=convention_scale(shots.showers, shots.energy)), shots


def _joined(
    storage: BaseStorage, name: str, identity: dict[str, Any], settings: SweepSettings, before: ShowerModel
) -> Study:
    return join_study(
        storage,
        name,
        identity,
        settings.effective_space.defaults(before.base.generator(settings.generator)),
        objectives=len(settings.objectives),
        sampler=SeededTPE(settings.seed, settings.startup),
        pruner=pruner_of(settings.pruned, settings.most_steps, settings.startup),
    )


def _run_trials(study: Study, settings: SweepSettings, before: ShowerModel, shots: Showers, *, quiet: bool) -> None:
    done = len(study.get_trials(deepcopy=False, states=ENDED))
    if done >= settings.trials:
        return
    with track("fit normalisers", settings.folds, quiet=quiet) as bar:
        judged = CrossValidation.prepare(
            before,
            shots,
            settings.generator,
            settings.objectives,
            folds=settings.folds,
            showers_per_shot=settings.showers_per_shot,
            seed=settings.seed,
            done=bar.advance,
        )
    with track(f"sweep {study.study_name}", settings.trials, completed=done, quiet=quiet) as bar:
        shown = _Shown(study, bar, done)
        Worker(
            study,
            _objective(judged, settings),
            settings.trials,
            heartbeat=settings.heartbeat,
            retries=settings.retries,
            ended=shown.ended,
            waiting=shown.waiting,
        ).run()


def _objective(judged: CrossValidation, settings: SweepSettings) -> Callable[[Trial], list[float]]:
    fixed = MethodSettings(seed=settings.seed, device=settings.device, autocast=settings.autocast)
    space, prunes = settings.effective_space, settings.pruned != "none"

    def objective(trial: Trial) -> list[float]:
        def on_check(step: int, loss: float) -> None:
            if prunes:
                trial.report(loss, step)
                if trial.should_prune():
                    raise TrialPruned

        measured = judged.judge(space.draw(trial), fixed, on_check)
        trial.set_user_attr("measured", measured)
        return [measured[name] for name in settings.objectives]

    return objective


class _Shown:
    """The bar of a study: trials that have ended in all workers, the last of this one, and the best."""

    def __init__(self, study: Study, bar: Track, done: int) -> None:
        self._study, self._bar, self._done = study, bar, done

    def ended(self, trial: FrozenTrial) -> None:
        self._bar.describe(f"trial {trial.number} {trial.state.name.lower()}")
        # the value of a pruned trial is its last held-back loss, which is no objective
        self._advance(**({"value": trial.values[0]} if trial.state == TrialState.COMPLETE else {}))

    def waiting(self) -> None:
        self._bar.describe("other workers run the last trials")
        self._advance()

    def _advance(self, **figures: float) -> None:
        trials = self._study.get_trials(deepcopy=False, states=ENDED)
        values = [trial.values[0] for trial in trials if trial.state == TrialState.COMPLETE]
        self._bar.advance(len(trials) - self._done, **figures, **({"best": min(values)} if values else {}))
        self._done = len(trials)


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Within it, Optuna prints errors only: its lines would tear the bar, and name storages with their passwords."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
