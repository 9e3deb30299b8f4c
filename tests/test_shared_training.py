"""Pretraining on two processes of torchrun ends like that on one, and either goes on from the other's states."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from metacalo.errors import ConfigError
from metacalo.runtime.distributed import Ranks
from metacalo.showers import data_folder
from metacalo.storage.checkpoint import load_json, load_tensors
from metacalo.training_data.sampler import EpisodeSampler
from tests.shared_training import CASES, RESUMED, data, train
from tests.small import seeded

REPOSITORY = data_folder("tasks").parent


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes, as a user starts them."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )


@dataclass(frozen=True)
class Runs:
    """The same stages on one process and on two.

    Attributes:
        folder: of states and results.
        one: case to the weights of one process.
    """

    folder: Path
    one: dict[str, dict[str, Tensor]]

    def two(self, case: str, rank: int) -> dict[str, Tensor]:
        """The weights that a process of two has."""
        return load_tensors(self.folder / f"{case}-{rank}.safetensors")[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("shared")
    one = {case: train(case, folder / "one" / case, Ranks()) for case in CASES}
    done = torchrun(REPOSITORY / "tests" / "shared_training.py", folder)
    assert done.returncode == 0, done.stderr
    assert load_json(folder / "ranks-1.json") == {"world": 2}
    return Runs(folder, one)


def assert_same(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            weights[name], tensor.detach(), rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_like_one(case: str, runs: Runs) -> None:
    assert_same(runs.two(case, 0), runs.one[case])
    assert all(torch.equal(runs.two(case, 1)[name], tensor) for name, tensor in runs.two(case, 0).items())


def test_training_has_moved_the_weights_further_than_the_tolerance(runs: Runs) -> None:
    """Or the comparison above would say nothing: algorithms that differ must differ in it."""
    with pytest.raises(AssertionError):
        assert_same(runs.one["maml"], runs.one["multitask"])
    with pytest.raises(AssertionError):
        assert_same(runs.one["maml"], runs.one["fomaml"])


def test_one_process_goes_on_from_the_state_of_two(runs: Runs) -> None:
    assert_same(train(RESUMED, runs.folder / "two" / RESUMED, Ranks(), resume=True), runs.one[RESUMED])


def test_two_processes_go_on_from_the_state_of_one(runs: Runs) -> None:
    assert_same(load_tensors(runs.folder / "one-to-two-0.safetensors")[0], runs.one[RESUMED])


@pytest.mark.parametrize("world", [2, 3])
def test_what_processes_draw_together_is_what_one_draws(world: int) -> None:
    def sampler(ranks: Ranks) -> EpisodeSampler:
        for stream in data().streams:
            stream.drawn = 0
        return EpisodeSampler(data().streams, seeded(3), slices=3, windows=0.5, ranks=ranks)

    sizes = {"inner_steps": 2, "support": 3, "query": 2}
    whole = sampler(Ranks())
    drawn = [(whole.mixed_batch(8), whole.episodes(4, **sizes)) for _ in range(2)]
    parts = []
    for rank in range(world):
        one = sampler(Ranks(rank, world))
        parts.append([(one.mixed_batch(8), one.episodes(4, **sizes)) for _ in range(2)])
        assert {name: value.tolist() for name, value in one.state().items()} == {
            name: value.tolist() for name, value in whole.state().items()
        }
        assert one.showers == whole.showers == 2 * (8 + 4 * 8)
    for i, (batch, episodes) in enumerate(drawn):
        mixed = [part[i][0] for part in parts]
        torch.testing.assert_close(torch.cat([b.latents.flat() for b in mixed]), batch.latents.flat())
        assert torch.equal(torch.cat([b.conditions for b in mixed]), batch.conditions)
        assert sum(b.share for b in mixed) == pytest.approx(1)
        assert [b.rows.start for b in mixed] == [sum(map(len, mixed[:k])) for k in range(world)]
        together = [episode for part in parts for episode in part[i][1]]
        assert [episode.task for episode in together] == [episode.task for episode in episodes]
        for episode, expected in zip(together, episodes, strict=True):
            assert torch.equal(episode.query.latents.flat(), expected.query.latents.flat())


def test_more_processes_than_slices_are_reported() -> None:
    sampler = EpisodeSampler(data().streams, seeded(), slices=2, ranks=Ranks(0, 3))
    with pytest.raises(ConfigError, match=r"8 showers in 2 slices are not enough for 3 processes; .*set slices to"):
        sampler.mixed_batch(8)


def test_an_error_of_all_processes_is_reported_once(tmp_path: Path) -> None:
    done = torchrun("-m", "metacalo", "pretrain", "--preset", "tiny", "--holdout", "pblr", "--out", tmp_path / "x")
    assert done.returncode == 1  # torchrun's own; that of the processes is 2
    assert done.stderr.count("unknown task 'pblr'") == 1
    assert "did you mean 'pblar'?" in done.stderr
    assert "exitcode  : 2" in done.stderr
    assert done.stdout == ""


def test_an_error_of_one_process_ends_all() -> None:
    done = torchrun(REPOSITORY / "tests" / "failing_rank.py")
    assert done.returncode == 1
    assert done.stderr.count("metacalo: process 1 of 2: only here\n") == 1
    assert "Traceback" not in done.stderr.split("failed (exitcode")[0]
