"""Sweeps: which settings of adaptation and sampling suit a detector."""

from __future__ import annotations

from metacalo.runtime import pictures  # noqa: F401  before all that imports matplotlib

# isort: split
from metacalo.sweep.search import SweepResult, sweep
from metacalo.sweep.settings import SweepSettings
from metacalo.sweep.space import SearchSpace
from metacalo.sweep.sweep_summary import findings_table

__all__ = ["SearchSpace", "SweepResult", "SweepSettings", "findings_table", "sweep"]
