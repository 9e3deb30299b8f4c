"""A study that several workers share: who may join, what is tried next, and when a trial is given up."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from metacalo.errors import ConfigError
from metacalo.sweep.space import Value

__all__ = ["PruneRule", "SeededTPE", "join_study", "pruner_of"]

PruneRule = Literal["median", "hyperband", "none"]
"""When a trial is given up by its held-back loss: worse than the median of the others at that step, by Hyperband
(arXiv:1603.06560), or never."""

_IDENTITY: Final = "metacalo"  # user attribute of a study: what all its trials have in common
_CHECK: Final = 5  # steps between two checks of adaptation


class SeededTPE(BaseSampler):
    """TPE (Bergstra et al., NeurIPS 2011) whose random numbers depend on the seed and the number of the trial alone.

    What a trial tries is then a function of them and of the trials that had ended before, whichever worker asks, and a
    study that was interrupted goes on as it would have.
    """

    def __init__(self, seed: int, startup: int) -> None:
        self._seed, self._startup = seed, startup
        self._inner = self._made(0)

    def _made(self, number: int) -> TPESampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        return TPESampler(seed=seed, n_startup_trials=self._startup)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Starts the random numbers of the trial."""
        self._inner = self._made(trial.number)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """See `TPESampler`."""
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See `TPESampler`."""
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """See `TPESampler`."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)


def pruner_of(rule: PruneRule, most_steps: int, startup: int) -> BasePruner:
    """The pruner of a rule, for adaptations of `most_steps` steps at most.

    The median asks for `startup` trials that have ended, and judges from the second check on: at the first one the
    learning rate is still rising.
    """
    if rule == "median":
        return MedianPruner(n_startup_trials=startup, n_warmup_steps=2 * _CHECK - 1)
    if rule == "hyperband":
        return HyperbandPruner(min_resource=2 * _CHECK, max_resource=max(most_steps, 2 * _CHECK), reduction_factor=3)
    return NopPruner()


def join_study(
    storage: BaseStorage,
    name: str,
    identity: Mapping[str, Any],
    first: Mapping[str, Value],
    *,
    objectives: int,
    sampler: BaseSampler,
    pruner: BasePruner,
) -> Study:
    """The study of that name: made where there is none, else joined.

    Args:
        storage: see `open_storage`.
        name: of the study.
        identity: what all trials must have in common, as JSON can hold it; kept with the study.
        first: hyperparameters of the first trial, as far as they are given.
        objectives: how many values a trial has; less is better in all.
        sampler: says what is tried next.
        pruner: says which trials are given up.

    Raises:
        ConfigError: the study is of other showers or settings, or was not made by metacalo.
    """
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, directions=["minimize"] * objectives, sampler=sampler, pruner=pruner
        )
        study.enqueue_trial(dict(first), user_attrs={"default": True})
        study.set_user_attr(_IDENTITY, dict(identity))  # last: others wait for it, and then take the first trial
    except DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name, sampler=sampler, pruner=pruner)
        _require_same(study, identity)
    return study


def _require_same(study: Study, identity: Mapping[str, Any]) -> None:
    known = study.user_attrs.get(_IDENTITY)
    for _ in range(20):  # the process that makes it may be about to write it
        if known is not None:
            break
        time.sleep(0.1)
        known = study.user_attrs.get(_IDENTITY)
    if known is None:
        if study.get_trials(deepcopy=False, states=[state for state in TrialState if state != TrialState.WAITING]):
            raise ConfigError(
                f"study '{study.study_name}' of this storage was not made by metacalo sweep; choose another --study or "
                "--storage"
            )
        study.set_user_attr(_IDENTITY, dict(identity))  # its maker was killed in between
        return
    for key, wanted in identity.items():
        if known.get(key) != wanted:
            raise ConfigError(
                f"study '{study.study_name}' of this storage was made with another {key} ({_short(known.get(key))}) "
                f"than this run ({_short(wanted)}); run with the same, or choose another --study"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
