"""Fidelity of generated showers: observables, distances, classifiers, reports and pictures."""

from __future__ import annotations

from metacalo.evaluate.metrics import fpd, separation_power, wasserstein1
from metacalo.evaluate.observables import Observables
from metacalo.evaluate.plots import profile_figure
from metacalo.evaluate.report import EvaluateSettings, compare, evaluate_files, table

__all__ = [
    "EvaluateSettings",
    "Observables",
    "compare",
    "evaluate_files",
    "fpd",
    "profile_figure",
    "separation_power",
    "table",
    "wasserstein1",
]
