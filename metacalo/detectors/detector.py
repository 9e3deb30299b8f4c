"""A detector, described by its physics and not by a label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil, isnan
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from metacalo.detectors.grid import Grid
from metacalo.detectors.materials import SCATTERING_ENERGY_MEV
from metacalo.detectors.stack import (
    DetectorSettings,
    Layer,
    is_known,
    is_length,
    layers_from_attributes,
    layers_to_attributes,
    number,
    parse_layers,
)
from metacalo.errors import DetectorError

__all__ = ["DESCRIPTORS", "Detector", "Layer"]

MOST_PERIODS = 100_000

DESCRIPTORS: tuple[str, ...] = (
    "ln X0 / 10 mm",
    "ln R_M / 20 mm",
    "ln E_c / 10 MeV",
    "ln sampling fraction of a MIP",
    "ln period depth in X0",
    "ln active thickness per period in g/cm2",
    "ln dr / R_M",
    "ln dz / X0",
    "homogeneous",
    "radiation-weighted Z / 50",
    "ln periods per cell in z",
)


@dataclass(frozen=True)
class Detector:
    """A calorimeter: `n_layers` equal periods of absorber and active sheets, scored on a mesh.

    Attributes:
        name: what it is called in tables and files.
        layers: the sheets of one period, in the order the particle meets them; at least one is active.
        n_layers: number of periods.
        grid: the mesh; cell sizes that are NaN are filled in: dr so that the mesh is 4.5 R_M wide (0.5 R_M for
            9 cells), dz as the multiple of the period nearest to 0.8 X0.
        sampling_fraction: measured fraction of the energy that is deposited in the active sheets; None where not known.
        stated: the mesh as it was given, with NaN for the cell sizes that `grid` has from R_M, X0 and the period.

    Mixtures follow the PDG: 1/X0 = sum of t_i / X0_i over thickness fractions t_i, and
    1/R_M = (1/E_s) sum of t_i E_c,i / X0_i, from which E_c = E_s X0 / R_M.

    Raises:
        DetectorError: no layer is active, `n_layers` is not above 0, or the sampling fraction is not in (0, 1].

    Example:
        >>> detector = Detector.from_layers("Pb:2.0", "lAr:4.0", n_layers=90)
        >>> round(detector.X0_mm, 2), round(detector.grid.dz_mm, 1)
        (15.59, 12.0)
    """

    name: str
    layers: tuple[Layer, ...]
    n_layers: int
    grid: Grid = field(default_factory=Grid)
    sampling_fraction: float | None = None
    stated: Grid = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stated", self.grid)
        if not any(layer.active for layer in self.layers):
            raise DetectorError(f"detector '{self.name}' has no active layer; mark the one that is read out as active")
        if self.n_layers < 1:
            raise DetectorError(f"detector '{self.name}': n_layers = {self.n_layers}, at least 1 is needed")
        if self.sampling_fraction is not None and not 0 < self.sampling_fraction <= 1:
            raise DetectorError(
                f"detector '{self.name}': sampling_fraction = {self.sampling_fraction} is not in (0, 1]"
            )
        for axis, size in (("dr_mm", self.grid.dr_mm), ("dz_mm", self.grid.dz_mm)):
            if not (isnan(size) or is_length(size)):
                raise DetectorError(f"detector '{self.name}': {axis} = {size}, a length above 0 mm is needed")
        dr_mm = 4.5 * self.R_M_mm / self.grid.n_r if isnan(self.grid.dr_mm) else self.grid.dr_mm
        dz_mm = self._default_dz_mm() if isnan(self.grid.dz_mm) else self.grid.dz_mm
        object.__setattr__(self, "grid", replace(self.grid, dr_mm=dr_mm, dz_mm=dz_mm))

    def on_mesh(self, mesh: Grid) -> Detector:
        """The same detector on the cells of `mesh`; a cell size that was stated for the detector wins over the mesh's.

        What neither states follows from R_M, X0 and the period.
        """
        sizes = {
            axis: mine if not isnan(mine := getattr(self.stated, axis)) else getattr(mesh, axis)
            for axis in ("dr_mm", "dz_mm")
        }
        return replace(self, grid=replace(mesh, **sizes))

    def _default_dz_mm(self) -> float:
        if self.homogeneous:
            return 0.8 * self.X0_mm
        return max(1, round(0.8 * self.X0_mm / self.period_mm)) * self.period_mm

    @property
    def period_mm(self) -> float:
        """Thickness of one period in mm."""
        return sum(layer.thickness_mm for layer in self.layers)

    @property
    def X0_mm(self) -> float:  # noqa: N802
        """Effective radiation length in mm."""
        return self.period_mm / sum(layer.thickness_mm / layer.material.X0_mm for layer in self.layers)

    @property
    def R_M_mm(self) -> float:  # noqa: N802
        """Effective Moliere radius in mm."""
        weighted = sum(layer.thickness_mm * layer.material.E_c_MeV / layer.material.X0_mm for layer in self.layers)
        return SCATTERING_ENERGY_MEV * self.period_mm / weighted

    @property
    def E_c_MeV(self) -> float:  # noqa: N802
        """Effective critical energy in MeV."""
        return SCATTERING_ENERGY_MEV * self.X0_mm / self.R_M_mm

    @property
    def mip_sampling_fraction(self) -> float:
        """Part of a minimum ionising particle's loss that falls into active sheets."""
        losses = [(layer.thickness_mm * layer.material.mip_MeV_mm, layer.active) for layer in self.layers]
        return sum(loss for loss, active in losses if active) / sum(loss for loss, _ in losses)

    @property
    def homogeneous(self) -> bool:
        """True where every sheet is active."""
        return all(layer.active for layer in self.layers)

    @property
    def absorber(self) -> str:
        """Name of the absorber with most radiation lengths; empty where homogeneous."""
        return self._leading(active=False, by_kind=False)

    @property
    def active(self) -> str:
        """Name of the active material with most radiation lengths."""
        return self._leading(active=True, by_kind=False)

    @property
    def family(self) -> tuple[str, str]:
        """(absorber, active) kinds: equal for two detectors of the same pair of materials, whatever the thicknesses."""
        return self._leading(active=False, by_kind=True), self._leading(active=True, by_kind=True)

    def _leading(self, *, active: bool, by_kind: bool) -> str:
        depths: dict[str, float] = {}
        for layer in self.layers:
            if layer.active == active:
                key = layer.material.kind if by_kind else layer.material.name
                depths[key] = depths.get(key, 0.0) + layer.thickness_mm / layer.material.X0_mm
        return max(depths, key=lambda key: depths[key], default="")

    def descriptors(self) -> np.ndarray:
        """What a generator knows of the detector: float32 (len(DESCRIPTORS),), always finite.

        All follow from composition, thicknesses and mesh, so that they do not depend on who described the detector.
        The period of a homogeneous detector is a choice of its readout: one X0 stands for it.
        """
        x0, period = self.X0_mm, self.X0_mm if self.homogeneous else self.period_mm
        scale = period / self.period_mm
        active = sum(layer.thickness_mm * layer.material.density_g_cm3 for layer in self.layers if layer.active) / 10
        depths = np.array([layer.thickness_mm / layer.material.X0_mm for layer in self.layers])
        mean_z = float(depths @ [layer.material.mean_z for layer in self.layers] / depths.sum())
        logarithms = np.log(
            [
                x0 / 10,
                self.R_M_mm / 20,
                self.E_c_MeV / 10,
                self.mip_sampling_fraction,
                period / x0,
                active * scale,
                self.grid.dr_mm / self.R_M_mm,
                self.grid.dz_mm / x0,
                self.grid.dz_mm / period,
            ]
        )
        values = [*logarithms[:8], float(self.homogeneous), mean_z / 50, logarithms[8]]
        return np.array(values, dtype=np.float32)

    @classmethod
    def from_layers(
        cls,
        absorber: str | None,
        active: str,
        *,
        n_layers: int | None = None,
        grid: Grid | None = None,
        name: str | None = None,
        sampling_fraction: float | None = None,
    ) -> Detector:
        """A detector from texts such as `'Pb:2.0'` (mm); no absorber means homogeneous.

        Without `n_layers` there are as many periods as the mesh is deep.

        Raises:
            DetectorError: a text is not `material:thickness`, or names an unknown material (with the near match).
        """
        layers = (*(parse_layers(absorber, active=False) if absorber else ()), *parse_layers(active, active=True))
        name = name or "-".join(layer.material.name for layer in layers)
        return cls._complete(name, layers, n_layers, grid or Grid(), sampling_fraction)

    @classmethod
    def _complete(
        cls, name: str, layers: tuple[Layer, ...], n_layers: int | None, grid: Grid, sampling_fraction: float | None
    ) -> Detector:
        detector = cls(name, layers, 1 if n_layers is None else n_layers, grid, sampling_fraction)
        if n_layers is not None:
            return detector
        deep = max(1, ceil(grid.n_z * detector.grid.dz_mm / detector.period_mm - 1e-6))
        return cls(name, layers, deep, grid, sampling_fraction)

    @classmethod
    def from_toml(cls, path: str | Path) -> Detector:
        """A detector from its `detector.toml`: name, n_layers, sampling_fraction, `[grid]` and `[[layers]]`.

        A `[[layers]]` entry has material, thickness_mm and active. A material that metacalo does not know is described
        under `[materials.NAME]` by density_g_cm3 and composition (element mass fractions).

        Raises:
            DetectorError: missing file, no TOML, unknown key (with the near match), unknown material, wrong value.
        """
        path = Path(path)
        settings = DetectorSettings.read(path)
        try:
            grid = settings.grid.grid()
            return cls._complete(settings.name, settings.stack(), settings.n_layers, grid, settings.sampling_fraction)
        except DetectorError as error:
            raise DetectorError(f"{path}: {error}") from None

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], grid: Grid, name: str) -> Detector | None:
        """The detector that attributes of a shower file describe; None where they describe none.

        `grid` has the number of cells; its sizes win over attributes dr_mm and dz_mm where they are finite.
        `name` stands in where there is no attribute `detector`.

        Raises:
            DetectorError: a material is unknown, or attributes are missing or contradict each other.
        """
        layers = layers_from_attributes(attributes)
        if layers is None:
            return None
        if "dr_mm" in attributes and isnan(grid.dr_mm):
            grid = replace(grid, dr_mm=number(attributes, "dr_mm"))
        if "dz_mm" in attributes and isnan(grid.dz_mm):
            grid = replace(grid, dz_mm=number(attributes, "dz_mm"))
        periods = _periods(number(attributes, "n_layers")) if "n_layers" in attributes else None
        fraction = number(attributes, "sampling_fraction") if "sampling_fraction" in attributes else None
        stated = attributes.get("detector", name)
        name = stated.decode("utf-8", "replace") if isinstance(stated, bytes) else str(stated)
        detector = cls._complete(name, layers, periods, grid, fraction)
        for key, value, tolerance in (("X0_mm", detector.X0_mm, 0.2), ("R_M_mm", detector.R_M_mm, 0.5)):
            if key in attributes and not abs(number(attributes, key) / value - 1) < tolerance:
                stack = " + ".join(map(str, layers))
                raise DetectorError(f"attribute {key} = {attributes[key]} contradicts {stack}, which gives {value:.4g}")
        return detector

    def to_attributes(self) -> dict[str, Any]:
        """Attributes for a shower file, from which `from_attributes` makes the same detector again."""
        attributes = {
            "detector": self.name,
            **layers_to_attributes(self.layers),
            "n_layers": self.n_layers,
            "dr_mm": self.grid.dr_mm,
            "dz_mm": self.grid.dz_mm,
            "X0_mm": self.X0_mm,
            "R_M_mm": self.R_M_mm,
            "E_c_MeV": self.E_c_MeV,
        }
        if self.sampling_fraction is not None:
            attributes["sampling_fraction"] = self.sampling_fraction
        return attributes

    def to_toml(self) -> str:
        """The text of a `detector.toml`, from which `from_toml` makes the same detector again."""
        grid = self.grid
        document: dict[str, Any] = {"name": self.name, "n_layers": int(self.n_layers)}
        if self.sampling_fraction is not None:
            document["sampling_fraction"] = float(self.sampling_fraction)
        cells = {axis: int(getattr(grid, axis)) for axis in ("n_r", "n_phi", "n_z")}
        document["grid"] = {**cells, "dr_mm": float(grid.dr_mm), "dz_mm": float(grid.dz_mm)}
        document["layers"] = [
            {
                "material": layer.material.name,
                "thickness_mm": float(layer.thickness_mm),
                "active": bool(layer.active),
            }
            for layer in self.layers
        ]
        own = {layer.material.name: layer.material for layer in self.layers if not is_known(layer.material)}
        if own:
            document["materials"] = {
                name: {
                    "density_g_cm3": float(material.density_g_cm3),
                    "composition": {symbol: float(part) for symbol, part in material.composition.items()},
                }
                for name, material in sorted(own.items())
            }
        return tomli_w.dumps(document)


def _periods(periods: float) -> int:
    if not abs(periods) <= MOST_PERIODS:
        raise DetectorError(f"attribute n_layers = {periods:g} is no number of periods up to {MOST_PERIODS:,}")
    return round(periods)
