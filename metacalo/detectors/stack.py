"""Layer stacks as people write them: `Pb:2.0` texts, `detector.toml` files, attributes of shower files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from metacalo.config import Settings
from metacalo.detectors.grid import Grid
from metacalo.detectors.materials import Material, find_material, near_match
from metacalo.detectors.simulation_settings import BeamSettings, GeometrySettings, PhysicsSettings, PlateSettings
from metacalo.errors import MALFORMED, ConfigError, DetectorError
from metacalo.storage.documents import DocumentError, parse_json, read_toml

__all__ = ["DetectorSettings", "Layer", "layers_from_attributes", "layers_to_attributes", "parse_layers"]


def is_length(size_mm: float) -> bool:
    """Whether that could be a length in a detector: from a nanometre to a kilometre."""
    return 1e-6 <= size_mm <= 1e6


@dataclass(frozen=True)
class Layer:
    """One sheet of material in the period of a calorimeter.

    Attributes:
        material: what it is made of.
        thickness_mm: its thickness along the particle's direction at normal incidence, in mm.
        active: true where deposits are read out.
    """

    material: Material
    thickness_mm: float
    active: bool = False

    def __post_init__(self) -> None:
        if not is_length(self.thickness_mm):
            raise DetectorError(
                f"a layer of {self.material.name} is {self.thickness_mm} mm thick; give a length above 0, up to 1 km"
            )

    def __str__(self) -> str:
        return f"{self.thickness_mm:g} mm {self.material.name}"


def parse_layers(text: str, *, active: bool) -> tuple[Layer, ...]:
    """Layers of a text such as `Pb:2.0` or `Pb:2.0,steel:0.4`, thicknesses in mm.

    Raises:
        DetectorError: no `material:thickness`, an unknown material, or a thickness that is no length above 0.
    """
    layers = []
    for part in text.split(","):
        name, colon, thickness = part.rpartition(":")
        if not colon or not name.strip():
            raise DetectorError(f"layer '{part.strip()}' is not 'material:thickness in mm', for example 'Pb:2.0'")
        material = find_material(name)
        try:
            length = float(thickness.strip().removesuffix("mm"))
        except ValueError:
            raise DetectorError(f"layer '{part.strip()}': '{thickness}' is no thickness in mm, try 'Pb:2.0'") from None
        layers.append(Layer(material, length, active))
    return tuple(layers)


class MaterialSettings(Settings):
    """A material that metacalo does not know: `[materials.NAME]` of a detector.toml."""

    density_g_cm3: float
    composition: dict[str, float]  # element -> mass fraction


class LayerSettings(Settings):
    """One `[[layers]]` entry."""

    material: str
    thickness_mm: float = Field(gt=0, allow_inf_nan=False)
    active: bool = False


class GridSettings(Settings):
    """The `[grid]` table; cell sizes that are left out are derived from R_M and X0."""

    n_r: int = Field(default=9, ge=1, le=1024)
    n_phi: int = Field(default=16, ge=1, le=1024)
    n_z: int = Field(default=45, ge=1, le=1024)
    dr_mm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    dz_mm: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    def grid(self) -> Grid:
        """The mesh, with NaN for sizes left out."""
        nan = float("nan")
        return Grid(self.n_r, self.n_phi, self.n_z, self.dr_mm or nan, self.dz_mm or nan)


class DetectorSettings(Settings):
    """A detector.toml file; see `Detector.from_toml`. What only a simulation asks for has tables of its own."""

    name: str = Field(min_length=1)
    n_layers: int | None = Field(default=None, ge=1)
    sampling_fraction: float | None = Field(default=None, gt=0, le=1)
    grid: GridSettings = GridSettings()
    layers: tuple[LayerSettings, ...] = Field(min_length=1)
    materials: dict[str, MaterialSettings] = Field(default_factory=dict)
    geometry: GeometrySettings = GeometrySettings()
    beam: BeamSettings = BeamSettings()
    physics: PhysicsSettings = PhysicsSettings()

    @classmethod
    def read(cls, path: Path) -> DetectorSettings:
        """Reads and validates.

        Raises:
            DetectorError: missing file, no TOML, unknown key, or a value that is not allowed.
        """
        try:
            values = read_toml(path)
        except FileNotFoundError:
            raise DetectorError(f"{path}: there is no such detector file") from None
        except DocumentError as error:
            raise DetectorError(f"{path}: not a readable TOML file ({error})") from None
        for kind, table, source in _tables(cls, values, str(path)):
            if unknown := [key for key in table if key not in kind.model_fields]:
                raise DetectorError(f"{source}: unknown key '{unknown[0]}'{near_match(unknown[0], kind.model_fields)}")
        if not values.get("layers"):
            raise DetectorError(
                f"{path}: the stack is empty; give a [[layers]] with material and thickness_mm for each"
            )
        try:
            return cls.build(values, str(path))
        except ConfigError as error:
            raise DetectorError(str(error)) from None

    def stack(self) -> tuple[Layer, ...]:
        """The layers of one period."""
        return tuple(Layer(self._find(layer.material), layer.thickness_mm, layer.active) for layer in self.layers)

    def front(self) -> tuple[Layer, ...]:
        """The plates before the first layer."""
        return tuple(Layer(self._find(plate.material), plate.thickness_mm) for plate in self.geometry.front)

    def _find(self, name: str) -> Material:
        own = self.materials.get(name)
        return Material(name, own.composition, own.density_g_cm3) if own else find_material(name)


def _tables(
    top: type[Settings], values: dict[str, Any], source: str
) -> Iterator[tuple[type[Settings], dict[str, Any], str]]:
    """Each table of a detector.toml with the settings it fills, for messages on wrong keys."""
    yield top, values, source
    layers, materials = values.get("layers"), values.get("materials")
    nested: list[tuple[type[Settings], Any, str]] = [(GridSettings, values.get("grid"), f"{source} [grid]")]
    nested += [
        (kind, values.get(table), f"{source} [{table}]")
        for table, kind in (("geometry", GeometrySettings), ("beam", BeamSettings), ("physics", PhysicsSettings))
    ]
    if isinstance(geometry := values.get("geometry"), dict) and isinstance(geometry.get("front"), list):
        nested += [
            (PlateSettings, plate, f"{source} plate {number}") for number, plate in enumerate(geometry["front"], 1)
        ]
    if isinstance(layers, list):
        nested += [(LayerSettings, layer, f"{source} layer {number}") for number, layer in enumerate(layers, 1)]
    if isinstance(materials, dict):
        nested += [(MaterialSettings, table, f"{source} material {name}") for name, table in materials.items()]
    yield from ((kind, table, place) for kind, table, place in nested if isinstance(table, dict))


KEYS = ("absorber_material", "absorber_thickness_mm", "active_material", "active_thickness_mm")


def layers_to_attributes(layers: tuple[Layer, ...]) -> dict[str, Any]:
    """Attributes of a shower file: one absorber and one active sheet by name, any other stack as JSON in `layers`."""
    absorbers = [layer for layer in layers if not layer.active]
    actives = [layer for layer in layers if layer.active]
    if len(actives) == 1 and len(absorbers) <= 1 and all(is_known(layer.material) for layer in layers):
        return {
            "absorber_material": absorbers[0].material.name if absorbers else "",
            "absorber_thickness_mm": absorbers[0].thickness_mm if absorbers else 0.0,
            "active_material": actives[0].material.name,
            "active_thickness_mm": actives[0].thickness_mm,
        }
    entries = []
    for layer in layers:
        entry: dict[str, Any] = {"material": layer.material.name, "thickness_mm": layer.thickness_mm}
        entry["active"] = layer.active
        if not is_known(layer.material):
            entry["density_g_cm3"] = layer.material.density_g_cm3
            entry["composition"] = dict(layer.material.composition)
        entries.append(entry)
    return {"layers": json.dumps(entries)}


def is_known(material: Material) -> bool:
    """True for a material of metacalo's own list."""
    try:
        return find_material(material.name) == material
    except DetectorError:
        return False


def layers_from_attributes(attributes: Mapping[str, Any]) -> tuple[Layer, ...] | None:
    """The stack that attributes describe; None where they describe none.

    Raises:
        DetectorError: some of the four keys are missing, or they contradict each other.
    """
    if "layers" in attributes:
        return _layers_from_json(_text(attributes["layers"]))
    present = [key for key in KEYS if key in attributes]
    if "active_material" not in present and "absorber_material" not in present:
        return None
    if missing := [key for key in KEYS if key not in attributes]:
        misspelt = get_close_matches(missing[0], [key for key in attributes if key not in KEYS], n=1, cutoff=0.8)
        hint = f" (there is '{misspelt[0]}')" if misspelt else ""
        raise DetectorError(f"attribute '{missing[0]}' is missing beside '{present[0]}'{hint}")
    absorber, active = _text(attributes["absorber_material"]), _text(attributes["active_material"])
    thickness, depth = (number(attributes, key) for key in ("absorber_thickness_mm", "active_thickness_mm"))
    homogeneous = absorber.strip().lower() in {"", "none"}
    if homogeneous != (thickness == 0):
        raise DetectorError(f"absorber_material '{absorber}' contradicts absorber_thickness_mm = {thickness:g}")
    if not active.strip():
        raise DetectorError("active_material is empty; name the material whose deposits were scored")
    sheet = (Layer(find_material(active), depth, active=True),)
    return sheet if homogeneous else (Layer(find_material(absorber), thickness), *sheet)


def _layers_from_json(text: str) -> tuple[Layer, ...]:
    try:
        entries = parse_json(text)
        layers = []
        for entry in entries:
            name, composition = str(entry["material"]), entry.get("composition")
            own = Material(name, composition, float(entry["density_g_cm3"])) if composition else find_material(name)
            layers.append(Layer(own, float(entry["thickness_mm"]), bool(entry.get("active", False))))
    except MALFORMED as error:
        raise DetectorError(f"attribute 'layers' is no JSON list of material, thickness_mm, active ({error})") from None
    return tuple(layers)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def number(attributes: Mapping[str, Any], key: str) -> float:
    """The attribute `key` as a float.

    Raises:
        DetectorError: it is no single number.
    """
    try:
        return float(np.asarray(attributes[key]).reshape(()))
    except (TypeError, ValueError):
        raise DetectorError(f"attribute '{key}' = {attributes[key]!r} is not one number") from None
