from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metacalo.errors import ConfigError
from metacalo.showers import Detector, discover_tasks
from metacalo.simulate import families
from metacalo.simulate.families import FamilySettings, detectors_of, simulate_family
from metacalo.simulate.run import SimulateSettings
from tests.geant4 import needs_geant4

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "family.toml"

FEW = """
detectors = 3
pairs = [["Pb", "PVT"], ["Fe", "PVT"]]
absorber_X0 = [0.8, 1.0]
active_mm = { PVT = [3.0, 6.0] }

[beam]
energy_GeV = "0.1:0.3"
"""


@pytest.fixture
def few(tmp_path) -> Path:
    path = tmp_path / "family.toml"
    path.write_text(FEW, encoding="utf-8")
    return path


def test_the_example_has_the_ranges_of_the_family_that_ships():
    drawn = detectors_of(FamilySettings.from_toml(EXAMPLE))
    shipped = [task.detector for name, task in discover_tasks().items() if name.startswith("family/")]
    assert len(drawn) == len(shipped) == 30

    def pairs(detectors: list[Detector]) -> list[tuple[str, str]]:
        return sorted(detector.family for detector in detectors)

    assert pairs(drawn) == pairs(shipped)
    assert all(detector.grid.shape == (9, 16, 45) for detector in drawn)
    # each descriptor of the shipped ones lies within what many draws of the example span, and not far from their ends
    many = FamilySettings.from_toml(EXAMPLE).model_copy(update={"detectors": 1000})
    wide = np.array([detector.descriptors() for detector in detectors_of(many)])
    here = np.array([detector.descriptors() for detector in shipped])
    span = wide.max(axis=0) - wide.min(axis=0)
    assert (here.min(axis=0) >= wide.min(axis=0) - 0.05 * span - 0.05).all()
    assert (here.max(axis=0) <= wide.max(axis=0) + 0.05 * span + 0.05).all()
    assert (np.ptp(here, axis=0) >= 0.5 * span - 1e-6).all()


def test_detectors_follow_from_the_seed_and_their_number():
    example = FamilySettings.from_toml(EXAMPLE)
    assert detectors_of(example)[:5] == detectors_of(example.model_copy(update={"detectors": 5}))
    assert detectors_of(example) != detectors_of(example.model_copy(update={"seed": 2}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[0.8, 1.0]", "[1.0, 0.8]"), r"range \[1, 0.8\] of 'absorber_X0'"),
        (("{ PVT", "{ Si"), "a pair has the active material 'PVT', which has no range in active_mm"),
        (("detectors = 3", "detector = 3"), "unknown key 'detector'; did you mean 'detectors'"),
    ],
)
def test_a_wrong_family_is_one_sentence(tmp_path, few, change, words):
    few.write_text(FEW.replace(*change), encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        simulate_family(few, tmp_path / "showers.h5")


@needs_geant4
def test_a_family_is_a_folder_of_tasks_and_goes_on_after_an_end(few, tmp_path, monkeypatch):
    out, settings = tmp_path / "tasks" / "mine" / "showers.h5", SimulateSettings(showers=3, workers=1)
    original, begun = families.simulate_prepared, []

    def ends(prepared, *message, **more):
        begun.append(prepared.detector.name)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return original(prepared, *message, **more)

    monkeypatch.setattr(families, "simulate_prepared", ends)
    with pytest.raises(KeyboardInterrupt):
        simulate_family(few, out, settings)
    made = simulate_family(few, out, settings, resume=True)
    assert begun == ["Pb-PVT-00", "Fe-PVT-01", "Pb-PVT-02", "Pb-PVT-02"]
    tasks = discover_tasks(out.parents[1])
    assert list(tasks) == ["mine/Fe-PVT-01", "mine/Pb-PVT-00", "mine/Pb-PVT-02"]
    assert {task.n_showers for task in tasks.values()} == {3}
    assert {task.detector for task in tasks.values()} == set(made.detectors)
    assert all(task.detector.sampling_fraction for task in tasks.values())
    energies = []
    for task in tasks.values():
        with task.open() as file:
            assert np.isfinite(file.load().showers).all()
            energies += file.energy.tolist()
    assert len(set(energies)) == 9  # each detector has showers of its own
    assert not out.with_name("showers.h5.work").exists()
