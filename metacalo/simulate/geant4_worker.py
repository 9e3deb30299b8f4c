"""A process that simulates one shower after the other, as `Job` and `Shot` say.

It is started by `python -m metacalo.simulate.geant4_worker`.

It reads lines from its standard input and writes messages to its standard output; Geant4's own words go to standard
error. Nothing but here is geant4_pybind imported: it wants its environment before, and its end is not safe.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import sys
import time
from difflib import get_close_matches
from typing import Any, BinaryIO

import numpy as np

from metacalo.simulate.geometry import construction
from metacalo.simulate.job import Job, Role, Shot
from metacalo.simulate.mesh_deposits import Points, along, on_mesh, recorder, summed
from metacalo.simulate.records import Deposits, as_json, write_message

__all__ = ["Simulation", "main"]


class Simulation:
    """Geant4, set up for a job; there can be one in a process.

    Raises:
        ValueError: geant4_pybind has no such physics or particle.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.points = job, Points()
        self.g4: Any = importlib.import_module("geant4_pybind")
        self.scorers: dict[Role, Any] = {}
        self.manager = self.g4.G4RunManager()
        self.manager.SetVerboseLevel(0)
        self.alive = [construction(self.g4, job, self._detectors()), self._physics(), self._actions()]
        for part in self.alive:
            self.manager.SetUserInitialization(part)
        self.manager.Initialize()
        self.manager.BeamOn(0)  # makes the tables of cross sections: what is missing is missed here

    @property
    def version(self) -> str:
        """Geant4's, such as 11.4.1."""
        text = str(self.manager.GetVersionString())
        found = re.search(r"geant4-(\d+)-(\d+)(?:-patch-(\d+))?", text)
        return ".".join(str(int(part or 0)) for part in found.groups()) if found else text.strip()

    def _detectors(self) -> dict[Role, Any]:
        def add(role: Role) -> Any:
            detector, self.scorers[role] = summed(self.g4, role)
            return detector

        return {
            "active": lambda: recorder(self.g4, "active", self.points, direct_reads=self.job.direct_reads),
            "passive": lambda: add("passive"),
            "front": lambda: add("front"),
        }

    def _physics(self) -> Any:
        g4, name = self.g4, self.job.physics
        kind = getattr(g4, name, None)
        if not isinstance(kind, type) or not issubclass(kind, (g4.G4VPhysicsConstructor, g4.G4VModularPhysicsList)):
            known = [other for other in dir(g4) if _is_physics(g4, other)]
            near = get_close_matches(name, known, n=3, cutoff=0.4)
            raise ValueError(f"--physics {name}: geant4_pybind has no such physics; near it are {', '.join(near)}")
        if issubclass(kind, g4.G4VModularPhysicsList):
            physics = kind()
        else:
            physics = g4.G4VModularPhysicsList()
            self.constructor = kind()
            physics.RegisterPhysics(self.constructor)
        physics.SetVerboseLevel(0)
        physics.SetDefaultCutValue(self.job.production_cut_mm * g4.mm)
        parameters = g4.G4EmParameters.Instance()
        parameters.SetVerbose(0)
        parameters.SetWorkerVerbose(0)
        parameters.SetMaxEnergy(10 * g4.TeV)
        return physics

    def _actions(self) -> Any:
        g4: Any = self.g4
        simulation = self

        class Gun(g4.G4VUserPrimaryGeneratorAction):
            def __init__(self) -> None:
                super().__init__()
                self.gun = g4.G4ParticleGun(1)

            def GeneratePrimaries(self, event: Any) -> None:  # noqa: N802
                shot = simulation.shot
                particle = g4.G4ParticleTable.GetParticleTable().FindParticle(simulation.job.particle)
                self.gun.SetParticleDefinition(particle)
                self.gun.SetParticleEnergy(shot.energy * g4.MeV)
                self.gun.SetParticlePosition(g4.G4ThreeVector())
                self.gun.SetParticleMomentumDirection(g4.G4ThreeVector(*along(shot)[2]))
                self.gun.GeneratePrimaryVertex(event)

        class End(g4.G4UserEventAction):
            def EndOfEventAction(self, event: Any) -> None:  # noqa: N802
                collections = event.GetHCofThisEvent()
                simulation.sums = {
                    role: sum(value for _, value in collections.GetHC(scorer.GetCollectionID(0)))
                    for role, scorer in simulation.scorers.items()
                }

        class Actions(g4.G4VUserActionInitialization):
            def Build(self) -> None:  # noqa: N802
                self.kept = Gun(), End()
                for action in self.kept:
                    self.SetUserAction(action)

        return Actions()

    def shoot(self, shot: Shot) -> Deposits:
        """Simulates one shower; the same shot gives the same deposits, whatever was simulated before."""
        started = time.process_time()
        self.shot, self.sums = shot, dict[Role, float]()
        self.points.clear()
        self.g4.G4Random.setTheSeed(shot.seed)
        self.manager.BeamOn(1)
        energy, place = self.points.arrays()
        voxels = on_mesh(self.job, shot, energy, place).astype(np.float32)
        cells = np.flatnonzero(voxels).astype(np.int32)
        return Deposits(
            shot.index,
            shot.energy,
            shot.theta,
            shot.phi,
            float(energy.sum()),
            float(self.sums.get("passive", 0.0)),
            float(self.sums.get("front", 0.0)),
            time.process_time() - started,
            cells,
            voxels[cells],
        )


def _is_physics(g4: Any, name: str) -> bool:
    kind = getattr(g4, name)
    return isinstance(kind, type) and issubclass(kind, (g4.G4VPhysicsConstructor, g4.G4VModularPhysicsList))


def _channel() -> BinaryIO:
    """Standard output for messages alone: whatever else prints goes to standard error from now on."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return channel


def main() -> None:
    """Serves until the input ends, then leaves without Geant4's own end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    channel, code = _channel(), 0
    try:
        simulation = Simulation(Job.from_json(sys.stdin.buffer.readline()))
        write_message(channel, "ready", as_json({"geant4": simulation.version}))
        while line := sys.stdin.buffer.readline():
            write_message(channel, "shower", simulation.shoot(Shot.from_json(line)).to_bytes())
    except BrokenPipeError:
        code = 1
    except Exception as error:
        write_message(channel, "failed", str(error).encode())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
