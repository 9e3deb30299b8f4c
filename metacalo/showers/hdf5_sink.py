"""New HDF5 files that can be given up: a disk that fills, or Ctrl-C, while HDF5 writes.

HDF5 cannot close a file that it cannot write: it prints errors, and the process ends in a segmentation fault. Here it
writes to an object that notes the first error, takes whatever else comes without writing it, and raises the error when
HDF5 has closed the file in good faith.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import h5py

if TYPE_CHECKING:  # collections.abc has it from Python 3.12
    from typing_extensions import Buffer

__all__ = ["Sink", "new_hdf5"]

Result = TypeVar("Result")


class Sink(RawIOBase):
    """A file for h5py to write to, which never fails before it is closed.

    Args:
        path: the file to make.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._error: BaseException | None = None

    def close(self) -> None:
        """Closes the file, whatever was noted."""
        self._file.close()
        super().close()

    def check(self) -> None:
        """Raises the first error that there was in writing."""
        if self._error is not None:
            raise self._error

    def write(self, data: Buffer) -> int:
        """Writes all of it."""
        whole = memoryview(data).cast("B")

        def written() -> int:
            left = whole
            while left:  # a disk that fills takes a part, and refuses the rest
                left = left[self._file.write(left) :]
            return len(whole)

        return self._tried(written, len(whole))

    def readinto(self, buffer: Buffer) -> int:
        """Fills the buffer, with zeros where nothing was written."""
        whole = memoryview(buffer).cast("B")
        whole[:] = bytes(len(whole))

        def filled() -> int:
            left = whole
            while left and (count := self._file.readinto(left)):
                left = left[count:]
            return len(whole)

        return self._tried(filled, len(whole))

    def seek(self, position: int, whence: int = 0) -> int:
        """Goes to a position, as files do."""
        return self._tried(lambda: self._file.seek(position, whence), position)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Makes the file so long."""
        return self._tried(lambda: self._file.truncate(size), size or 0)

    def _tried(self, call: Callable[[], Result], otherwise: Result) -> Result:
        if self._error is None:
            try:
                return call()
            except BaseException as error:
                self._error = error
        return otherwise


@contextmanager
def new_hdf5(path: Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Yields a new HDF5 file, and what raises the error if there was one in writing; it is raised in the end too.

    Raises:
        OSError: the file cannot be written.
    """
    with Sink(path) as sink:
        with h5py.File(sink, "w") as file:
            yield file, sink.check
        sink.check()
