"""Tasks: a detector and a sample of its showers, found by looking at folders."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isnan
from pathlib import Path
from typing import Literal

import h5py

from metacalo.detectors.detector import Detector
from metacalo.errors import UNREADABLE, DetectorError, ShowerFileError, UnknownNameError
from metacalo.showers.hdf5_limits import is_own_group
from metacalo.showers.shards import SHOWER_FILE, shard_paths
from metacalo.showers.shower_file import ShowerFile, open_showers
from metacalo.storage.hdf5_access import open_hdf5
from metacalo.typing import PathLike

__all__ = [
    "Task",
    "data_folder",
    "description_path",
    "discover_tasks",
    "resolve_task",
    "shower_location",
    "shower_path",
    "training_tasks",
]

DETECTOR_FILE = "detector.toml"


@dataclass(frozen=True)
class Task:
    """One detector with its showers.

    Attributes:
        name: the folder's name, `family/member` for a member of a family file.
        detector: from detector.toml, or from the attributes of the file.
        path, group: where the showers lie: a file, or a folder or pattern of several.
        n_showers: how many there are.
    """

    name: str
    detector: Detector
    path: Path
    group: str | None
    n_showers: int

    def open(self) -> ShowerFile:
        """The task's showers; use as a context manager."""
        return open_showers(self.path, group=self.group, detector=self.detector)


def data_folder(kind: Literal["tasks", "pretrained"]) -> Path:
    """Where the data that ship with metacalo lie: inside an installed package, else beside it in the repository."""
    package = Path(__file__).parents[1]
    installed = package / "_data" / kind
    return installed if installed.is_dir() else package.parent / kind


def discover_tasks(*folders: PathLike) -> dict[str, Task]:
    """All tasks of the folders (by default: those that ship), by name.

    `folder/name/` with detector.toml and showers.h5 is the task `name`; with only a showers.h5 of many groups it is a
    family, and gives one task `name/group` for each. Several files may stand in for showers.h5, see `shard_paths`.

    Raises:
        ShowerFileError: a folder does not exist, or a task in it has no showers or a wrong file.
        DetectorError: a detector is not described, or two tasks have the same name.
    """
    tasks: dict[str, Task] = {}
    for folder in map(Path, folders or (data_folder("tasks"),)):
        if not folder.is_dir():
            raise ShowerFileError(f"{folder}: there is no such folder of tasks")
        for place in sorted(path for path in folder.iterdir() if path.is_dir()):
            for task in _tasks_of(place):
                if task.name in tasks:
                    raise DetectorError(f"{place}: a task '{task.name}' is in {tasks[task.name].path} too; rename one")
                tasks[task.name] = task
    return tasks


def _tasks_of(place: Path) -> list[Task]:
    description = place / DETECTOR_FILE
    showers = place if _has_shards(place) else place / SHOWER_FILE
    if description.is_file():
        detector = Detector.from_toml(description)
        with open_showers(showers, detector=detector) as file:
            return [Task(place.name, file.detector or detector, showers, None, len(file))]
    return _tasks_of_file(showers, place.name) if showers.exists() else []


def _has_shards(place: Path) -> bool:
    """Whether a folder holds showers, but not in a single `showers.h5`."""
    return place.is_dir() and shard_paths(place) not in ([place], [place / SHOWER_FILE])


def _tasks_of_file(path: Path, name: str, detector: Detector | None = None) -> list[Task]:
    members = [_described_task(path, group, f"{name}/{group}", detector) for group in _groups(path)]
    return members or [_described_task(path, None, name, detector)]


def _groups(path: Path) -> list[str]:
    if not path.is_file() or not h5py.is_hdf5(path):
        return []
    try:
        with open_hdf5(path) as file:
            if "showers" in file:
                return []
            return [name for name in file if is_own_group(file, name)]
    except (ShowerFileError, *UNREADABLE):  # damaged: who opens it says so
        return []


def _assumption(file: ShowerFile, detector: Detector) -> str:
    """What is taken for the detector that a file does not describe, and which cell sizes are not published."""
    cells = f"dr {detector.grid.dr_mm:.4g} mm, dz {detector.grid.dz_mm:.4g} mm"
    whose = "that of CaloChallenge" if file.convention == "calochallenge" else "that of its name"
    axes = [axis for axis, size in (("dr", detector.stated.dr_mm), ("dz", detector.stated.dz_mm)) if isnan(size)]
    guessed = f", {' and '.join(axes)} from its Moliere radius and X0, as they are not published" if axes else ""
    return f"does not describe its detector; {whose} ({detector.name}, {cells}{guessed}) is assumed"


def _described_task(path: Path, group: str | None, name: str, detector: Detector | None = None) -> Task:
    with open_showers(path, group=group, detector=detector) as file:
        if file.detector is None:
            raise DetectorError(
                f"{path}: its detector is unknown; describe it by --absorber and --active, put a {DETECTOR_FILE} "
                "beside it, or give it the attributes absorber_material, absorber_thickness_mm, ..."
            )
        if file.detector_is_assumed:
            warnings.warn(f"{path}: {_assumption(file, file.detector)}; state another by --description", stacklevel=2)
        return Task(name, file.detector, path, group, len(file))


def resolve_task(name_or_path: PathLike, *folders: PathLike, detector: Detector | None = None) -> Task:
    """A task by its shower files or its folder where such a path exists, else by its name in `folders`.

    Args:
        name_or_path: what to look for.
        folders: where names are looked up; by default among the tasks that ship.
        detector: takes the place of what the file says about its detector.

    Raises:
        UnknownNameError: neither a known name nor a path; the sentence has the near match.
        ShowerFileError, DetectorError: the task is there but not usable.
    """
    path, name = Path(name_or_path), str(name_or_path)
    if path.is_file() or path.suffix in {".h5", ".hdf5"}:
        found = {task.name: task for task in _tasks_of_file(path, path.stem, detector)}
    elif any((path / file).is_file() for file in (DETECTOR_FILE, SHOWER_FILE)) or _has_shards(path):
        found = {task.name: task for task in _tasks_of(path)}
    else:
        known = discover_tasks(*folders)
        if name not in known:
            raise UnknownNameError("task", name, known)
        found = {name: known[name]}
    if len(found) != 1:
        raise UnknownNameError("task", name, found)
    task = next(iter(found.values()))
    return task if detector is None else _described_task(task.path, task.group, task.name, detector)


def shower_path(name_or_path: PathLike) -> Path:
    """Where the showers lie that a path, or the name of a task that ships, stands for; a path that exists wins.

    Whether a path exists is left to the one who opens it.

    Raises:
        UnknownNameError: it is close to the name of a task; the sentence has the name.
        ShowerFileError: the task is one of several in a file.

    Example:
        >>> shower_path("siw").name
        'showers.h5'
    """
    path, group = shower_location(name_or_path)
    if group is not None:
        raise ShowerFileError(
            f"task '{name_or_path}' is one of several in a file; give it a file of its own: metacalo convert "
            f"{name_or_path} --format par04 --out {group}.h5"
        )
    return path


def shower_location(name_or_path: PathLike, group: str | None = None) -> tuple[Path, str | None]:
    """Path and group of the showers that a path, or the name of a task that ships, stands for; see `shower_path`."""
    path, name = Path(name_or_path), str(name_or_path)
    if not _could_be_a_name(name):
        return path, group
    known = discover_tasks()
    if name in known:
        return known[name].path, group or known[name].group
    if get_close_matches(name, known, n=1):
        raise UnknownNameError("task", name, known)
    return path, group


def description_path(name_or_path: PathLike) -> Path:
    """The detector.toml that a path, or the name of a task that ships, stands for; a path that exists wins.

    Example:
        >>> description_path("siw").name
        'detector.toml'
    """
    path, name = Path(name_or_path), str(name_or_path)
    shipped = data_folder("tasks") / name / DETECTOR_FILE
    return shipped if _could_be_a_name(name) and shipped.is_file() else path


def _could_be_a_name(name: str) -> bool:
    """Whether it is neither an existing path nor written like one."""
    first, *rest = Path(name).parts or ("",)
    member = len(rest) == 1 and (data_folder("tasks") / first).is_dir() and not Path(rest[0]).suffix
    return (member or name.isidentifier()) and not Path(name).exists()


def training_tasks(tasks: Mapping[str, Task], holdout: Sequence[str] = ()) -> list[Task]:
    """The tasks to train on: all but those held out and every other one of the same pair of materials.

    Holding out `pblar` therefore drops `family/Pb-LAr-04` as well, which would give the answer away.

    Raises:
        UnknownNameError: a held-out name is no task.
    """
    by_lower = {task.name.lower(): task for task in tasks.values()}
    for name in holdout:
        if name.lower() not in by_lower:
            raise UnknownNameError("task", name, tasks)
    out = {by_lower[name.lower()].detector.family for name in holdout}
    return [task for task in tasks.values() if task.detector.family not in out]
