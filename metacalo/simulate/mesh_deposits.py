"""Deposits scored on the cylindrical mesh along the particle (Par04). Runs in workers only."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metacalo.simulate.job import Job, Shot

__all__ = ["Points", "along", "on_mesh", "recorder", "summed"]

Array = NDArray[np.float64]


class Points:
    """Deposits of one shower as doubles: energies in MeV, and x, y, z in mm of the ends of their steps (as Par04)."""

    def __init__(self) -> None:
        self.energy, self.place = bytearray(), bytearray()

    def clear(self) -> None:
        """Forgets them."""
        self.energy.clear()
        self.place.clear()

    def arrays(self) -> tuple[Array, Array]:
        """Energies (n,) and places (n, 3)."""
        return np.frombuffer(bytes(self.energy)), np.frombuffer(bytes(self.place)).reshape(-1, 3)


def recorder(g4: Any, name: str, points: Points, *, direct_reads: bool = True) -> Any:
    """A sensitive detector that puts each deposit into `points`.

    Reading a deposit and a place through the bindings takes twice as long as the call itself. A serial run has one
    step and one end of it, which never move: with `direct_reads` they are looked up once, in the layout that pybind11
    gives its instances, and read from memory if the first hit there is what the bindings return. If it is not, or
    without `direct_reads`, the bindings are asked each time.
    """

    class Recorder(g4.G4VSensitiveDetector):
        def ProcessHits(self, step: Any, _: Any) -> bool:  # noqa: N802
            deposit = step.GetTotalEnergyDeposit()
            if not deposit:
                return True  # a zero would agree with any empty memory
            memory = _memory(step) if direct_reads else None
            if memory is None:
                self.__dict__["ProcessHits"] = lambda step, _: _asked(step, points)
                return _asked(step, points)
            energy, value, place = memory
            kept_energy, kept_place = points.energy, points.place

            def read(*_: object) -> bool:
                nonlocal kept_energy, kept_place
                if value[0]:
                    kept_energy += energy
                    kept_place += place
                return True

            self.__dict__["ProcessHits"] = read  # found on the instance before the class: one call less
            return read()

    return Recorder(name)


def _asked(step: Any, points: Points) -> bool:
    if deposit := step.GetTotalEnergyDeposit():
        at = step.GetPostStepPoint().GetPosition()
        points.energy += np.float64(deposit).tobytes()
        points.place += np.array((at.x, at.y, at.z)).tobytes()
    return True


def _memory(step: Any) -> tuple[memoryview, memoryview[float], memoryview] | None:
    """Bytes of the deposit, the same as a double, and bytes of the end's place; None where they are elsewhere."""
    end = step.GetPostStepPoint()
    at = end.GetPosition()
    energy, place = _view(_address(step), 8), _view(_address(end), 24)
    value = energy.cast("B").cast("d")
    if value[0] != step.GetTotalEnergyDeposit() or list(place.cast("B").cast("d")) != [at.x, at.y, at.z]:
        return None
    return energy, value, place


def _address(instance: Any) -> int:
    """Of the C++ object of a pybind11 instance, which points to a list of values and holders."""
    return _pointer(_pointer(id(instance) + 16))


def _pointer(address: int) -> int:
    return int(ctypes.c_void_p.from_address(address).value or 0)


def _view(address: int, size: int) -> memoryview:
    return memoryview((ctypes.c_ubyte * size).from_address(address))


def summed(g4: Any, name: str) -> tuple[Any, Any]:
    """A sensitive detector that adds up all deposits in C++, and its scorer, which knows its collection."""
    detector, scorer = g4.G4MultiFunctionalDetector(name), g4.G4PSEnergyDeposit("deposit", 0)
    detector.RegisterPrimitive(scorer)
    return detector, scorer


def along(shot: Shot) -> Array:
    """Axes x, y, z of the particle's frame as rows, (3, 3); z is its direction."""
    sin_theta, cos_theta = math.sin(shot.theta), math.cos(shot.theta)
    sin_phi, cos_phi = math.sin(shot.phi), math.cos(shot.phi)
    return np.array(
        (
            (cos_theta * cos_phi, cos_theta * sin_phi, -sin_theta),
            (-sin_phi, cos_phi, 0.0),
            (sin_theta * cos_phi, sin_theta * sin_phi, cos_theta),
        )
    )


def on_mesh(job: Job, shot: Shot, energy: Array, place: Array) -> Array:
    """Deposits (n,) at places (n, 3) in mm, added up in the cells: MeV, (n_r * n_phi * n_z,).

    The mesh begins where the particle enters the first layer. phi cell i covers
    [-pi + 2 pi i / n_phi, -pi + 2 pi (i + 1) / n_phi) in the particle's frame.
    """
    axes = along(shot)
    entrance = axes[2] * (job.inner_radius_mm / math.sin(shot.theta))
    x, y, z = axes @ (place - entrance).T
    layer, ring = np.floor(z / job.dz_mm).astype(np.int64), (np.hypot(x, y) / job.dr_mm).astype(np.int64)
    sector = np.floor((np.pi + np.arctan2(y, x)) / (2 * np.pi / job.n_phi)).astype(np.int64)
    sector = np.clip(sector, 0, job.n_phi - 1)
    inside = (layer >= 0) & (layer < job.n_z) & (ring < job.n_r)
    cells = (ring * job.n_phi + sector) * job.n_z + layer
    found = np.bincount(cells[inside], energy[inside], job.n_r * job.n_phi * job.n_z)
    return found.astype(np.float64)
