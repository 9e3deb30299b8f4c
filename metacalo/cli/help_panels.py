"""Where each command stands in `metacalo --help`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["PANELS"]

PANELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Make a generator and judge it": ("adapt", "generate", "evaluate", "export"),
        "Shower files and detectors": ("inspect", "convert", "simulate", "tasks"),
        "More with a model": ("score", "sweep", "design", "benchmark", "reproduce"),
        "Bases, and sharing of models": ("pretrain", "push", "pull"),
    }
)
"""Panel of the help to its commands, both in the order in which they are shown."""
