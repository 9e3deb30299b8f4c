"""Noise from seeds: uniform, normal, and of nothing but the seed."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from metacalo.export.random import HashedNoise, OwnNoise, _hashed


def test_numbers_are_uniform_and_normal():
    normal, uniform = HashedNoise(2001, 1000)(torch.arange(100))
    assert (tuple(normal.shape), tuple(uniform.shape)) == ((100, 2001), (100, 1000))
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 1e-3
    assert 0 <= float(uniform.min()) < float(uniform.max()) < 1


def test_every_bit_is_a_fair_coin():
    bits = _hashed(torch.arange(200), 500)
    share = torch.stack([(bits >> k & 1).float().mean() for k in range(24)])
    assert float((share - 0.5).abs().max()) < 5 * 0.5 / 100_000**0.5
    assert int(bits.max()) < 2**24


def test_neighbouring_seeds_and_counters_have_nothing_in_common():
    normal, _ = HashedNoise(4000, 0)(torch.tensor([0, 1, 2, 2**32, 2**32 + 1, 2**62]))
    correlation = np.corrcoef(normal.numpy()) - np.eye(6)
    assert np.abs(correlation).max() < 4.5 / 4000**0.5
    shifted = [float(np.corrcoef(row[:-1], row[1:])[0, 1]) for row in normal.numpy()]
    halves = [float(np.corrcoef(row[:2000], row[2000:])[0, 1]) for row in normal.numpy()]
    assert max(map(abs, shifted)) < 4.5 / 4000**0.5
    assert max(map(abs, halves)) < 4.5 / 2000**0.5


def test_a_seed_gives_the_same_numbers_in_any_batch():
    noise = HashedNoise(10, 5)
    together, alone = noise(torch.tensor([7, 8, 9])), noise(torch.tensor([8]))
    assert torch.equal(together[0][1:2], alone[0])
    assert torch.equal(together[1][1:2], alone[1])


def test_own_noise_is_new_in_every_run():
    noise = OwnNoise(10, 5)
    first, second = noise(torch.zeros(3)), noise(torch.zeros(3))
    assert [tuple(part.shape) for part in first] == [(3, 10), (3, 5)]
    assert not torch.isin(first[0], second[0]).any()
    assert OwnNoise(10, 0)(torch.zeros(3))[1] is None
