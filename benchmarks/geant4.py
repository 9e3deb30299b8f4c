"""What `metacalo simulate` makes, against what showers are known to be and against the showers that ship.

    python -m benchmarks.geant4

For each task it simulates showers of 10 GeV at normal incidence, and others of the energies and angles of the file that
ships. Two tables are printed: depth of the shower maximum against ln(E/E_c) - 0.5, containment within a Moliere radius,
energy balance, sampling fraction, resolution and speed; and the observables of both files, as residuals around their
trend in ln E and in the angle, so that no two showers need the same energy. There are `--showers` of either kind.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from metacalo.errors import MetacaloError
from metacalo.evaluate.observables import Observables, observables
from metacalo.showers import Detector, Showers, data_folder, open_showers
from metacalo.simulate.run import Simulated, SimulateSettings, simulate

__all__ = ["Difference", "differences", "main", "maximum", "trend"]

TASKS = ("siw", "scipb", "pbwo4", "pblar")
ENERGY_GEV = 10.0
COMPARED = (
    "response",
    "longitudinal_mean",
    "longitudinal_width",
    "lateral_mean",
    "lateral_width",
    "occupancy",
    "max_fraction",
    "leading_fraction",
)

Array = NDArray[np.float64]


class Difference(NamedTuple):
    """Mean of an observable over shipped and simulated showers at the same energies and angles, and its error."""

    name: str
    shipped: float
    simulated: float
    error: float

    @property
    def sigmas(self) -> float:
        """Difference over its error."""
        return (self.simulated - self.shipped) / self.error


def maximum(profile: Array, depth_x0: float) -> float:
    """Depth of the maximum of a mean profile (Z,) in X0: of the gamma distribution fitted to its core.

    Longo and Sestili: dE/dt ~ t^a exp(-b t), whose logarithm is linear in ln t and t, with its maximum at a / b.

    Args:
        profile: mean energy of the layers.
        depth_x0: depth of a layer in X0.
    """
    core = profile > 0.2 * profile.max()
    t, energy = (np.arange(len(profile)) + 0.5)[core] * depth_x0, profile[core]
    columns = np.stack([np.ones_like(t), np.log(t), -t], axis=1)
    (_, a, b), *_ = np.linalg.lstsq(columns * energy[:, None], np.log(energy) * energy, rcond=None)
    return float(a / b)


def trend(energy: Array, theta: Array) -> Array:
    """What observables are expected to follow: a constant, ln E and its square, 1 / sin theta; (N, 4)."""
    logarithm = np.log(energy)
    return np.stack([np.ones_like(logarithm), logarithm, logarithm**2, 1 / np.sin(theta)], axis=1)


def differences(shipped: Showers, simulated: Showers) -> list[Difference]:
    """Each observable of `COMPARED` at the conditions of the simulated showers.

    The shipped ones' value there is their trend's; the error has the spread of residuals of either sample.
    """
    there, here = (observables(s.showers, s.energy) for s in (shipped, simulated))
    known = trend(*(np.asarray(values, np.float64) for values in (shipped.energy, shipped.theta)))
    wanted = trend(*(np.asarray(values, np.float64) for values in (simulated.energy, simulated.theta)))
    found = []
    for name in COMPARED:
        old, new = getattr(there, name), getattr(here, name)
        coefficients, *_ = np.linalg.lstsq(known, old, rcond=None)
        residuals, spread = new - wanted @ coefficients, (old - known @ coefficients).std()
        error = math.hypot(residuals.std(ddof=1) / math.sqrt(len(new)), spread / math.sqrt(len(old)))
        expected = float((wanted @ coefficients).mean())
        found.append(Difference(name, expected, expected + float(residuals.mean()), error))
    return found


def _load(path: Path) -> Showers:
    with open_showers(path) as file:
        return file.load()


def _row(made: Simulated, seen: Observables, detector: Detector) -> list[str]:
    n = len(seen)
    depth = maximum(seen.layer_energy.mean(axis=0), detector.grid.dz_mm / detector.X0_mm)
    expected = math.log(1e3 * ENERGY_GEV / detector.E_c_MeV) - 0.5
    rings = round(detector.R_M_mm / detector.grid.dr_mm)
    within = 100 * seen.ring_fraction[:, :rings].sum(axis=1)
    resolution = 100 * seen.response.std(ddof=1) / seen.response.mean() * math.sqrt(ENERGY_GEV)
    return [
        f"{depth:.2f}",
        f"{expected:.2f}",
        f"{within.mean():.1f}({within.std() / math.sqrt(n):.1f})",
        f"{made.balance:.4f}",
        f"{resolution:.1f}({resolution / math.sqrt(2 * max(1, n - 1)):.1f})",
    ]


def run(tasks: Sequence[str], showers: int, workers: int | None, seed: int) -> tuple[Table, Table]:
    """Both tables."""
    physics = Table(
        "task",
        "maximum [X0]",
        "ln(E/E_c) - 0.5",
        "within R_M [%]",
        "balance",
        "resolution [%/sqrt E]",
        "sampling fraction",
        "shipped",
        "ms/GeV",
        title=f"{showers} showers of {ENERGY_GEV:g} GeV; the last three columns: of as many of 1-100 GeV",
    )
    compared = Table("task", "observable", "shipped", "simulated", "error", "sigmas", title="against the shipped file")
    for task in tasks:
        description = data_folder("tasks") / task / "detector.toml"
        with tempfile.TemporaryDirectory() as folder:
            common = SimulateSettings(showers=showers, workers=workers, seed=seed)
            fixed = common.model_copy(update={"energy": f"{ENERGY_GEV:g}", "theta": f"{math.pi / 2}", "phi": "0"})
            at_one = simulate(description, Path(folder) / "fixed.h5", fixed)
            spread = simulate(description, Path(folder) / "spread.h5", common)
            single, many = _load(at_one.path), _load(spread.path)
        shipped = _load(data_folder("tasks") / task / "showers.h5")
        assert shipped.detector is not None
        row = _row(at_one, observables(single.showers, single.energy), spread.prepared.detector)
        sampling = f"{spread.sampling_fraction:.4f}({spread.error:.4f})"
        fraction = f"{shipped.detector.sampling_fraction:.4f}"
        physics.add_row(task, *row, sampling, fraction, f"{spread.ms_per_GeV:.1f}")
        for found in differences(shipped, many):
            values = (f"{value:.4f}" for value in (found.shipped, found.simulated, found.error))
            compared.add_row(task, found.name, *values, f"{found.sigmas:+.1f}")
    return physics, compared


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--showers", type=int, default=100, help="of either kind, for each task")
    parser.add_argument("--workers", type=int, help="processes; by default one for each core")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    try:
        tables = run(chosen.tasks, chosen.showers, chosen.workers, chosen.seed)
    except MetacaloError as error:
        raise SystemExit(f"geant4: {error}") from None
    for table in tables:
        Console(width=160).print(table)


if __name__ == "__main__":
    main()
