"""Portions of a task that does not fit in memory: all of it in each pass, and each portion like the whole."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacalo.showers import ShowerFile, open_showers
from metacalo.training_data.portions import Portions

ROWS = 3000


@pytest.fixture(scope="module")
def ascending(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 showers of two voxels in chunks of 16, sorted by energy."""
    path = tmp_path_factory.mktemp("portions") / "ascending.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("showers", data=np.ones((ROWS, 1, 1, 2), np.float32), chunks=(16, 1, 1, 2))
        file["incident_energy"] = np.geomspace(1e3, 1e5, ROWS)
        file["incident_theta"] = file["incident_phi"] = np.zeros(ROWS)
    return path


@given(
    rows=st.sets(st.integers(0, ROWS - 1), min_size=1),
    capacity=st.integers(1, 700),
    seed=st.integers(0, 2**63 - 1),
    of_pass=st.integers(0, 4),
)
def test_a_pass_has_every_row_once(ascending: Path, rows: set[int], capacity: int, seed: int, of_pass: int) -> None:
    with open_showers(ascending) as file:
        portions = Portions.of(file, np.array(sorted(rows)), capacity, seed)
    found = [portions.portion(of_pass * len(portions) + index) for index in range(len(portions))]
    assert all(0 < len(portion) <= capacity for portion in found)
    assert sorted(np.concatenate(found).tolist()) == sorted(rows)
    assert len(portions) == 1 or len(portions) <= 1 + 2 * ROWS / min(capacity, ROWS)


def test_what_fits_is_one_part_in_its_order(ascending: Path) -> None:
    with open_showers(ascending) as file:
        portions = Portions.of(file, np.arange(5, 500), 495)
    np.testing.assert_array_equal(portions.portion(3), np.arange(5, 500))
    np.testing.assert_array_equal(portions.sample(), np.arange(5, 500))


@pytest.mark.parametrize(("rows", "capacity"), [(600, 512), (ROWS, 512), (ROWS, 1000)])
def test_the_sample_that_normalisers_are_fitted_on_is_as_large_as_may_be(
    ascending: Path, rows: int, capacity: int
) -> None:
    """Though portions of a sample that is a little too large are half as large, and of all energies."""
    with open_showers(ascending) as file:
        sample = Portions.of(file, np.arange(rows), capacity).sample()
    assert len(set(sample.tolist())) == capacity
    counts, _ = np.histogram(sample, np.linspace(0, rows, 9))
    assert counts.min() > 0.5 * capacity / 8


@pytest.mark.parametrize("reserved", [False, True])
def test_a_file_sorted_by_energy_gives_parts_of_all_energies(ascending: Path, reserved: bool) -> None:
    rows = np.arange(ROWS) if not reserved else np.flatnonzero(np.random.default_rng(0).random(ROWS) > 0.1)
    with open_showers(ascending) as file:
        portions, log_energy = Portions.of(file, rows, 512, seed=3), np.log(file.energy)
    assert len(portions) == 6
    tenths = np.linspace(log_energy[0], log_energy[-1], 11)
    for number in range(2 * len(portions)):
        energies = log_energy[portions.portion(number)]
        counts, _ = np.histogram(energies, tenths)
        assert counts.min() > 0.4 * len(energies) / 10
        first, _ = np.histogram(energies[:128], tenths[::2])  # the copula is fitted on the first of them
        assert np.count_nonzero(first) >= 4


def test_passes_and_seeds_deal_anew(ascending: Path) -> None:
    with open_showers(ascending) as file:
        portions, others = (Portions.of(file, np.arange(ROWS), 512, seed) for seed in (0, 1))
        again = Portions.of(file, np.arange(ROWS), 512, 0)
    n = len(portions)
    np.testing.assert_array_equal(portions.portion(2), again.portion(2))
    assert set(portions.portion(0)) != set(portions.portion(n))
    assert set(portions.portion(0)) != set(others.portion(0))


def test_no_chunk_is_decompressed_twice_in_a_pass(ascending: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is more read than that: counts the rows that are asked of HDF5."""
    read: list[tuple[int, int]] = []
    block = ShowerFile._block

    def counted(file: ShowerFile, dataset: object, rows: np.ndarray) -> np.ndarray:
        read.append((int(rows[0]), int(rows[-1])))
        return block(file, dataset, rows)

    monkeypatch.setattr(ShowerFile, "_block", counted)
    with open_showers(ascending) as file:
        portions = Portions.of(file, np.arange(ROWS), 512)
        for number in range(len(portions)):
            file.read(portions.portion(number))
    chunks = [chunk for first, last in read for chunk in range(first // 16, last // 16 + 1)]
    assert len(chunks) == len(set(chunks)) == -(-ROWS // 16)
