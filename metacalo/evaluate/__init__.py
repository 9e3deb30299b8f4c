"""Fidelity of generated showers: observables, distances, diversity, classifiers, reports and pictures."""

from __future__ import annotations

from metacalo.runtime import pictures  # noqa: F401  before all that imports matplotlib

# isort: split
from metacalo.evaluate.comparison import compare
from metacalo.evaluate.fluctuations import response_by_energy
from metacalo.evaluate.metric_tables import table
from metacalo.evaluate.metrics import fpd, kpd, separation_power, wasserstein1
from metacalo.evaluate.observables import Observables
from metacalo.evaluate.pages import write_pages
from metacalo.evaluate.plots import profile_figure
from metacalo.evaluate.profiles import profile_chi2
from metacalo.evaluate.reference import EvaluateSettings
from metacalo.evaluate.report import all_warnings, evaluate_files, labels_of
from metacalo.runtime.callable_module import make_callable

__all__ = [
    "EvaluateSettings",
    "Observables",
    "all_warnings",
    "compare",
    "evaluate_files",
    "fpd",
    "kpd",
    "labels_of",
    "profile_chi2",
    "profile_figure",
    "response_by_energy",
    "separation_power",
    "table",
    "wasserstein1",
    "write_pages",
]

make_callable(__name__, evaluate_files)
