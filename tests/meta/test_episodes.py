from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacalo.errors import ShowerFileError
from metacalo.generators.base import Batch
from metacalo.normaliser.condition_vector import encode_conditions
from metacalo.normaliser.energy_dependence import EnergyDependence
from metacalo.normaliser.latents import Latents, structure_size
from metacalo.normaliser.normaliser import Normaliser
from metacalo.showers import ShowerFile, Showers, Task, resolve_task, write_showers
from metacalo.training_data.episodes import TaskStream, is_reserved
from metacalo.training_data.sampler import EpisodeSampler
from metacalo.training_data.shower_pool import ShowerPool, mixed_batch
from tests.small import seeded

MakeStream = Callable[..., TaskStream]
MakePool = Callable[..., ShowerPool]

GRID = (9, 16, 45)


def equal(a: Batch, b: Batch) -> bool:
    return torch.equal(a.conditions, b.conditions) and torch.equal(a.latents.flat(), b.latents.flat())


def coloured(pool: ShowerPool, latents: Latents, rows: torch.Tensor) -> torch.Tensor:
    """Structure of showers of a pool with their correlations put back."""
    x = pool.encoded(rows).log_energy
    copula = pool.normaliser.copula
    return pool.normaliser.longitudinal.inverse(copula.inverse(latents, x).structure(), x, copula)


def flat_drift(mean: float, log_width: float) -> EnergyDependence:
    """The same mean and width at all energies and for all of the structure."""
    d = structure_size(GRID)
    return EnergyDependence(torch.full((5, d), mean), torch.full((5, d), log_width), torch.zeros(5))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30), st.integers(0, 12))
def test_reserved_rows_follow_from_the_content_alone(hashes: list[int], one_in: int) -> None:
    rows = np.array(hashes, dtype=np.int64)
    reserved = is_reserved(rows, one_in)
    expected = [one_in > 0 and value % 2**64 % one_in == 0 for value in hashes]
    assert reserved.tolist() == expected


def test_one_in_ten_is_reserved() -> None:
    hashes = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 20_000)
    assert is_reserved(hashes, 10).mean() == pytest.approx(0.1, abs=0.01)
    assert is_reserved(hashes, 1).all()


class TestTaskStream:
    def rows_of(self, stream: TaskStream, batch: Batch, n: int) -> list[int]:
        """Which rows of the task were drawn: their energies are all different."""
        with stream.task.open() as file:
            energy = file.energy[:n]
        known = encode_conditions(energy, energy * 0, energy * 0, np.zeros(0))[:, 0]
        return [int((known - value).abs().argmin()) for value in batch.conditions[:, 0]]

    @pytest.mark.parametrize(("n", "capacity"), [(10, 4), (9, 3), (5, 5), (7, 100)])
    def test_parts_go_round_over_all_rows(self, stream: MakeStream, n: int, capacity: int) -> None:
        source, generator = stream("siw", n, capacity), seeded()
        n_parts = -(-n // capacity)
        for _ in range(3):  # passes
            parts = []
            for _ in range(n_parts):
                pool, _ = source.draw_rows(capacity, generator)
                assert len(pool) <= capacity
                parts.append(self.rows_of(source, pool.batch(torch.arange(len(pool)), generator), n))
            assert sorted(row for part in parts for row in part) == list(range(n))
        assert source.drawn == 3 * n_parts * capacity
        assert len(source) == n

    def test_a_part_serves_as_many_draws_as_it_may_hold(self, stream: MakeStream) -> None:
        source, generator = stream("siw", 8, 4), seeded()
        pools = [source.draw_rows(2, generator)[0] for _ in range(8)]
        assert [pool is pools[i - 1] for i, pool in enumerate(pools)][1:] == [
            True,
            False,
            True,
            False,
            True,
            False,
            True,
        ]

    def test_large_draws_skip_no_part(self, stream: MakeStream) -> None:
        source, generator = stream("siw", 8, 4), seeded()
        seen = {row for _ in range(20) for row in self.rows_of(source, source.draw(8, generator), 8)}
        assert seen == set(range(8))

    def test_draws_follow_from_the_generator_and_the_count(self, stream: MakeStream) -> None:
        first, second = stream("siw", 10, 4), stream("siw", 10, 4)
        for seed in range(3):
            first.draw(4, seeded(seed))
        second.drawn = 12
        assert equal(first.draw(3, seeded(9)), second.draw(3, seeded(9)))

    def test_reading_ahead_changes_no_draw(self, stream: MakeStream, thread: ThreadPoolExecutor) -> None:
        """Nor does it when a state is restored in between, or when the stream is closed and goes on."""
        plain, ahead = stream("siw", 40, 12), stream("siw", 40, 12, thread=thread)
        for seed in range(14):
            assert equal(plain.draw(5, seeded(seed)), ahead.draw(5, seeded(seed)))
            if seed == 5:
                plain.drawn = ahead.drawn = 60
            if seed == 9:
                ahead.close()
        ahead.close()

    def test_shards_draw_what_one_file_draws(
        self, two_tasks: dict[str, tuple[Task, Normaliser]], tmp_path: Path, thread: ThreadPoolExecutor
    ) -> None:
        """Bit for bit, in parts and read ahead; and no file is left open."""
        task, normaliser = two_tasks["siw"]
        with task.open() as file:
            write_showers(tmp_path / "one.h5", file.load(slice(0, 40)))
            for number, rows in enumerate((slice(0, 13), slice(13, 16), slice(16, 40))):
                write_showers(tmp_path / "many" / f"showers-{number}.h5", file.load(rows))
        one, many = (
            TaskStream(resolve_task(tmp_path / place), normaliser, np.arange(40), 12, thread=thread)
            for place in ("one.h5", "many")
        )
        for seed in range(8):
            assert equal(one.draw(5, seeded(seed)), many.draw(5, seeded(seed)))
        for stream in (one, many):
            stream.close()
            assert stream._file is None
        left = [h5py.h5f.get_name(file).decode() for file in h5py.h5f.get_obj_ids(types=h5py.h5f.OBJ_FILE)]
        assert not [name for name in left if name.startswith(str(tmp_path))]

    def test_what_cannot_be_read_ahead_is_reported_when_it_is_needed(
        self, stream: MakeStream, thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = stream("siw", 40, 12, thread=thread)
        source.draw(1, seeded())
        source.close()
        load, loaded = ShowerFile.load, []

        def fails_later(file: ShowerFile, rows: np.ndarray) -> Showers:
            loaded.append(len(rows))
            if len(loaded) > 1:
                raise ShowerFileError("mine.h5: the file is damaged")
            return load(file, rows)

        monkeypatch.setattr(ShowerFile, "load", fails_later)
        source.drawn = 12
        for _ in range(3):
            source.draw(4, seeded())  # the part that could be read
        with pytest.raises(ShowerFileError, match=r"^mine\.h5: the file is damaged$"):
            source.draw(4, seeded())
        source.close()

    def test_cells_that_nobody_looks_at_are_not_drawn(self, stream: MakeStream) -> None:
        batch = stream("siw", cells=False).draw(6, seeded())
        assert not batch.latents.cells.any()
        assert stream("siw").draw(6, seeded()).latents.cells.all()


class TestMixedBatch:
    @pytest.fixture
    def parts(self, pool: MakePool) -> list[tuple[ShowerPool, torch.Tensor]]:
        return [(pool("siw"), torch.tensor([3, 0, 17, 3, 39])), (pool("pbwo4"), torch.arange(30, 38))]

    @pytest.mark.parametrize("reflect", [True, False])
    def test_it_holds_the_showers_of_each_pool_in_turn(
        self, parts: list[tuple[ShowerPool, torch.Tensor]], reflect: bool
    ) -> None:
        """What the showers settle is in the batch, what they leave open is drawn within its limits."""
        batch = mixed_batch(parts, seeded(1), reflect=reflect)
        start = 0
        for pool, rows in parts:
            part = slice(start, start + len(rows))
            structure = coloured(pool, batch.latents[part], rows)
            lower, upper = pool.encoded(rows).structure
            settled = lower == upper
            assert 0.1 < settled.float().mean() < 0.5
            torch.testing.assert_close(structure[settled], lower[settled], atol=1e-4, rtol=0)
            assert ((structure > lower - 1e-4) & (structure < upper + 1e-4)).all()
            message, alone = batch.conditions[part], pool.batch(rows, seeded(2), reflect=False).conditions
            if reflect:  # the sign of cos theta goes with the image of the shower
                message[:, 7], alone[:, 7] = message[:, 7].abs(), alone[:, 7].abs()
            torch.testing.assert_close(message, alone, atol=1e-6 if reflect else 0, rtol=0)
            start += len(rows)
        assert start == len(batch)

    def test_one_pool_in_parts_is_that_pool(self, pool: MakePool) -> None:
        siw, rows = pool("siw"), torch.arange(12)
        whole, parted = siw.batch(rows, seeded(1)), mixed_batch([(siw, rows[:5]), (siw, rows[5:])], seeded(1))
        assert torch.equal(parted.conditions, whole.conditions)
        torch.testing.assert_close(parted.latents.flat(), whole.latents.flat(), atol=1e-5, rtol=1e-5)

    def test_each_pool_loses_its_own_drift(self, pool: MakePool) -> None:
        rows, drifts = torch.arange(10), {"siw": (0.5, 0.3), "pbwo4": (-1.0, -0.2)}
        parts = [
            (pool(name, energy_dependence=flat_drift(*drift), copula=None), rows) for name, drift in drifts.items()
        ]
        batch = mixed_batch(parts, seeded(1), reflect=False)
        for part, (name, (mean, log_width)) in zip((slice(0, 10), slice(10, 20)), drifts.items(), strict=True):
            lower, upper = pool(name, energy_dependence=flat_drift(0.0, 0.0)).encoded(rows).structure
            settled = lower == upper
            expected = (lower - mean) / np.exp(log_width)
            structure = batch.latents[part].structure()
            torch.testing.assert_close(structure[settled], expected[settled], atol=1e-5, rtol=1e-5)

    def test_each_pool_loses_the_correlations_of_its_layers(self, pool: MakePool) -> None:
        """And no other: one that knows of none loses those of the copula."""
        rows = torch.arange(10)
        makers = [("siw", {}), ("pbwo4", {"longitudinal": None}), ("pbwo4", {})]
        batch = mixed_batch([(pool(name, **changes), rows) for name, changes in makers], seeded(1), reflect=False)
        bare = mixed_batch([(pool(name, longitudinal=None), rows) for name, _ in makers], seeded(1), reflect=False)
        for part, (name, changes) in zip((slice(0, 10), slice(10, 20), slice(20, 30)), makers, strict=True):
            found, expected = batch.latents[part].structure(), bare.latents[part].structure()
            if not changes:
                assert not torch.allclose(found, expected, atol=0.1)
                normaliser, x = pool(name).normaliser, pool(name).encoded(rows).log_energy
                drawn = normaliser.copula.inverse(bare.latents[part], x)
                lifted = drawn.with_structure(normaliser.longitudinal.forward(drawn.structure(), x, normaliser.copula))
                expected = normaliser.copula.forward(lifted, x).structure()
            torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
        assert torch.equal(batch.latents.cells, bare.latents.cells)

    def test_it_draws_what_the_normaliser_draws(self, parts: list[tuple[ShowerPool, torch.Tensor]]) -> None:
        """Without drift and correlations, which `Normaliser.inverse` puts back."""
        for pool, rows in parts:
            expected = pool.normaliser.draw(pool.encoded(rows), seeded(3))
            drawn = pool.batch(rows, seeded(3), reflect=False).latents
            torch.testing.assert_close(drawn.flat(), expected.flat(), atol=1e-5, rtol=1e-5)

    def test_each_part_decodes_to_the_showers_of_its_task(
        self, pool: MakePool, two_tasks: dict[str, tuple[Task, Normaliser]]
    ) -> None:
        rows = torch.arange(8)
        batch = mixed_batch([(pool(name), rows) for name in two_tasks], seeded(1), reflect=False)
        for part, (task, normaliser) in zip((slice(0, 8), slice(8, 16)), two_tasks.values(), strict=True):
            with task.open() as file:
                showers = file.load(slice(0, 8))
            incident, angle = torch.from_numpy(showers.energy), torch.from_numpy(showers.theta)
            back = normaliser.inverse(batch.latents[part], incident, angle).numpy()
            np.testing.assert_allclose(back.sum((1, 2, 3)), showers.showers.sum((1, 2, 3)), rtol=1e-3)
            assert np.abs(back - showers.showers).sum() < 0.1 * showers.showers.sum()

    def test_what_a_shower_leaves_open_is_drawn_anew(self, parts: list[tuple[ShowerPool, torch.Tensor]]) -> None:
        pool, rows = parts[0]
        lower, upper = pool.encoded(rows).structure
        first, second = (pool.batch(rows, seeded(seed), reflect=False).latents for seed in (1, 2))
        one, two = (coloured(pool, latents, rows) for latents in (first, second))
        settled = lower == upper
        torch.testing.assert_close(one[settled], two[settled], atol=1e-4, rtol=0)
        assert ((one - two).abs()[~settled] > 1e-3).float().mean() > 0.95
        assert (first.cells != second.cells).float().mean() > 0.99
        assert torch.isfinite(first.flat()).all()


class TestEpisodeSampler:
    def make(self, stream: MakeStream, seed: int = 0) -> EpisodeSampler:
        return EpisodeSampler([stream("siw", 36, 10), stream("pbwo4", 4)], seeded(seed))

    def test_tasks_are_drawn_by_the_root_of_their_size(self, stream: MakeStream) -> None:
        sampler = self.make(stream)
        assert sampler.weights() == {"siw": pytest.approx(0.75), "pbwo4": pytest.approx(0.25)}
        descriptors = [source.task.detector.descriptors() for source in (stream("siw"), stream("pbwo4"))]
        batch = sampler.mixed_batch(2000)
        counts = [int((batch.conditions[:, 11:] == torch.from_numpy(each)).all(1).sum()) for each in descriptors]
        assert sum(counts) == len(batch) == 2000
        assert counts[0] == pytest.approx(1500, abs=4 * (2000 * 0.75 * 0.25) ** 0.5)

    def test_an_episode_is_of_one_task(self, stream: MakeStream) -> None:
        sampler = self.make(stream)
        episodes = sampler.episodes(12, inner_steps=3, support=5, query=6)
        assert {episode.task for episode in episodes} == {"siw", "pbwo4"}
        for episode in episodes:
            assert [len(batch) for batch in episode.support] == [5, 5, 5]
            assert len(episode.query) == 6
            descriptors = torch.cat([batch.conditions[:, 11:] for batch in (*episode.support, episode.query)])
            assert len(descriptors.unique(dim=0)) == 1
            moved = episode.to("cpu")
            assert equal(moved.query, episode.query)
            assert moved.task == episode.task

    def test_a_restored_state_draws_the_same(self, stream: MakeStream) -> None:
        sampler = self.make(stream)
        sampler.mixed_batch(16)
        sampler.episodes(2, inner_steps=1, support=4, query=4)
        state = {name: tensor.clone() for name, tensor in sampler.state().items()}
        expected = [sampler.mixed_batch(16), *(e.query for e in sampler.episodes(3, inner_steps=2, support=4, query=4))]
        other = self.make(stream, seed=5)
        other.restore(state)
        again = [other.mixed_batch(16), *(e.query for e in other.episodes(3, inner_steps=2, support=4, query=4))]
        assert all(equal(a, b) for a, b in zip(expected, again, strict=True))
        assert {name: tensor.tolist() for name, tensor in other.state().items()} == {
            name: tensor.tolist() for name, tensor in sampler.state().items()
        }

    def test_support_and_query_are_other_showers(self, stream: MakeStream) -> None:
        sampler = EpisodeSampler([stream("siw", 30)], seeded())
        for episode in sampler.episodes(5, inner_steps=2, support=6, query=9):
            batches = [energies(batch) for batch in (*episode.support, episode.query)]
            assert [len(set(batch)) for batch in batches] == [6, 6, 9]
            assert len(set().union(*batches)) == 21

    def test_also_where_there_are_too_few(self, stream: MakeStream) -> None:
        sampler = EpisodeSampler([stream("siw", 7)], seeded())
        for episode in sampler.episodes(5, inner_steps=2, support=6, query=6):
            support, query = {e for batch in episode.support for e in energies(batch)}, set(energies(episode.query))
            assert support
            assert not support & query

    @pytest.mark.parametrize(("exponent", "share"), [(0.0, 1 / 2), (0.5, 3 / 4), (1.0, 9 / 10)])
    def test_the_exponent_of_the_number_of_showers(self, stream: MakeStream, exponent: float, share: float) -> None:
        sampler = EpisodeSampler([stream("siw", 36, 10), stream("pbwo4", 4)], seeded(), exponent=exponent)
        assert sampler.weights() == {"siw": pytest.approx(share), "pbwo4": pytest.approx(1 - share)}

    def test_windows_narrow_an_episode(self, stream: MakeStream) -> None:
        """All of them at a share of 1, about half of them at 0.5, none at 0; energies cover two decades."""

        def spans(windows: float) -> np.ndarray:
            sampler = EpisodeSampler([stream("siw")], seeded(), windows=windows, window_width=0.4)
            episodes = sampler.episodes(60, inner_steps=1, support=2, query=2)
            drawn = [energies(batch) for e in episodes for batch in [*e.support, e.query]]
            return np.array([np.ptp(one + other) for one, other in zip(drawn[::2], drawn[1::2], strict=True)])

        whole, half, windows = spans(0.0), spans(0.5), spans(1.0)
        limit = 0.4 * np.ptp(energies(stream("siw").draw_rows(1, seeded())[0].batch(torch.arange(40), seeded())))
        assert (windows <= limit + 1e-6).mean() > 0.8  # a window without enough showers is widened
        assert (whole <= limit).mean() < 0.3
        assert 0.4 < (half <= limit).mean() < 0.85

    def test_windows_are_part_of_what_a_restored_state_draws(self, stream: MakeStream) -> None:
        samplers = [EpisodeSampler([stream("siw"), stream("pbwo4")], seeded(i), windows=0.5) for i in range(2)]
        samplers[0].episodes(3, inner_steps=1, support=2, query=2)
        samplers[1].restore({name: tensor.clone() for name, tensor in samplers[0].state().items()})
        first, second = (sampler.episodes(4, inner_steps=2, support=2, query=3) for sampler in samplers)
        assert all(equal(a.query, b.query) for a, b in zip(first, second, strict=True))
        assert all(equal(a.support[1], b.support[1]) for a, b in zip(first, second, strict=True))


def energies(batch: Batch) -> list[float]:
    """Coordinates of the incident energies, which are different for all showers of a task."""
    return batch.conditions[:, 0].tolist()
