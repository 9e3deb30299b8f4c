"""One writer at a time: a second process that is to write the same result ends with an error before it starts to work.

A lock lies beside the result, as `.<name>.lock`, and holds the PID and host of its owner. The kernel releases it when
that process ends, however it ends, so that no lock is ever left over. On NFS it is a lock of the server, which other
hosts see; on a file system without locks nothing is locked, and two writers are not noticed.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from metacalo.errors import OutputError
from metacalo.storage.atomic import clear_leftovers
from metacalo.storage.checkpoint import require_free

__all__ = ["sole_writer", "writer_of"]

_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}
_PATIENCE: Final = 0.5  # seconds: `writer_of` holds the lock for an instant


@contextmanager
def sole_writer(path: str | Path, *, force: bool = True, wait: bool = False) -> Iterator[None]:
    """Keeps other processes from writing the file or folder `path` for as long as the block runs.

    What killed processes left beside `path` is cleared away first (`atomic.clear_leftovers`). Folders that `path` lies
    in are made, and removed again where nothing came to lie in them.

    Args:
        path: the result.
        force: whether `path` may exist.
        wait: until another process has finished, instead of an error.

    Raises:
        OutputError: another process is writing `path`, it exists and not `force`, or its folder cannot be written.
    """
    path = Path(path)
    require_free(path, force)
    made = [place for place in path.absolute().parents if not place.exists()]
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = _acquired(path, wait)
        except OSError as error:
            raise OutputError.refused(path, error) from error
        try:
            clear_leftovers(path)
            require_free(path, force)
            yield
        finally:
            with suppress(OSError):
                _lock_of(path).unlink()  # while it is held: whoever waits for it notices, and makes another
            lock.release()
    finally:
        with suppress(OSError):  # the first that is not empty ends it
            for place in made:
                place.rmdir()


def writer_of(path: str | Path) -> str | None:
    """The process that is writing `path`, such as `PID 123 on host a`; None where there is none."""
    lock = _lock_of(Path(path))
    if not lock.exists():
        return None
    try:
        with FileLock(lock, blocking=False):
            return None
    except Timeout:
        return _owner(lock)
    except OSError:
        return None


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _acquired(path: Path, wait: bool) -> FileLock:
    lock = FileLock(_lock_of(path), timeout=-1 if wait else _PATIENCE, mode=0o666)
    try:
        lock.acquire()
        Path(lock.lock_file).write_text(f"PID {os.getpid()} on host {platform.node()}", encoding="utf-8")
    except Timeout:
        owner = _owner(Path(lock.lock_file))
        raise OutputError(
            f"{path}: another metacalo process ({owner}) is writing it; wait for it or choose another --out"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return lock


def _owner(lock: Path) -> str:
    with suppress(OSError):
        return lock.read_text(encoding="utf-8", errors="replace")[:200] or "unknown PID"
    return "unknown PID"
