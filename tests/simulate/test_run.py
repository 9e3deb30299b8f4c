"""Real Geant4: small showers, so that a run takes a second or two."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from metacalo.errors import ConfigError, OutputError, SimulationError
from metacalo.showers import data_folder, open_showers
from metacalo.simulate.records import Journal
from metacalo.simulate.run import Simulated, SimulateSettings, simulate
from metacalo.simulate.worker_pool import Pool, WorkerReplacedWarning
from tests.geant4 import SMALL, needs_geant4

pytestmark = needs_geant4

N = 12
SETTINGS = SimulateSettings(showers=N, workers=1)
KILLED = f"""
import os, signal, sys
from metacalo.simulate import run
keep, kept = run._keep, []
def kill_after_the_fourth(journal, deposits):
    keep(journal, deposits)
    kept.append(deposits)
    if len(kept) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
run._keep = kill_after_the_fourth
run.simulate(sys.argv[1], sys.argv[2], run.SimulateSettings(showers={N}, workers=1))
"""


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, detector) -> Simulated:
    """A run that nothing disturbed, of one process."""
    return simulate(detector, tmp_path_factory.mktemp("whole") / "shots.h5", SETTINGS)


def test_the_file_is_what_adapt_takes(whole):
    with open_showers(whole.path) as file:
        showers = file.load()
        assert file.convention == "par04"
        attributes = file.attributes
    assert len(showers) == N
    assert showers.detector == whole.prepared.detector
    assert showers.detector.sampling_fraction == whole.sampling_fraction
    assert (showers.energy >= 100).all()
    assert (showers.energy <= 500).all()
    assert showers.showers[showers.showers > 0].min() >= attributes["threshold_MeV"]
    assert (attributes["particle"], attributes["physics"]) == ("e-", "G4EmStandardPhysics")
    assert attributes["geant4_version"].startswith("11.")
    assert not whole.path.with_name("shots.h5.work").exists()


def test_energy_is_conserved_and_divided_by_the_calibrated_fraction(whole):
    assert whole.balance == pytest.approx(1, abs=0.02)  # what leaves backwards is lost
    with open_showers(whole.path) as file:
        showers = file.load()
    response = showers.showers.sum() / showers.energy.sum()
    assert response == pytest.approx(whole.balance, abs=0.05)  # threshold and what leaves the mesh
    assert 5 * whole.error < whole.sampling_fraction < whole.prepared.detector.mip_sampling_fraction


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_processes_makes_the_same_file(whole, detector, tmp_path, workers):
    out = tmp_path / "other-name.h5"
    simulate(detector, out, SETTINGS.model_copy(update={"workers": workers}))
    assert out.read_bytes() == whole.path.read_bytes()


def test_a_killed_worker_is_replaced_and_the_file_is_the_same(whole, detector, tmp_path, monkeypatch):
    original, done = Pool.showers, []

    def killing(pool, shots, workers):
        for number, deposits in enumerate(original(pool, shots, workers)):
            done.append(deposits.index)
            yield deposits
            if number == 2:
                for worker in list(pool._running):
                    worker.process.kill()

    monkeypatch.setattr(Pool, "showers", killing)
    with pytest.warns(WorkerReplacedWarning, match=r"ended within shower \d+ \(signal 9\); another one takes it over"):
        simulate(detector, tmp_path / "shots.h5", SETTINGS)
    assert sorted(done) == list(range(N))
    assert (tmp_path / "shots.h5").read_bytes() == whole.path.read_bytes()


def test_a_shower_that_kills_every_worker_ends_the_run_and_keeps_the_others(detector, tmp_path, monkeypatch):
    out = tmp_path / "shots.h5"
    original = Pool.showers

    def killing(pool, shots, workers):
        started = pool._start

        def start(number):
            worker = started(number)
            if len(worker_log):
                worker.process.kill()
            worker_log.append(number)
            return worker

        worker_log: list[int] = []
        monkeypatch.setattr(pool, "_start", start)
        for number, deposits in enumerate(original(pool, shots, workers)):
            yield deposits
            if number == 0:
                next(iter(pool._running)).process.kill()

    monkeypatch.setattr(Pool, "showers", killing)
    with (
        pytest.warns(WorkerReplacedWarning),
        pytest.raises(SimulationError, match=r"\(signal 9\), 3 times; go on with --resume"),
    ):
        simulate(detector, out, SETTINGS)
    assert not out.exists()
    journal = Journal(out.with_name("shots.h5.work") / "showers.journal")
    assert len(journal) >= 1
    journal.close()


def test_a_killed_run_goes_on_and_repeats_nothing(whole, detector, tmp_path, monkeypatch):
    out, work = tmp_path / "shots.h5", tmp_path / "shots.h5.work"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(detector), str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    with pytest.raises(OutputError, match=r"an unfinished run is here; give --resume"):
        simulate(detector, out, SETTINGS)
    with pytest.raises(ConfigError, match="had another seed"):
        simulate(detector, out, SETTINGS.model_copy(update={"seed": 2}), resume=True)
    journal = Journal(work / "showers.journal")
    kept = {index for index in range(N) if index in journal}
    journal.close()
    assert len(kept) == 4
    original, asked = Pool.showers, []

    def listening(pool, shots, workers):
        asked.extend(shot.index for shot in shots)
        return original(pool, shots, workers)

    monkeypatch.setattr(Pool, "showers", listening)
    simulate(detector, out, SETTINGS, resume=True)
    assert set(asked) == set(range(N)) - kept
    assert out.read_bytes() == whole.path.read_bytes()
    assert not work.exists()


def test_verbose_shows_what_geant4_prints(whole, detector, tmp_path, capfd):
    simulate(detector, tmp_path / "shots.h5", SETTINGS.model_copy(update={"showers": 1}), verbose=True)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "Geant4 Collaboration" in printed.err


def test_more_showers_begin_with_the_same_ones(whole, detector, tmp_path):
    simulate(detector, tmp_path / "more.h5", SETTINGS.model_copy(update={"showers": 3, "seed": 1}))
    with h5py.File(tmp_path / "more.h5") as few, h5py.File(whole.path) as many:
        np.testing.assert_array_equal(few["incident_energy"], many["incident_energy"][:3])
        raw = few["showers"][:] * few.attrs["sampling_fraction"]
        both = (raw > 0) & (many["showers"][:3] > 0)
        expected = many["showers"][:3] * many.attrs["sampling_fraction"]
        np.testing.assert_allclose(raw[both], expected[both], rtol=1e-5)


@pytest.mark.parametrize("why", ["direct_reads is off", "memory looks wrong"])
def test_direct_reads_and_the_bindings_give_the_same_showers(detector, tmp_path, monkeypatch, whole, why):
    settings = SETTINGS
    if why == "direct_reads is off":
        settings = SETTINGS.model_copy(update={"direct_reads": False})
    else:  # in the workers, so that each step asks the bindings
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(
            "import metacalo.simulate.mesh_deposits as scoring\nscoring._memory = lambda step: None\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(site))
    simulate(detector, tmp_path / "asked.h5", settings)
    assert (tmp_path / "asked.h5").read_bytes() == whole.path.read_bytes()


def test_a_wrong_physics_is_reported_with_near_ones_and_leaves_nothing(detector, tmp_path):
    with pytest.raises(
        ConfigError, match="G4EmStandardPhysiks: geant4_pybind has no such physics; near it are G4EmSta"
    ):
        simulate(detector, tmp_path / "shots.h5", SimulateSettings(showers=1, physics="G4EmStandardPhysiks"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("particle", ["gamma", "e+"])
def test_other_particles_on_a_planar_stack_with_plates_and_a_material_of_its_own(tmp_path, particle):
    text = SMALL.replace("[beam]", f'[beam]\nparticle = "{particle}"\ntheta = 1.4') + (
        '[[layers]]\nmaterial = "mine"\nthickness_mm = 2\n'
        "[materials.mine]\ndensity_g_cm3 = 1.8\ncomposition = { C = 0.9, H = 0.1 }\n"
        '[geometry]\nshape = "planar"\n[[geometry.front]]\nmaterial = "Al"\nthickness_mm = 40\n'
    )
    (tmp_path / "flat.toml").write_text(text, encoding="utf-8")
    made = simulate(tmp_path / "flat.toml", tmp_path / "shots.h5", SimulateSettings(showers=6, energy="0.5"))
    assert made.balance == pytest.approx(1, abs=0.05)
    with open_showers(tmp_path / "shots.h5") as file:
        showers = file.load()
        assert file.attributes["front"] == "40 mm Al"
    assert 0.5 < showers.showers.sum() / showers.energy.sum() < 1.0  # the plate keeps a part
    np.testing.assert_allclose(showers.theta, 1.4, rtol=1e-6)


def test_showers_are_those_of_the_task_that_ships(tmp_path):
    """Sampling fraction and mean depth of PbWO4 and PbLAr's stack against the shipped full simulation at 1 GeV."""
    made = simulate(
        data_folder("tasks") / "pblar" / "detector.toml",
        tmp_path / "shots.h5",
        SimulateSettings(showers=40, energy="1:3", workers=2),
    )
    with open_showers(data_folder("tasks") / "pblar" / "showers.h5") as file:
        rows = np.flatnonzero(file.energy < 3000)[:300]
        shipped, fraction = file.load(rows), float(file.attributes["sampling_fraction"])
    with open_showers(tmp_path / "shots.h5") as file:
        ours = file.load()
    assert abs(made.sampling_fraction - fraction) < 4 * math.hypot(made.error, 0.003)
    for name, of in {"response": _response, "depth": _depth, "radius": _radius}.items():
        here, there = of(ours), of(shipped)
        error = math.hypot(here.std() / math.sqrt(len(here)), there.std() / math.sqrt(len(there)))
        assert abs(here.mean() - there.mean()) < 4 * error + 0.005 * there.mean(), name


def _response(showers) -> np.ndarray:
    return showers.showers.sum(axis=(1, 2, 3)) / showers.energy


def _depth(showers) -> np.ndarray:
    layers = showers.showers.sum(axis=(1, 2))
    return layers @ np.arange(layers.shape[1]) / layers.sum(axis=1) - np.log(showers.energy)


def _radius(showers) -> np.ndarray:
    rings = showers.showers.sum(axis=(2, 3))
    return rings @ np.arange(rings.shape[1]) / rings.sum(axis=1)


def test_a_full_disk_is_one_sentence_and_what_was_finished_stays(detector, tmp_path, monkeypatch):
    original, out = Journal.append, tmp_path / "shots.h5"

    def full(journal, deposits):
        if len(journal) == 3:
            raise OSError(28, "No space left on device")
        original(journal, deposits)

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(OutputError, match=r"showers.journal: cannot be written \(No space left on device\); free some"):
        simulate(detector, out, SETTINGS)
    journal = Journal(out.with_name("shots.h5.work") / "showers.journal")
    assert len(journal) == 3
    journal.close()
