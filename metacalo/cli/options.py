"""Options that several commands have, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metacalo.errors import DetectorError

if TYPE_CHECKING:  # numpy and h5py take a second: `metacalo --help` does without
    from metacalo.detectors.detector import Detector

__all__ = [
    "Absorber",
    "Active",
    "BaseOfModel",
    "Config",
    "Description",
    "DetectorOfBase",
    "Force",
    "LogDir",
    "ModelPath",
    "NewDetector",
    "Out",
    "Quiet",
    "Resume",
    "described_detector",
    "named_detector",
]

Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings; options given here win over it.")]
Out = Annotated[Path, typer.Option("--out", help="Where the result goes.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing result.")]
ModelPath = Annotated[Path, typer.Option("--model", help="Adapted model, or a base with --detector.")]
BaseOfModel = Annotated[Path | None, typer.Option("--base", help="Where the model's base lies.")]
DetectorOfBase = Annotated[str | None, typer.Option("--detector", help="Detector of a base: task, file or toml.")]
NewDetector = Annotated[str, typer.Option("--detector", help="Shower file, task folder or task name.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Absorber = Annotated[str | None, typer.Option("--absorber", help="Absorber of a period in mm, such as Pb:2.0.")]
Active = Annotated[str | None, typer.Option("--active", help="Active layer of a period in mm, such as lAr:4.0.")]
Description = Annotated[
    Path | None, typer.Option("--description", help="detector.toml (or name of a task) that describes the detector.")
]
LogDir = Annotated[
    Path | None, typer.Option("--log-dir", help="Losses and cost as they go, for TensorBoard and as JSON lines.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


def described_detector(absorber: str | None, active: str | None, description: Path | None) -> Detector | None:
    """The detector that options describe, or None.

    Raises:
        DetectorError: an absorber alone was given, two descriptions were, or the description cannot be.
    """
    from metacalo.detectors.detector import Detector
    from metacalo.showers.tasks import description_path

    if description is not None:
        if absorber is not None or active is not None:
            message = f"--description {description} and --absorber or --active both describe the detector; give one"
            raise DetectorError(message)
        return Detector.from_toml(description_path(description))
    if active is not None:
        return Detector.from_layers(absorber, active)
    if absorber is not None:
        message = f"--absorber {absorber} alone describes no calorimeter; give --active too"
        raise DetectorError(message)
    return None


def named_detector(text: str | None) -> Detector | None:
    """The detector of a task, a shower file or a toml; None of None."""
    from metacalo.detectors.detector import Detector
    from metacalo.showers.tasks import resolve_task

    if text is None:
        return None
    return Detector.from_toml(text) if text.endswith(".toml") else resolve_task(text).detector
