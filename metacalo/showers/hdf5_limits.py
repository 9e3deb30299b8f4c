"""Limits for untrusted HDF5 files: how much memory a dataset can take, and which filters run.

A few kilobytes of HDF5 can declare more rows than there is memory, chunks of gigabytes, or a deflated chunk that
inflates without an end, whatever size it is said to have. All three are noticed before anything is allocated.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, Final

import h5py

from metacalo.errors import UNREADABLE, MetacaloError, ShowerFileError
from metacalo.storage.hdf5_access import read_failure, scalar

__all__ = ["check_chunks", "check_storage", "is_own_group", "naming_read_errors", "read_attributes"]

MOST_ROWS: Final = 2**25
"""Showers of a file: 870 GB of the usual mesh before compression."""

MOST_VOXELS: Final = 2**22
"""Of a shower: a hundred times those of CaloChallenge dataset 3."""

LARGEST_CHUNK: Final = 2**29  # bytes
LARGEST_ATTRIBUTE: Final = 2**20  # bytes
MOST_ATTRIBUTES: Final = 1000
LARGEST_RATIO: Final = 1100  # of deflate: it packs 1032 bytes into one at best
SMALL: Final = 2**26  # bytes of a dataset that may be declared and not stored
INFLATED: Final = 2**28  # bytes that a chunk may inflate to unseen

_KNOWN: Final = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 32000: "lzf"}
_FIRST_PLUGIN: Final = 256  # numbers of filters below are HDF5's own


def check_storage(dataset: h5py.Dataset, where: str) -> None:
    """Refuses a dataset that could take more memory than its file has a right to.

    Args:
        dataset: numbers, its rows along the first axis.
        where: names the file.

    Raises:
        ShowerFileError: too many or too large rows or chunks, more declared than is stored, or a filter that is not
            installed or is known to be unsafe.
    """
    what = f"{where}: '{dataset.name.rpartition('/')[2]}'"
    rows, voxels = (dataset.shape or (1,))[0], math.prod(dataset.shape[1:])
    if rows > MOST_ROWS:
        raise ShowerFileError(f"{what} has {rows:,} rows, at most {MOST_ROWS:,} are read; split the file")
    if voxels > MOST_VOXELS:
        raise ShowerFileError(f"{what} has rows of {voxels:,} voxels, at most {MOST_VOXELS:,} are read; rebin it")
    size = rows * voxels * dataset.dtype.itemsize
    if size > SMALL + LARGEST_RATIO * dataset.id.get_storage_size():
        raise ShowerFileError(
            f"{what} is declared with {size:,} bytes, but hardly any of them are stored; write all rows that it has"
        )
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize if dataset.chunks else 0
    if chunk > LARGEST_CHUNK:
        raise ShowerFileError(f"{what} has chunks of {chunk:,} bytes; make them smaller (h5repack -l CHUNK=64x...)")
    _check_filters(dataset, what)


def _check_filters(dataset: h5py.Dataset, what: str) -> None:
    kind = dataset.id.get_create_plist()
    numbers = [kind.get_filter(place)[0] for place in range(kind.get_nfilters())]
    for number in numbers:
        if number < _FIRST_PLUGIN and number not in _KNOWN:
            raise ShowerFileError(
                f"{what} is packed by filter {number}, which is not read; repack it (h5repack -f GZIP=4)"
            )
        if not h5py.h5z.filter_avail(number):
            raise ShowerFileError(
                f"{what} is packed by filter {number}, which is not installed; repack it elsewhere (h5repack -f GZIP=4)"
            )
    if len(set(numbers)) < len(numbers):
        raise ShowerFileError(f"{what} is packed by the same filter twice; repack it (h5repack -f GZIP=4)")


def check_chunks(dataset: h5py.Dataset, first: int, stop: int, where: str) -> None:
    """Refuses rows of a dataset of which a chunk inflates to more than a chunk has.

    HDF5 inflates a chunk to its end before it looks at the size. Those that are too small to do harm are not looked at.

    Args:
        dataset: one that `check_storage` let pass.
        first: first row that will be read.
        stop: the one after the last.
        where: names the file and the dataset.
    """
    suspicious = INFLATED // LARGEST_RATIO
    if dataset.compression != "gzip" or dataset.id.get_storage_size() < suspicious:
        return
    chunks = dataset.chunks
    size = math.prod(chunks) * dataset.dtype.itemsize
    rows = range(first - first % chunks[0], stop, chunks[0])
    others = (range(0, cells, step) for cells, step in zip(dataset.shape[1:], chunks[1:], strict=True))
    for place in product(rows, *others):
        found = dataset.id.get_chunk_info_by_coord(place)
        deflated = found.byte_offset is not None and not found.filter_mask & 1
        if deflated and found.size > suspicious and _inflates_beyond(dataset, place, size):
            raise ShowerFileError(
                f"{where} row {place[0]} is in a chunk that inflates to more than it may; do not use it"
            )


def _inflates_beyond(dataset: h5py.Dataset, place: tuple[int, ...], size: int) -> bool:
    """Whether a deflated chunk has more bytes than that (and a checksum)."""
    packed = dataset.id.read_direct_chunk(place)[1]
    packer, left = zlib.decompressobj(), size + 64
    try:
        while packed and left > 0 and not packer.eof:
            left -= len(packer.decompress(packed, min(left, 2**24)))
            packed = packer.unconsumed_tail
    except zlib.error:  # damaged: HDF5 will report it
        return False
    return left <= 0


@contextmanager
def naming_read_errors(what: str) -> Iterator[None]:
    """Turns whatever HDF5 makes of damaged bytes into one sentence about `what`, a file or a dataset.

    Raises:
        ShowerFileError: it cannot be read.
    """
    try:
        yield
    except (MetacaloError, MemoryError):
        raise
    except UNREADABLE as error:
        raise ShowerFileError(f"{what}: {read_failure(error)}") from None


def is_own_group(place: h5py.Group, name: str) -> bool:
    """True where `name` is a group inside this very file."""
    try:
        own = isinstance(place.get(name, getlink=True), h5py.HardLink)
        return own and place.get(name, getclass=True) is h5py.Group
    except UNREADABLE:  # damaged, and so no group that could be read
        return False


def read_attributes(place: h5py.Group, where: str) -> dict[str, Any]:
    """All attributes of a group; those of shape (1,) as their one value.

    Raises:
        ShowerFileError: there are too many, one is too large, or one cannot be read.
    """
    with naming_read_errors(f"{where}: attributes"):
        names = list(place.attrs)
        if len(names) > MOST_ATTRIBUTES:
            raise ShowerFileError(f"{where}: {len(names):,} attributes, at most {MOST_ATTRIBUTES:,} are read")
        return {name: _attribute(place, name, where) for name in names}


def _attribute(place: h5py.Group, name: str, where: str) -> Any:
    stored = place.attrs.get_id(name)
    size = math.prod(stored.shape or ()) * stored.dtype.itemsize
    if size > LARGEST_ATTRIBUTE:
        raise ShowerFileError(f"{where}: attribute '{name}' has {size:,} bytes, at most {LARGEST_ATTRIBUTE:,} are read")
    return scalar(place.attrs[name])
