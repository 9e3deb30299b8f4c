"""Showers, the detectors that they were simulated in, and the files that hold both."""

from __future__ import annotations

from metacalo.detectors.detector import DESCRIPTORS, Detector, Layer
from metacalo.detectors.grid import Grid
from metacalo.detectors.materials import MATERIALS, Material, find_material
from metacalo.showers.shower_file import ShowerFile, Showers, open_showers
from metacalo.showers.tasks import Task, data_folder, discover_tasks, resolve_task, training_tasks
from metacalo.showers.writer import ShowerWriter, write_showers

__all__ = [
    "DESCRIPTORS",
    "MATERIALS",
    "Detector",
    "Grid",
    "Layer",
    "Material",
    "ShowerFile",
    "ShowerWriter",
    "Showers",
    "Task",
    "data_folder",
    "discover_tasks",
    "find_material",
    "open_showers",
    "resolve_task",
    "training_tasks",
    "write_showers",
]
