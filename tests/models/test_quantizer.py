from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metacalo.models.quantizer import QuantizerSettings, ResidualQuantizer, perplexity
from metacalo.storage.checkpoint import tensor_hash
from tests.small import seeded

DEPTH, SIZE, WIDTH = 3, 8, 4


def vectors(n: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 10, WIDTH, generator=seeded(seed))


@pytest.fixture
def quantizer() -> ResidualQuantizer:
    """Filled by one training pass, in evaluation mode."""
    torch.manual_seed(0)
    module = ResidualQuantizer(QuantizerSettings(size=SIZE, depth=DEPTH, code_width=WIDTH))
    module.train()(vectors())
    return module.eval()


def codebooks(quantizer: ResidualQuantizer) -> torch.Tensor:
    """(depth, size, width)."""
    return quantizer.codebooks.codebooks


def test_indices_stand_for_the_quantized_vectors(quantizer: ResidualQuantizer) -> None:
    quantized, indices, _ = quantizer(vectors(seed=1))
    assert indices.shape == (16, 10, DEPTH)
    assert ((indices >= 0) & (indices < SIZE)).all()
    torch.testing.assert_close(quantizer.codes_to_vectors(indices), quantized, atol=1e-6, rtol=1e-5)
    by_hand = sum(codebooks(quantizer)[slot][indices[..., slot]] for slot in range(DEPTH))
    torch.testing.assert_close(quantized, by_hand, atol=1e-6, rtol=1e-5)


def test_each_codebook_takes_the_nearest_code_to_what_is_left(quantizer: ResidualQuantizer) -> None:
    left = vectors(seed=2)
    _, indices, _ = quantizer(left)
    for slot in range(DEPTH):
        book = codebooks(quantizer)[slot]
        distance = torch.cdist(left.flatten(0, 1), book)
        assert torch.equal(distance.argmin(1), indices[..., slot].flatten())
        left = left - book[indices[..., slot]]


def test_evaluation_does_not_move_the_codebooks_and_training_does(quantizer: ResidualQuantizer) -> None:
    before = tensor_hash(quantizer.state_dict())
    for seed in range(3):
        quantizer(vectors(seed=seed))
    assert tensor_hash(quantizer.state_dict()) == before
    quantizer.train()(vectors(seed=1))
    assert tensor_hash(quantizer.state_dict()) != before


def test_training_moves_a_code_towards_the_mean_of_its_vectors() -> None:
    torch.manual_seed(0)
    module = ResidualQuantizer(QuantizerSettings(size=2, depth=1, code_width=WIDTH, decay=0.5, dead_below=0.0))
    centres = torch.tensor([[3.0, 0, 0, 0], [-3.0, 0, 0, 0]])
    data = centres.repeat_interleave(50, 0)[None] + 0.01 * torch.randn(1, 100, WIDTH, generator=seeded())
    module.train()
    for _ in range(30):
        module(data)
    found = codebooks(module)[0]
    torch.testing.assert_close(found[found[:, 0].argsort(descending=True)], centres, atol=0.02, rtol=0)


@pytest.mark.parametrize("depth", [1, DEPTH])
def test_gradients_go_straight_through_once(depth: int) -> None:
    torch.manual_seed(0)
    module = ResidualQuantizer(QuantizerSettings(size=SIZE, depth=depth, code_width=WIDTH)).train()
    x = vectors(seed=3).requires_grad_()
    quantized, _, _ = module(x)
    weights = torch.randn(quantized.shape, generator=seeded(9))
    (gradient,) = torch.autograd.grad((quantized * weights).sum(), x)
    torch.testing.assert_close(gradient, weights, atol=1e-6, rtol=1e-6)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_perplexity_is_the_exponential_of_the_entropy(indices: list[int]) -> None:
    shares = [indices.count(code) / len(indices) for code in set(indices)]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert perplexity(torch.tensor(indices), 6) == pytest.approx(expected, rel=1e-4)


def test_perplexity_of_even_and_of_single_use() -> None:
    assert perplexity(torch.arange(512).repeat(3), 512) == pytest.approx(512, rel=1e-4)
    assert perplexity(torch.full((7, 3), 5), 512) == pytest.approx(1.0)
