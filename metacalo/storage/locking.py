"""One writer at a time: a second process that is to write the same result ends with an error before it starts to work.

A lock lies beside the result, as `.<name>.lock`, and says who holds it. The kernel gives it back when its process
ends, however it ends, so that none is ever in the way of anybody. On NFS the kernel makes it a lock of the server,
which other hosts see; on a file system without locks nothing is locked, and two writers are not noticed.
"""

from __future__ import annotations

import errno
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from metacalo.errors import OutputError
from metacalo.storage.atomic import clear_leftovers
from metacalo.storage.checkpoint import require_free

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["sole_writer", "writer_of"]

_NO_LOCKS: Final = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}
_BETWEEN_TRIES: Final = 0.1  # seconds
_TRIES: Final = 5  # who only looks whether there is a writer holds the lock for an instant


@contextmanager
def sole_writer(path: str | Path, *, force: bool = True, wait: bool = False) -> Iterator[None]:
    """Keeps other processes from writing the file or folder `path` for as long as the block runs.

    What killed processes left beside `path` is cleared away first (`durable.clear_leftovers`). Folders that `path` lies
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
            handle = _taken(path, wait)
        except OSError as error:
            raise OutputError.refused(path, error) from error
        try:
            clear_leftovers(path)
            require_free(path, force)
            yield
        finally:
            _give_back(handle, _lock_of(path))
    finally:
        with suppress(OSError):  # the first that is not empty ends it
            for place in made:
                place.rmdir()


def writer_of(path: str | Path) -> str | None:
    """The process that is writing `path`, such as `PID 123 on host a`; None where there is none."""
    lock = _lock_of(Path(path))
    try:
        handle = os.open(lock, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _locked(handle) else _writer(handle)
    finally:
        os.close(handle)


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _taken(path: Path, wait: bool) -> int:
    """An open lock file that this process alone has locked."""
    lock, tries = _lock_of(path), 0
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _locked(handle):
                tries += 1
                if not wait and tries == _TRIES:
                    raise OutputError(
                        f"{path}: another metacalo process ({_writer(handle)}) is writing it; wait for it or choose "
                        "another --out"
                    )
                time.sleep(_BETWEEN_TRIES)
            elif _is_at(handle, lock):  # and not one that was removed between the two calls
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"PID {os.getpid()} on host {platform.node()}".encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _give_back(handle: int, lock: Path) -> None:
    if _is_at(handle, lock):
        with suppress(OSError):
            lock.unlink()  # while it is held: who waits for it looks whether it is still there
    os.close(handle)


def _locked(handle: int) -> bool:
    """Locks an open file for this process; False where another one has."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _writer(handle: int) -> str:
    return os.pread(handle, 200, 0).decode(errors="replace") or "unknown PID"
