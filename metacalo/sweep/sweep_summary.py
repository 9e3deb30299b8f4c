"""What a study has found, as a dictionary that JSON can hold, and as a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from metacalo.errors import MetacaloError
from metacalo.sweep.space import Hyperparameters
from metacalo.sweep.trial_worker import ENDED

__all__ = ["best_of", "findings", "findings_table", "formatted"]

_FEWEST: Final = 4  # trials from which something can be said of hyperparameters
_MEASURED: Final = "measured"  # user attribute of a trial: what `CrossValidation.judge` returned


def best_of(study: Study) -> FrozenTrial:
    """The complete trial with the least first objective, the fidelity; the earlier one of two that are equal.

    Raises:
        MetacaloError: none is complete.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise MetacaloError(
            f"study '{study.study_name}': no trial was complete; look for their `reason` in the storage, and try "
            "smaller rates"
        )
    return min(complete, key=lambda trial: (trial.values[0], trial.number))


def findings(study: Study, objectives: Sequence[str], seed: int) -> dict[str, Any]:
    """Best trial, the default's, the Pareto front, importances, and all trials.

    The trial `default` is `metacalo adapt` without a sweep, as far as the space holds its hyperparameters. Importances
    (fANOVA, Hutter et al., ICML 2014) are shares of the variance of the first objective; empty for fewer than four
    complete trials.
    """
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    default = [trial for trial in complete if trial.user_attrs.get("default")]
    best = best_of(study)
    front = sorted(study.best_trials, key=lambda trial: trial.values[0]) if len(objectives) > 1 else [best]
    return {
        "study": study.study_name,
        "objectives": list(objectives),
        "ended": sum(trial.state in ENDED for trial in trials),
        "best": _named(best, objectives),
        "default": _named(default[0], objectives) if default else None,
        "front": [trial.number for trial in front],
        "importances": _importances(study, complete, seed),
        "trials": [_named(trial, objectives) for trial in trials if trial.state.is_finished()],
    }


def _named(trial: FrozenTrial, objectives: Sequence[str]) -> dict[str, Any]:
    seconds = trial.duration.total_seconds() if trial.duration is not None else None
    attributes: dict[str, Any] = {
        key: trial.user_attrs[key] for key in ("default", "retry_of", "reason") if key in trial.user_attrs
    }
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "values": dict(zip(objectives, trial.values, strict=True)) if trial.state == TrialState.COMPLETE else None,
        "params": dict(trial.params),
        "measured": trial.user_attrs.get(_MEASURED),
        "checks": {str(step): loss for step, loss in trial.intermediate_values.items()},
        "seconds": seconds,
        **attributes,
    }


def _importances(study: Study, complete: Sequence[FrozenTrial], seed: int) -> dict[str, float]:
    varied = [name for name in complete[0].params if len({trial.params.get(name) for trial in complete}) > 1]
    values = {trial.values[0] for trial in complete}
    if len(complete) < _FEWEST or not varied or len(values) < 2:
        return {}
    shares = get_param_importances(
        study,
        evaluator=FanovaImportanceEvaluator(seed=seed),
        params=varied,
        target=lambda trial: trial.values[0],
    )
    return {name: float(share) for name, share in shares.items() if math.isfinite(share)}


def formatted(value: object) -> str:
    """A value of a hyperparameter or an objective, short."""
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def findings_table(found: Mapping[str, Any]) -> Table:
    """Best hyperparameters beside those of the default, and how much each matters."""
    best, default, importances = found["best"], found["default"], found["importances"]
    usual = Hyperparameters().model_dump()
    states = [trial["state"] for trial in found["trials"]]
    table = Table(title=f"study {found['study']}")
    for name in ("", "best", "metacalo adapt", "importance"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row("trial", str(best["number"]), str(default["number"]) if default else "-", "")
    for name in found["objectives"]:
        table.add_row(
            name, formatted(best["values"][name]), formatted(default["values"][name] if default else None), ""
        )
    table.add_section()
    for name, value in best["params"].items():
        before = default["params"].get(name) if default else usual[name]
        share = f"{100 * importances[name]:.0f} %" if name in importances else "-"
        table.add_row(name, formatted(value), formatted(before), share)
    counts = [f"{states.count(state)} {state}" for state in ("complete", "pruned", "fail") if state in states]
    table.caption = f"trials: {', '.join(counts)}"
    return table
