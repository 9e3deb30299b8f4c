"""Finished showers as bytes: what workers send, and what the journal of a run keeps."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Deposits", "Journal", "Message", "read_message", "write_message"]

_FIXED = struct.Struct("<qddddddd")
_HEADER = struct.Struct("<cI")
_ENTRY = struct.Struct("<II")


@dataclass(frozen=True, eq=False)
class Deposits:
    """What one shower left.

    Attributes:
        index: its place in the file.
        energy, theta, phi: MeV and rad.
        active, passive, front: all that was deposited in active sheets, passive ones and plates in front, in MeV.
        seconds: CPU time that it took.
        cells: flat indices (r, phi, z) of the mesh's cells with deposits in active sheets, int32 (n,).
        values: these deposits in MeV, float32 (n,).
    """

    index: int
    energy: float
    theta: float
    phi: float
    active: float
    passive: float
    front: float
    seconds: float
    cells: NDArray[np.int32]
    values: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """Compressed, little-endian."""
        fixed = _FIXED.pack(
            self.index, self.energy, self.theta, self.phi, self.active, self.passive, self.front, self.seconds
        )
        return zlib.compress(fixed + self.cells.astype("<i4").tobytes() + self.values.astype("<f4").tobytes(), 1)

    @classmethod
    def from_bytes(cls, packed: bytes) -> Deposits:
        """The deposits of `to_bytes`."""
        content = zlib.decompress(packed)
        n = (len(content) - _FIXED.size) // 8
        cells = np.frombuffer(content, "<i4", n, _FIXED.size)
        values = np.frombuffer(content, "<f4", n, _FIXED.size + 4 * n)
        index, *numbers = _FIXED.unpack_from(content)
        energy, theta, phi, active, passive, front, seconds = numbers
        return cls(index, energy, theta, phi, active, passive, front, seconds, cells, values)


class Message(NamedTuple):
    """What a worker says: `ready` with JSON, `shower` with deposits, or `failed` with a sentence."""

    kind: str
    content: bytes


_KINDS = {"ready": b"R", "shower": b"S", "failed": b"F"}
_NAMES = {code: name for name, code in _KINDS.items()}


def write_message(stream: BinaryIO, kind: str, content: bytes) -> None:
    """Writes a message as one piece."""
    stream.write(_HEADER.pack(_KINDS[kind], len(content)) + content)
    stream.flush()


def read_message(stream: BinaryIO) -> Message | None:
    """The next message; None where the stream has ended, be it within a message."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    code, length = _HEADER.unpack(header)
    content = stream.read(length)
    return Message(_NAMES[code], content) if len(content) == length else None


class Journal:
    """Showers of an unfinished run, appended one by one; whatever stops the run, all but the last are whole.

    Args:
        path: a file; a half-written last shower is cut off.

    Each entry has its length and a CRC-32 before it, and is on its way to the disk when `append` returns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[int, tuple[int, int]] = {}
        path.touch()
        self._file = path.open("r+b")
        end = 0
        for index, (start, length) in self._scan():
            self._places[index] = start, length
            end = start + length
        self._file.truncate(end)
        self._file.seek(end)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def _scan(self) -> Iterator[tuple[int, tuple[int, int]]]:
        while len(header := self._file.read(_ENTRY.size)) == _ENTRY.size:
            length, checksum = _ENTRY.unpack(header)
            start, packed = self._file.tell(), self._file.read(length)
            if len(packed) < length or zlib.crc32(packed) != checksum:
                return
            yield Deposits.from_bytes(packed).index, (start, length)

    def append(self, deposits: Deposits) -> None:
        """Adds a finished shower."""
        packed = deposits.to_bytes()
        start = self._file.tell() + _ENTRY.size
        self._file.write(_ENTRY.pack(len(packed), zlib.crc32(packed)) + packed)
        self._file.flush()
        self._places[deposits.index] = (start, len(packed))

    def read(self, index: int) -> Deposits:
        """The shower of that index."""
        start, length = self._places[index]
        end = self._file.tell()
        self._file.seek(start)
        packed = self._file.read(length)
        self._file.seek(end)
        return Deposits.from_bytes(packed)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def as_json(values: object) -> bytes:
    """JSON in UTF-8."""
    return json.dumps(values).encode()
