"""Shower files that a stranger made to take the memory, the time or the other files of whoever opens them."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacalo.errors import MetacaloError, ShowerFileError
from metacalo.showers import discover_tasks, open_showers
from metacalo.showers.hdf5_limits import MOST_ROWS
from tests.fuzz.hdf5 import deflated_zeros, hostile_file, seed_files
from tests.fuzz.mutations import HOSTILE_NAMES, mutate_bytes

COLUMNS = ("incident_energy", "incident_theta", "incident_phi")


@pytest.fixture(scope="module")
def seeds(tmp_path_factory) -> list[Path]:
    return seed_files(tmp_path_factory.mktemp("seeds"))


@pytest.fixture
def plain(tmp_path, seeds) -> Path:
    """A sound file, for a test to spoil."""
    path = tmp_path / "spoilt.h5"
    path.write_bytes(seeds[0].read_bytes())
    return path


def read_all(path: Path) -> None:
    with open_showers(path) as file:
        count = len(file)
        file.load(slice(0, min(count, 300)))
        file.hashes([0, count - 1])


def refusal(path: Path) -> str:
    with pytest.raises(ShowerFileError) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def declare(path: Path, name: str, shape: tuple[int, ...], **options) -> None:
    with h5py.File(path, "a") as file:
        del file[name]
        file.create_dataset(name, shape, "f4", **options)


def pack(path: Path, packed: bytes, *, filters: int = 1) -> None:
    """Puts a chunk of those bytes in the place of the showers."""
    with h5py.File(path, "a") as file:
        shape = file["showers"].shape
        del file["showers"]
        kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_chunk(shape)
        for _ in range(filters):
            kind.set_deflate(9)
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, b"showers", h5py.h5t.IEEE_F32LE, space, kind).write_direct_chunk((0,) * 4, packed)


def test_deflated_zeros_inflate_to_zeros():
    assert zlib.decompress(deflated_zeros(3 * 2**20)) == bytes(3 * 2**20)


def test_sound_files_are_read(seeds):
    for path in seeds:
        if not path.name.startswith("family"):
            read_all(path)


def test_rows_that_are_declared_and_not_stored(plain):
    declare(plain, "showers", (10**12, 3, 4, 5), chunks=(1024, 3, 4, 5))
    assert f"at most {MOST_ROWS:,} are read; split the file" in refusal(plain)
    declare(plain, "showers", (10**7, 3, 4, 5), chunks=(1024, 3, 4, 5))
    assert "is declared with 2,400,000,000 bytes, but hardly any of them are stored" in refusal(plain)
    declare(plain, "showers", (24, 10**4, 10**4, 5))
    assert "rows of 500,000,000 voxels" in refusal(plain)


def test_a_column_that_is_declared_and_not_stored(plain):
    declare(plain, "incident_theta", (10**12,), chunks=(1024,))
    assert "'incident_theta' has 1,000,000,000,000 rows" in refusal(plain)


def test_a_chunk_of_gigabytes(plain):
    declare(plain, "showers", (2**24, 3, 4, 5), chunks=(2**24, 3, 4, 4), compression="gzip")
    with h5py.File(plain, "a") as file:
        file["showers"].id.write_direct_chunk((0, 0, 0, 0), deflated_zeros(2**20) + bytes(2**23))
    assert "has chunks of 3,221,225,472 bytes" in refusal(plain)


def test_a_chunk_that_inflates_to_gigabytes(plain):
    pack(plain, deflated_zeros(2**32))
    assert "is in a chunk that inflates to more than it may; do not use it" in refusal(plain)


def test_a_bomb_within_a_bomb(plain):
    pack(plain, zlib.compress(deflated_zeros(2**32)), filters=2)
    assert "is packed by the same filter twice" in refusal(plain)


@pytest.mark.parametrize(("number", "words"), [(305, "which is not installed"), (6, "which is not read")])
def test_filters_that_are_not_there_or_not_safe(plain, number, words):
    with h5py.File(plain, "a") as file:
        shape = file["showers"].shape
        del file["showers"]
        kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        kind.set_chunk(shape)
        kind.set_filter(number, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
        space = h5py.h5s.create_simple(shape)
        packed = h5py.h5d.create(file.id, b"showers", h5py.h5t.IEEE_F32LE, space, kind)
        packed.write_direct_chunk((0,) * 4, bytes(100))
    assert f"is packed by filter {number}, {words}" in refusal(plain)


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "zero.h5").symlink_to("/dev/zero")
    for name in ("pipe.h5", "zero.h5"):
        assert "is no regular file" in refusal(tmp_path / name)


def test_attributes_are_bounded_and_must_be_numbers(plain):
    with h5py.File(plain, "a", libver="latest") as file:
        file.attrs["dr_mm"] = "wide"
    assert "attribute 'dr_mm' = 'wide' is not one number" in refusal(plain)
    with h5py.File(plain, "a") as file:
        file.attrs.update({"dr_mm": 17.7, "n_layers": np.nan})
    with pytest.raises(MetacaloError, match="n_layers = nan is no number of periods"):
        read_all(plain)
    with h5py.File(plain, "a") as file:
        file.attrs["n_layers"] = 90
        for number in range(1001):
            file.attrs[f"a{number}"] = 1
    assert "attributes, at most 1,000 are read" in refusal(plain)


def test_a_layer_of_no_length_is_refused(plain):
    with h5py.File(plain, "a") as file:
        file.attrs["absorber_thickness_mm"] = 1e-320
    with pytest.raises(MetacaloError, match="give a length above 0, up to 1 km"):
        read_all(plain)


def test_a_damaged_group_is_no_task(tmp_path, seeds):
    (tmp_path / "damaged").mkdir()
    family = next(path for path in seeds if path.name == "family-earliest.h5")
    (tmp_path / "damaged" / "showers.h5").write_bytes(family.read_bytes().replace(b"TREE", b"EERT"))
    with pytest.raises(MetacaloError):
        discover_tasks(tmp_path)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_bytes_are_read_or_refused_in_one_sentence(seeds, tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    source = seeds[int(rng.integers(len(seeds)))]
    path = tmp_path_factory.getbasetemp() / source.name
    path.write_bytes(mutate_bytes(source.read_bytes(), rng))
    read_or_refuse(path)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_hostile_structures_are_read_or_refused_in_one_sentence(tmp_path_factory, seed):
    path = tmp_path_factory.getbasetemp() / "hostile.h5"
    path.unlink(missing_ok=True)
    hostile_file(path, HOSTILE_NAMES, np.random.default_rng(seed))
    read_or_refuse(path)


def read_or_refuse(path: Path) -> None:
    refusal = "accepted"
    try:
        read_all(path)
    except MetacaloError as error:
        refusal = str(error).strip()
    assert refusal
