"""Noise from seeds: uniform, normal, and of nothing but the seed."""

from __future__ import annotations

import numpy as np
import pytest
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


def test_own_noise_is_new_in_every_run_and_normal_and_uniform():
    noise = OwnNoise(2001, 300)
    torch.manual_seed(1)
    first, second = noise(torch.zeros(50)), noise(torch.zeros(50))
    assert [tuple(part.shape) for part in first] == [(50, 2001), (50, 300)]
    assert stats.kstest(first[0].flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(first[1].flatten().numpy(), "uniform").pvalue > 1e-3
    assert 0 <= float(first[1].min()) < float(first[1].max()) < 1
    for one, other in zip(first, second, strict=True):
        correlation = np.corrcoef(torch.cat([one, other]).numpy()) - np.eye(100)
        assert np.abs(correlation).max() < 5 / one.shape[1] ** 0.5
    assert OwnNoise(10, 0)(torch.zeros(3))[1] is None


@pytest.mark.parametrize("level", ["ORT_ENABLE_ALL", "ORT_DISABLE_ALL"])
def test_sessions_of_one_process_share_no_noise(level):
    """As those of worker threads do, which ONNX Runtime's normal numbers alone are the same in."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
    from metacalo.export.onnx_graphs import onnx_graph
    from metacalo.export.onnx_slim import slimmed, with_seed

    model = onnx_graph(OwnNoise(4000, 500), (torch.zeros(2),), ["like"], ["normal", "uniform"], opset=18)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)

    def drawn():
        session = onnxruntime.InferenceSession(slimmed(model).SerializeToString(), options)
        return session.run(None, {"like": np.zeros(2, np.float32)})

    for one, other, law in zip(drawn(), drawn(), ("norm", "uniform"), strict=True):
        correlation = np.corrcoef(np.concatenate([one, other])) - np.eye(4)
        assert np.abs(correlation).max() < 5 / one.shape[1] ** 0.5
        assert stats.kstest(one.flatten(), law).pvalue > 1e-4
    with_seed(model, 3)
    for one, other in zip(drawn(), drawn(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
