"""A macro for Geant4's example Par04 (11.4) that runs an exported generator: the detector, its mesh and the inference.

Commands and their order are those of the example's macros for its diffusion model (github.com/Geant4/geant4,
examples/extended/parameterisations/Par04).
"""

from __future__ import annotations

import math

from metacalo.detectors.condition_range import ConditionRange
from metacalo.detectors.detector import Detector
from metacalo.detectors.geant4_names import nist_name
from metacalo.detectors.stack import Layer

__all__ = ["par04_macro"]

_LIBRARIES = {"onnx": "ONNX", "torchscript": "TORCH"}
_ALLOYS = {"brass": "G4_BRASS", "steel": "G4_STAINLESS-STEEL"}
"""Near enough for Par04, which builds nothing that is not in Geant4's table."""


def par04_macro(detector: Detector, model: str, format: str, seen: ConditionRange) -> str:  # noqa: A002
    """The text of the macro.

    Args:
        detector: what was simulated.
        model: path of the exported file, as Par04 is to find it.
        format: `onnx` or `torchscript`.
        seen: energies and angles that the model was made from; those of the macro are among them.
    """
    grid = detector.grid
    energy = _within(seen.energy_MeV, 1e4, math.sqrt(math.prod(seen.energy_MeV))) / 1e3
    theta = _within(seen.theta_rad, math.pi / 2, sum(seen.theta_rad) / 2)
    direction = f"0 {math.sin(theta):.6g} {round(math.cos(theta), 6) + 0:.6g}"
    mesh = [
        f"SizeOfRhoCells {grid.dr_mm:.6g} mm",
        f"SizeOfZCells {grid.dz_mm:.6g} mm",
        f"NbOfRhoCells {grid.n_r}",
        f"NbOfPhiCells {grid.n_phi}",
        f"NbOfZCells {grid.n_z}",
    ]
    lines = [
        f"# {detector.name} in Geant4's example Par04 (11.4): electrons of {energy:.4g} GeV, showers by {model}",
        f"# the model has seen {seen}",
        "/process/had/verbose 0",
        "/Par04/detector/setDetectorInnerRadius 80 cm",
        "/Par04/detector/setDetectorLength 2 m",
        f"/Par04/detector/setNbOfLayers {detector.n_layers}",
        "# all sheets register energy, as the showers stand for all of it and not for that of active sheets alone",
        *_absorbers(detector.layers),
        *(f"/Par04/mesh/set{setting}" for setting in mesh),
        "/Par04/parallel/setNbOfSlices 320",
        "/Par04/parallel/setNbOfRows 100",
        "/run/initialize",
        "/gun/particle e-",
        f"/gun/energy {energy:.4g} GeV",
        "/gun/position 0 0 0",
        f"/gun/direction {direction}",
        f"/Par04/inference/setModelPathName {model}",
        "# the one hot geometry that follows from this type is not read: the file is of this detector",
        "/Par04/inference/setModelType CaloDiT-2",
        *(["/Par04/inference/setProfileFlag 0", "/Par04/inference/setOptimizationFlag 0"] if format == "onnx" else []),
        *(["/Par04/inference/setCudaFlag 0"] if format == "onnx" else []),
        f"/Par04/inference/setInferenceLibrary {_LIBRARIES[format]}",
        *(f"/Par04/inference/set{setting}" for setting in mesh),
        "/analysis/setFileName showers.root",
        "/param/ActivateModel defineMesh",
        "/param/ActivateModel inferenceModel",
        "/run/beamOn 100",
    ]
    return "\n".join(lines) + "\n"


def _within(ends: tuple[float, float], usual: float, middle: float) -> float:
    """What is usual, or the middle of a range that it does not lie in."""
    return usual if 0.99 * ends[0] <= usual <= 1.01 * ends[1] else middle


def _absorbers(layers: tuple[Layer, ...]) -> list[str]:
    """Par04 has two sheets in a period; one alone is halved."""
    if len(layers) == 1:
        (layer,) = layers
        sheets = [(layer, layer.thickness_mm / 2)] * 2
    else:
        sheets = [(layer, layer.thickness_mm) for layer in layers]
    lines = []
    for number, (layer, thickness) in enumerate(sheets):
        name = layer.material.name
        known = nist_name(layer.material) or _ALLOYS.get(name)
        command = f"/Par04/detector/setAbsorber {number} {known or name} {thickness:.6g} mm true"
        if number > 1:
            lines.append(f"# Par04 knows two sheets in a period; its detector has to be extended for: {command}")
        elif known is None:
            lines.append(f"# Geant4 has no material of this name; build it in the detector construction: {command}")
        else:
            lines.append(command)
    return lines
