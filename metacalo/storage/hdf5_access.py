"""Opening HDF5 files for reading, whether their disk has locks or not, and saying why one cannot be read.

A disk without locks, a file that another program still writes, a mark that a writer left when it died, and damage look
alike to HDF5 (all are `OSError`), but each has another mend.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from metacalo.errors import ShowerFileError

__all__ = ["open_hdf5", "read_failure", "scalar"]

_OF_THE_DISK = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN)
_WRITTEN = ("already open for write", "already open for swmr", "consistency flags")
_OF_THE_LOCK = ("unable to lock file", "file locking", "No locks available")


def open_hdf5(path: Path) -> h5py.File:
    """The file, open for reading: with a lock where that can be had, else without, as on disks that have none (NFS).

    A program that has the file open already must open it with the same kind of lock, so that all kinds are tried.

    Raises:
        ShowerFileError: it cannot be read; why, and what to do.
    """
    failed: OSError | None = None
    for locking in (None, False, True, "best-effort"):
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            failed = failed or error
            if not any(mark in str(error) for mark in _OF_THE_LOCK):
                failed = error
                break
    assert failed is not None
    raise ShowerFileError(f"{path}: {read_failure(failed)}")


def read_failure(error: Exception) -> str:
    """Why reading failed and what to do, as the end of a sentence that begins with the name of a file."""
    said = " ".join(str(error).split())
    reason = said[:300]
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"errno = (\d+)", said)):
        number = int(found[1])
    if isinstance(error, PermissionError) or number in (errno.EACCES, errno.EPERM):
        return "you may not read it; change its permissions"
    if any(mark in said for mark in _WRITTEN):
        return (
            "a writer has it open, or died without closing it: wait for the writer, or, if there is none any more, "
            "clear the mark that it left (h5clear -s FILE)"
        )
    if number in (errno.EAGAIN, errno.EWOULDBLOCK):
        return "another program holds a lock on it; wait until that program has closed it"
    if number in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        return "its disk has no locks; set HDF5_USE_FILE_LOCKING=FALSE and give the command again"
    if number in _OF_THE_DISK:
        return f"its disk or network failed ({reason}); give the command again when it is back"
    if "truncated" in said:
        return f"the file is truncated ({reason}); copy it again, or wait until it is written to its end"
    return f"it cannot be read ({reason}); the file is damaged, or still being written: copy it again"


def scalar(value: Any) -> Any:
    """The value itself where a writer has put it into an array of shape (1,), as MATLAB does; text as str."""
    if isinstance(value, np.ndarray) and value.shape in {(), (1,)}:
        value = value.reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
