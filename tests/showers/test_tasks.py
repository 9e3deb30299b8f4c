from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from metacalo.errors import DetectorError, ShowerFileError, UnknownNameError
from metacalo.showers import (
    Grid,
    Showers,
    Task,
    data_folder,
    discover_tasks,
    resolve_task,
    training_tasks,
    write_showers,
)

FOUR = {"siw", "scipb", "pbwo4", "pblar"}


def test_shipped_tasks(tasks: dict[str, Task]) -> None:
    assert set(tasks) >= FOUR
    assert sum(name.startswith("family/") for name in tasks) == 30
    for name, task in tasks.items():
        assert task.name == name
        assert task.n_showers >= 100
        assert np.isfinite(task.detector.descriptors()).all()


@pytest.mark.parametrize("name", [*sorted(FOUR), "family/Fe-Si-25"])
def test_a_task_opens(tasks: dict[str, Task], name: str) -> None:
    with tasks[name].open() as file:
        assert len(file) == tasks[name].n_showers
        assert file.detector == tasks[name].detector
        assert file.load([0, 1]).showers.shape == (2, *file.grid.shape)


def test_shipped_sizes() -> None:
    sizes = [path.stat().st_size for path in data_folder("tasks").rglob("*") if path.is_file()]
    assert max(sizes) < 9.9e6
    assert sum(sizes) < 28.5e6


def test_no_two_shipped_detectors_have_equal_descriptors(tasks: dict[str, Task]) -> None:
    assert len({task.detector.descriptors().tobytes() for task in tasks.values()}) == len(tasks)


def test_holdout_drops_all_of_the_same_materials(tasks: dict[str, Task]) -> None:
    kept = {task.name for task in training_tasks(tasks, ["PbLAr"])}
    assert set(tasks) - kept == {"pblar", "family/Pb-LAr-04", "family/Pb-LAr-14", "family/Pb-LAr-24"}
    assert len(training_tasks(tasks)) == len(tasks)
    both = {task.name for task in training_tasks(tasks, ["pbwo4", "family/W-Si-00"])}
    assert set(tasks) - both == {"pbwo4", "siw", "family/W-Si-00", "family/W-Si-10", "family/W-Si-20"}


def test_unknown_holdout(tasks: dict[str, Task]) -> None:
    with pytest.raises(UnknownNameError, match=r"^unknown task 'pblr' .*did you mean 'pblar'\?$"):
        training_tasks(tasks, ["pblr"])


def own_task(folder: Path, siw: Showers, name: str = "mine") -> Path:
    place = folder / name
    write_showers(place / "showers.h5", siw)
    (place / "detector.toml").write_text(siw.detector.to_toml(), encoding="utf-8")
    return place


def test_adding_a_detector_is_adding_a_folder(tmp_path: Path, siw: Showers) -> None:
    place = own_task(tmp_path, siw)
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("not a task")
    tasks = discover_tasks(tmp_path)
    assert list(tasks) == ["mine"]
    assert tasks["mine"] == Task("mine", siw.detector, place / "showers.h5", None, 12)
    assert set(discover_tasks(data_folder("tasks"), tmp_path)) == {*discover_tasks(), "mine"}


def test_resolving(tmp_path: Path, siw: Showers, tasks: dict[str, Task], par04: Path) -> None:
    place = own_task(tmp_path, siw)
    assert resolve_task("family/Pb-LAr-04") == tasks["family/Pb-LAr-04"]
    assert resolve_task("mine", tmp_path) == resolve_task(place)
    from_file = resolve_task(place / "showers.h5")
    assert (from_file.name, from_file.detector) == ("showers", siw.detector)
    with pytest.raises(UnknownNameError, match=r"unknown task 'siww' .*did you mean 'siw'"):
        resolve_task("siww")
    with pytest.raises(UnknownNameError, match="family/Pb-LAr-04"):
        resolve_task(data_folder("tasks") / "family")
    with pytest.raises(ShowerFileError, match=r"plane\.h5: there is no such file; did you mean 'plain\.h5'"):
        resolve_task(par04.with_name("plane.h5"))
    with pytest.raises(DetectorError, match=r"plain\.h5: its detector is unknown; describe it by --absorber"):
        resolve_task(par04)


def test_incomplete_tasks_are_reported(tmp_path: Path, siw: Showers) -> None:
    place = own_task(tmp_path, siw)
    with pytest.raises(DetectorError, match=r"a task 'mine' is in .* too; rename one"):
        discover_tasks(tmp_path, tmp_path)
    (place / "detector.toml").write_text(siw.detector.to_toml().replace("n_r = 9", "n_r = 18"), encoding="utf-8")
    with pytest.raises(DetectorError, match=r"on 9 x 16 x 45 cells, but 'SiW' is described with 18 x 16 x 45"):
        discover_tasks(tmp_path)
    (place / "showers.h5").unlink()
    with pytest.raises(ShowerFileError, match=r"showers\.h5: there is no such file"):
        discover_tasks(tmp_path)
    shutil.rmtree(place)
    with pytest.raises(ShowerFileError, match="there is no such folder of tasks"):
        discover_tasks(place)


def test_mesh_of_a_task_is_its_own(tasks: dict[str, Task]) -> None:
    assert tasks["pblar"].detector.grid == Grid(9, 16, 45, 17.7, 12.0)
