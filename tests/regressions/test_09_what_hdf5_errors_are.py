"""A lock, a writer that died, a truncated file and damage are four things, and reading needs no lock."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest

from metacalo.errors import ShowerFileError
from metacalo.showers import open_showers
from metacalo.storage.hdf5_access import open_hdf5, read_failure
from tests.samples import attributes_of, shipped, write_plain


@pytest.fixture
def copied(tmp_path):
    return write_plain(tmp_path / "new.h5", shipped("siw", slice(0, 30)), **attributes_of("siw"))


def writer(path, then):
    """A process that has the file open for writing, with HDF5's newest format, when it prints."""
    script = f"""
        import h5py, sys, os, signal
        file = h5py.File({str(path)!r}, "a", libver="latest", locking=True)
        file.attrs["touched"] = 1
        file.flush()
        print("open", flush=True)
        {then}
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"open\n"
    return child


def test_a_file_that_another_program_has_locked_is_read(copied):
    child = writer(copied, "sys.stdin.read()")
    try:
        with pytest.raises(OSError, match="unable to lock file"):
            h5py.File(copied, "r", locking=True)
        with open_showers(copied) as file:
            assert len(file) == 30
    finally:
        child.communicate()


def test_a_file_that_this_program_has_open_with_a_lock_is_read(copied):
    with h5py.File(copied, "r", locking=True) as mine, open_showers(copied) as file:
        assert len(file) == len(mine["showers"])


def test_a_mark_of_a_writer_that_died_is_named_with_its_mend(tmp_path):
    path = tmp_path / "new.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["showers"] = np.zeros((2, 9, 16, 45), np.float32)
    child = writer(path, "os.kill(os.getpid(), signal.SIGKILL)")
    child.communicate()
    with pytest.raises(ShowerFileError, match=r"new.h5: a writer has it open, or died .*\(h5clear -s FILE\)$"):
        open_showers(path)


def test_a_truncated_file_is_called_so(copied):
    with copied.open("r+b") as file:
        file.truncate(copied.stat().st_size // 2)
    with pytest.raises(ShowerFileError, match=r"new.h5: the file is truncated"):
        open_showers(copied)


def test_damage_is_called_so(copied):
    with h5py.File(copied, "r") as file:
        offset = file["showers"].id.get_offset()
    content = bytearray(copied.read_bytes())
    content[100:600] = b"\xff" * 500
    assert offset > 600
    copied.write_bytes(content)
    with (
        pytest.raises(ShowerFileError, match=r"damaged, or still being written|not an HDF5 file"),
        open_showers(copied),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="the super-user may read every file")
def test_a_file_that_may_not_be_read(copied):
    copied.chmod(0)
    with pytest.raises(ShowerFileError, match="you may not read it"):
        open_showers(copied)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (f"unable to lock file, errno = {errno.ENOLCK}, error message = 'No locks available'", "its disk has no locks"),
        (f"unable to lock file, errno = {errno.EAGAIN}, error message = 'Resource'", "another program holds a lock"),
        ("file is already open for write (may use <h5clear file> to clear file consistency flags)", "h5clear -s FILE"),
        (f"file read failed: errno = {errno.EIO}, error message = 'Input/output error'", "its disk or network failed"),
        ("truncated file: eof = 96, sblock->base_addr = 0, stored_eof = 2048", "the file is truncated"),
        ("wrong B-tree signature", "the file is damaged"),
    ],
)
def test_each_error_of_hdf5_has_a_sentence(said, sentence):
    assert sentence in read_failure(OSError(said))
    assert read_failure(PermissionError(errno.EACCES, "Permission denied")).startswith("you may not read it")


def test_every_reader_opens_without_a_lock(copied, monkeypatch):
    """As on a disk that has none."""
    opened = h5py.File

    def without_locks(path, mode="r", *, locking=None, **named):
        if locking is not False:
            raise OSError(errno.ENOLCK, "No locks available")
        return opened(path, mode, locking=locking, **named)

    from metacalo.reproduction.fingerprints import fingerprints
    from metacalo.showers.tasks import resolve_task
    from metacalo.storage.provenance import load_provenance

    folder = copied.parent / "task"
    folder.mkdir()
    shutil.copy(copied, folder / "showers.h5")
    monkeypatch.setattr(h5py, "File", without_locks)
    with open_showers(copied) as file:
        assert len(file.read([0])) == 1
    assert resolve_task(folder).n_showers == 30
    assert load_provenance(copied) is None
    assert "showers" in fingerprints(copied)
    assert open_hdf5(copied)["showers"].shape[0] == 30
