"""Episodes behind normalisers of few showers: support from their shots, query from the others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metacalo.errors import ConfigError
from metacalo.model_folders.adapted import zero_shot
from metacalo.model_folders.base import resolve_base
from metacalo.normaliser.fitting import fit_normaliser
from metacalo.normaliser.preprocessing import PREPROCESSING
from metacalo.normaliser.response import convention_scale
from metacalo.pretraining.settings import MetaSettings
from metacalo.showers import data_folder
from metacalo.showers.shower_file import Showers
from metacalo.showers.tasks import Task, resolve_task
from metacalo.training_data.distribution import Window
from metacalo.training_data.few_shots import FewShots, FewShotSettings, FewShotStream, draw_few_shots
from metacalo.training_data.sampler import EpisodeSampler
from metacalo.training_data.task_streams import training_data

SETTINGS = FewShotSettings(shots=(10, 20), draws=3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def task() -> Task:
    return resolve_task(data_folder("tasks") / "siw")


@pytest.fixture(scope="module")
def showers(task: Task) -> Showers:
    with task.open() as file:
        return file.load(slice(0, 60))


@pytest.fixture(scope="module")
def met(task: Task, showers: Showers) -> list[FewShots]:
    prior = resolve_base("base-no-pblar").hyperprior
    rng = np.random.default_rng(0)
    return draw_few_shots(task, showers, prior, PREPROCESSING["tables"], SETTINGS, rng, cells=False)


@pytest.fixture
def stream(task: Task, showers: Showers, met: list[FewShots]) -> FewShotStream:
    normaliser = fit_normaliser(showers.showers, showers.energy, showers.theta)
    return FewShotStream(task, normaliser, np.arange(60), 4096, met)


def test_shots_and_others_are_all_showers_and_have_none_in_common(met: list[FewShots]) -> None:
    assert len(met) == 3
    for each in met:
        assert 10 <= len(each.shots) <= 20
        both = torch.cat([each.shots, each.others])
        assert torch.equal(both.sort().values, torch.arange(60))
    assert len({tuple(each.shots.tolist()) for each in met}) == 3


def test_the_normaliser_is_that_of_adaptation(task: Task, showers: Showers, met: list[FewShots]) -> None:
    """Fitted on the shots alone, and shrunk to what the base predicts."""
    shots = showers.select(met[0].shots.numpy())
    before = zero_shot(
        resolve_base("base-no-pblar"), task.detector, scale=convention_scale(shots.showers, shots.energy)
    )
    expected = PREPROCESSING["tables"].fit(shots, prior=before.normaliser)
    found = met[0].pool.normaliser.tensors()
    for name, tensor in expected.tensors().items():
        assert torch.equal(found[name], tensor), name


def test_support_is_of_the_shots_and_query_of_the_others(stream: FewShotStream, met: list[FewShots]) -> None:
    energies = [{kind: _energies(each, getattr(each, kind)) for kind in ("shots", "others")} for each in met]
    for seed in range(12):
        episode = stream.draw_episode(inner_steps=2, support=4, query=5, generator=seeded(seed))
        assert [len(batch) for batch in (*episode.support, episode.query)] == [4, 4, 5]
        support = {round(float(x), 4) for batch in episode.support for x in batch.conditions[:, 0]}
        query = {round(float(x), 4) for x in episode.query.conditions[:, 0]}
        assert any(support <= known["shots"] and query <= known["others"] for known in energies)


def _energies(each: FewShots, rows: torch.Tensor) -> set[float]:
    conditions = each.pool.conditions(rows, np.zeros(len(rows), bool))
    return {round(float(x), 4) for x in conditions[:, 0]}


def test_episodes_come_from_all_normalisers(stream: FewShotStream, met: list[FewShots]) -> None:
    """The pool behind an episode is recognised by its latents: equal rows have others behind another normaliser."""
    drawn = [
        stream.draw_episode(inner_steps=1, support=4, query=4, generator=seeded(seed)).query.latents.total
        for seed in range(20)
    ]
    assert len({tuple(total.tolist()) for total in drawn}) > 15
    assert torch.equal(
        stream.draw_episode(inner_steps=1, support=4, query=4, generator=seeded(3)).query.latents.total, drawn[3]
    )


def test_mixed_batches_are_behind_the_normaliser_of_all_showers(stream: FewShotStream) -> None:
    sampler = EpisodeSampler([stream], seeded())
    assert len(sampler.mixed_batch(7)) == 7
    pool, _ = stream.draw_rows(3, seeded())
    assert pool.normaliser is stream._normaliser


def test_windows_are_refused(stream: FewShotStream) -> None:
    with pytest.raises(ValueError, match="no window"):
        stream.draw_episode(inner_steps=1, support=2, query=2, generator=seeded(), within=Window(0.5, (0.0, 0.0)))
    with pytest.raises(ConfigError, match="few_shots has no windows"):
        MetaSettings.build({"few_shots": {"shots": (20, 30)}, "windows": 0.5}, source="recipe")


@pytest.mark.parametrize("shots", [(1, 20), (30, 20)])
def test_shots_must_be_in_order(shots: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="the fewest"):
        FewShotSettings.build({"shots": shots}, source="recipe")


def test_training_data_has_streams_of_few_shots() -> None:
    tasks = [resolve_task(name) for name in ("family/W-Si-00", "family/Pb-Sci-03")]
    data = training_data(
        tasks, reserve_one_in=10, capacity=60, few_shots=FewShotSettings(shots=(10, 500), draws=1), cells=False
    )
    assert [type(stream) for stream in data.streams] == [FewShotStream] * 2
    episode = data.streams[0].draw_episode(inner_steps=1, support=2, query=2, generator=seeded())
    assert not episode.query.latents.cells.any()
