"""What a killed process leaves, and how results take each other's place."""

from __future__ import annotations

import errno
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from metacalo.errors import OutputError
from metacalo.showers import Showers, open_showers, write_showers
from metacalo.storage.atomic import clear_leftovers, discard, put_in_place
from metacalo.storage.checkpoint import atomic_file, atomic_folder, save_tensors

HOST = platform.node()


@pytest.fixture
def dead() -> int:
    """PID of a process that is gone."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def folder_of(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "a").write_text(text)
    return path


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path, dead: int, atomic) -> None:
    path = tmp_path / "result[1].h5"  # no pattern of a shell
    with atomic(path) as temporary:
        (temporary if atomic is atomic_file else temporary / "a").write_text("old")
    theirs = [
        tmp_path / ".result[1].h5.tmp-1-elsewhere",  # of another host: perhaps alive
        tmp_path / f".result[1].h5.tmp-{os.getppid()}-{HOST}",  # of a process that lives
        tmp_path / f".other.h5.tmp-{dead}-{HOST}",
    ]
    for name in theirs:
        name.write_text("theirs")
    (tmp_path / f".result[1].h5.tmp-{dead}-{HOST}").write_text("half")
    folder_of(tmp_path / f".result[1].h5.old-{dead}-{HOST}", "replaced")
    folder_of(tmp_path / f".result[1].h5.tmp-{os.getpid()}-{HOST}", "of an earlier process with this PID")
    with atomic(path, force=True) as temporary:
        (temporary if atomic is atomic_file else temporary / "a").write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([path, *theirs])


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    path, new = folder_of(tmp_path / "model", "old"), folder_of(tmp_path / "new", "new")
    put_in_place(new, path)
    assert (path / "a").read_text() == "new"
    with atomic_folder(path, force=True) as temporary:
        (temporary / "a").write_text("newer")
    assert (path / "a").read_text() == "newer"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_was_moved_away_is_put_back(tmp_path: Path, dead: int) -> None:
    """Killed between the two steps."""
    path = tmp_path / "model"
    folder_of(tmp_path / f".model.old-{dead}-{HOST}", "old")
    folder_of(tmp_path / f".model.tmp-{dead}-{HOST}", "new")
    with pytest.raises(OutputError, match="exists already"), atomic_folder(path):
        pass
    assert [place.name for place in tmp_path.iterdir()] == ["model"]
    assert (path / "a").read_text() == "old"


def test_a_failed_second_step_undoes_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder_of(tmp_path / "model", "old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if ".tmp-" in self.name:
            raise OSError(errno.EIO, "broken")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="broken"), atomic_folder(path, force=True) as temporary:
        (temporary / "a").write_text("new")
    assert [place.name for place in tmp_path.iterdir()] == ["model"]
    assert (path / "a").read_text() == "old"


def test_files_and_their_folder_are_flushed_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: flushed.append(Path(f"/proc/self/fd/{handle}").readlink()) or fsync(handle)
    )
    if not Path("/proc/self/fd").exists():
        pytest.skip("open files have no names here")
    with atomic_folder(tmp_path / "model") as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "a").write_text("1")
    assert [place.name for place in flushed] == ["a", "deep", temporary.name, tmp_path.name]


def test_a_symbolic_link_is_replaced_and_not_what_it_leads_to(tmp_path: Path) -> None:
    target = folder_of(tmp_path / "target", "kept")
    (tmp_path / "model").symlink_to(target)
    with atomic_folder(tmp_path / "model", force=True) as temporary:
        (temporary / "a").write_text("new")
    assert (target / "a").read_text() == "kept"
    assert (tmp_path / "model" / "a").read_text() == "new"
    assert sorted(place.name for place in tmp_path.iterdir()) == ["model", "target"]


def test_what_is_discarded_is_gone(tmp_path: Path, dead: int) -> None:
    discard(folder_of(tmp_path / "work", "1"))
    assert list(tmp_path.iterdir()) == []
    folder_of(tmp_path / f".work.tmp-{dead}-{HOST}", "half removed")
    clear_leftovers(tmp_path / "work")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def little_room():
    """No file may grow beyond 300 kB: what writing does then is what it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noise(n: int) -> Showers:
    voxels = np.random.default_rng(0).random((n, 9, 16, 45), np.float32)
    energy = np.full(n, 1e5, np.float32)
    return Showers(voxels, energy, np.ones_like(energy), 0 * energy)


def test_a_shower_file_that_finds_no_room_is_one_sentence(tmp_path: Path, little_room: None) -> None:
    path = tmp_path / "showers.h5"
    write_showers(path, noise(4))
    for n in (20, 300):  # one that HDF5 writes when it closes the file, and one long before
        with pytest.raises(OutputError, match=r"showers\.h5: the file would be larger than files may be here"):
            write_showers(path, noise(n), force=True)
        assert list(tmp_path.iterdir()) == [path]
    with open_showers(path) as file:
        np.testing.assert_array_equal(file.read(slice(None)), noise(4).showers)


def test_tensors_that_find_no_room_leave_the_old_ones(tmp_path: Path, little_room: None) -> None:
    path = tmp_path / "ar.state"
    save_tensors(path, {"a": torch.ones(3)})
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"ar\.state: the file would be larger .* \(nothing was changed\)"):
        save_tensors(path, {"a": torch.ones(300_000)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def full_disk(tmp_path: Path):
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True, check=False
        )
        if os.geteuid() == 0
        else None
    )
    if mounted is None or mounted.returncode:
        pytest.skip("a small disk can be mounted by root alone")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_what_it_holds(full_disk: Path) -> None:
    save_tensors(full_disk / "ar.state", {"a": torch.ones(100_000)})
    before = (full_disk / "ar.state").read_bytes()
    with pytest.raises(OutputError, match=r"ar\.state: no space left on the device; free some and run again"):
        save_tensors(full_disk / "ar.state", {"a": torch.zeros(200_000)})
    with pytest.raises(OutputError, match=r"showers\.h5: no space left on the device"):
        write_showers(full_disk / "showers.h5", noise(100))
    assert [place.name for place in full_disk.iterdir()] == ["ar.state"]
    assert (full_disk / "ar.state").read_bytes() == before
