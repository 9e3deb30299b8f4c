"""A long generation that is killed and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from metacalo.errors import ConfigError, OutputError
from metacalo.showers import Detector, Grid, Showers, open_showers
from metacalo.showers.part_files import joined, open_parts, part_file, part_seed, write_part

DETECTOR = Detector.from_layers("Pb:2", "lAr:4", grid=Grid(2, 4, 3), n_layers=3)


def batches(*counts: int, seed: int = 0) -> Iterator[Showers]:
    rng = np.random.default_rng(seed)
    for n in counts:
        energy = rng.uniform(1e3, 1e5, n).astype(np.float32)
        yield Showers(rng.random((n, 2, 4, 3), np.float32), energy, np.ones_like(energy), 0 * energy)


def test_parts_are_joined_in_order(tmp_path: Path) -> None:
    for index in (1, 0):
        write_part(tmp_path, index, batches(5, 2, seed=index), DETECTOR)
    with open_showers(part_file(tmp_path, 1)) as file:
        assert len(file) == 7
    made = np.concatenate([part.showers for part in joined(tmp_path, 2)])
    wanted = np.concatenate([part.showers for seed in (0, 1) for part in batches(5, 2, seed=seed)])
    np.testing.assert_array_equal(made, wanted)


def test_a_part_that_fails_is_not_there(tmp_path: Path) -> None:
    def failing() -> Iterator[Showers]:
        yield from batches(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_part(tmp_path, 0, failing(), DETECTOR)
    assert list(tmp_path.iterdir()) == []


def test_only_what_was_made_from_the_same_goes_on(tmp_path: Path) -> None:
    work = tmp_path / "showers.h5.work"
    first, other = {"settings": {"seed": 1}, "model": "a"}, {"settings": {"seed": 2}, "model": "a"}
    open_parts(work, first, resume=True)
    open_parts(work, other, resume=False)  # nothing was kept of the first
    open_parts(work, first, resume=False)
    write_part(work, 0, batches(2), DETECTOR)
    with pytest.raises(OutputError, match=r"showers\.h5\.work: an unfinished run is here; give --resume to go on"):
        open_parts(work, first, resume=False)
    with pytest.raises(
        ConfigError, match=r"settings\.json: the unfinished run had other settings; resume with the same"
    ):
        open_parts(work, other, resume=True)
    open_parts(work, first, resume=True)


def test_seeds_of_parts_differ(tmp_path: Path) -> None:
    seeds = [part_seed(seed, index) for seed in range(20) for index in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert part_seed(2**32 - 1, 0) == 2**32 - 1
    assert all(0 <= seed < 2**32 for seed in seeds)
