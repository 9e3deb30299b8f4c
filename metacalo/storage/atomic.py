"""What a result goes through on its way to its name, so that neither a kill nor a power cut leaves half of one.

A result is made under a temporary name beside its own, `.<name>.tmp-<PID>-<host>`, flushed to the disk, and put in
place; then its folder is flushed, for a rename is not on the disk before. What a killed process leaves
under such a name is removed by the next one that writes the same result. The name holds the host, because disks are
shared and a PID means nothing elsewhere: what another host left stays, for its writer may be alive.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["clear_leftovers", "discard", "finish_set", "put_in_place", "put_set_in_place", "remove", "temporary_beside"]

_GONE: Final = ".gone"  # marks a file of an old set that is to be removed


def temporary_beside(path: Path, kind: str = "tmp") -> Path:
    """A name beside `path` for this process alone; what an earlier one of the same PID left there is removed."""
    place = path.with_name(f".{path.name}.{kind}-{os.getpid()}-{_host()}")
    remove(place)
    return place


def clear_leftovers(path: Path) -> None:
    """Removes what killed processes of this host left beside `path` while they wrote it.

    An old folder that one of them had moved away, to put a new one in its place, is put back where none is there.
    """
    for place, kind in _left_beside(path):
        if kind == "old" and not os.path.lexists(path):
            with suppress(OSError):  # another process was first
                place.rename(path)
        else:
            remove(place)


def put_in_place(temporary: Path, path: Path) -> None:
    """Gives a finished file or folder its name, in the place of what has it.

    A file replaces another in one step. An old folder is moved away first, and removed when the new one is in place;
    `clear_leftovers` puts it back if the process is killed between the two steps.

    Raises:
        OSError: the system refused; `path` is as it was.
    """
    _flush_all(temporary)
    if not temporary.is_dir():
        temporary.replace(path)
    elif not os.path.lexists(path):
        temporary.rename(path)
    else:
        _replace_folder(temporary, path)
    _flush(path.parent)


def put_set_in_place(temporary: Path, path: Path, stale: Iterable[Path] = ()) -> None:
    """Gives all files of a folder their names beside `path`, one of which is `path`; `stale` ones go with the old set.

    From the moment the folder is named ready, a kill leaves a set that `finish_set` completes. Meanwhile `path` is the
    first to go and the last to come, so that it never lies beside files of another set.

    Raises:
        OSError: the system refused.
    """
    ready = _ready(path)
    _flush_all(temporary)
    for place in stale:
        (temporary / f"{place.name}{_GONE}").touch()
    temporary.rename(ready)
    _flush(path.parent)
    finish_set(path)


def finish_set(path: Path) -> None:
    """Completes what `put_set_in_place` had begun for `path` when its process was killed; nothing if it had not.

    Raises:
        OSError: the system refused.
    """
    ready = _ready(path)
    if not ready.is_dir():
        return
    if (ready / path.name).exists():
        path.unlink(missing_ok=True)
    for place in sorted(ready.iterdir(), key=lambda place: place.name == path.name):
        if place.name.endswith(_GONE):
            path.with_name(place.name.removesuffix(_GONE)).unlink(missing_ok=True)
            place.unlink()
        else:
            place.replace(path.with_name(place.name))
    ready.rmdir()
    _flush(path.parent)


def _ready(path: Path) -> Path:
    return path.with_name(f".{path.name}.ready")


def discard(path: Path) -> None:
    """Removes a folder whose content is no longer needed: it is gone at once, or not at all.

    Raises:
        OSError: the system refused.
    """
    doomed = temporary_beside(path)
    path.rename(doomed)
    remove(doomed)


def remove(path: Path) -> None:
    """Removes a file or a folder with all in it, as far as the system lets it."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _replace_folder(temporary: Path, path: Path) -> None:
    retired = temporary_beside(path, "old")
    path.rename(retired)
    try:
        temporary.rename(path)
    except BaseException:
        retired.rename(path)
        raise
    remove(retired)


def _left_beside(path: Path) -> Iterator[tuple[Path, str]]:
    """What dead processes of this host left, and of which kind it is."""
    left = re.compile(rf"\.{re.escape(path.name)}\.(tmp|old)-(\d+)-{re.escape(_host())}")
    try:
        names = os.listdir(path.parent)  # noqa: PTH208 names are enough, and there may be many
    except OSError:
        return
    for name in names:
        found = left.fullmatch(name)
        if found and not _is_alive(int(found[2])):
            yield path.with_name(name), found[1]


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # there is no harmless question
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _host() -> str:
    return platform.node().replace(os.sep, "_") or "localhost"


def _flush_all(path: Path) -> None:
    """Flushes a file, or all in a folder and the folder, to the disk."""
    for place in path.iterdir() if path.is_dir() else ():
        _flush_all(place)
    _flush(path)


def _flush(path: Path) -> None:
    is_folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        if is_folder:  # one that may be written but not read, or a system that opens none
            return
        raise
    try:
        os.fsync(handle)
    except OSError:
        if not is_folder:  # some file systems have no flush of folders
            raise
    finally:
        os.close(handle)
