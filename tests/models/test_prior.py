from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats

from metacalo.models.patches import Patching
from metacalo.models.prior import Prior, PriorSettings, Sampling
from tests.small import disturb, seeded

N_CONDITIONS = 3


def make(grid: tuple[int, int, int], patch: tuple[int, int, int], *, depth: int, size: int, bins: int) -> Prior:
    torch.manual_seed(0)
    settings = PriorSettings(width=12, blocks=2, heads=2, rank=1, embedding=2, bins=bins)
    prior = Prior(settings, Patching(grid, patch), depth, size, N_CONDITIONS)
    disturb(prior, by=0.3)
    return prior.eval()


@pytest.fixture(scope="module")
def tiny() -> Prior:
    """Two energies of 2 bins, two patches of 2 codes out of 2: 64 sequences."""
    return make((1, 2, 1), (1, 1, 1), depth=2, size=2, bins=2)


@pytest.fixture(scope="module")
def prior() -> Prior:
    return make((2, 4, 3), (1, 2, 1), depth=2, size=5, bins=7)


def conditions(n: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, N_CONDITIONS, generator=seeded(seed))


def flat_logits(prior: Prior, codes: torch.Tensor, condition: torch.Tensor) -> list[torch.Tensor]:
    """Logits of each element of the sequence, in its order."""
    energies, shapes = prior(codes, condition)
    return [*energies.unbind(1), *shapes.flatten(1, 2).unbind(1)]


def all_sequences(prior: Prior, size: int) -> torch.Tensor:
    sizes = [prior.bins] * prior.n_energies + [size] * (prior.length - prior.n_energies)
    return torch.tensor(list(itertools.product(*(range(each) for each in sizes))))


@torch.no_grad()
@pytest.mark.parametrize(("depth", "size", "bins", "count"), [(2, 2, 2, 64), (2, 3, 2, 324), (1, 5, 4, 400)])
def test_probabilities_of_all_sequences_sum_to_one(depth: int, size: int, bins: int, count: int) -> None:
    prior = make((1, 2, 1), (1, 1, 1), depth=depth, size=size, bins=bins)
    sequences = all_sequences(prior, size)
    assert len(sequences) == count
    probability = prior.log_likelihood(sequences, conditions(1).expand(count, -1)).exp()
    assert float(probability.sum()) == pytest.approx(1, abs=1e-5)
    assert float(probability.max() / probability.min()) > 3  # it is not the uniform one


@torch.no_grad()
def test_the_likelihood_is_the_product_of_the_conditionals(prior: Prior) -> None:
    codes = prior.sample(conditions(6), seeded())
    steps = [logits.log_softmax(-1) for logits in flat_logits(prior, codes, conditions(6))]
    expected = sum(step[torch.arange(6), codes[:, i]] for i, step in enumerate(steps))
    torch.testing.assert_close(prior.log_likelihood(codes, conditions(6)), expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
def test_no_element_is_reported_of_itself_or_of_later_ones(prior: Prior) -> None:
    codes = prior.sample(conditions(3), seeded())
    assert codes.shape == (3, prior.length) == (3, 4 + 12 * 2)
    before = flat_logits(prior, codes, conditions(3))
    seen = torch.zeros(prior.length, dtype=torch.bool)
    for changed in range(prior.length):
        other = codes.clone()
        other[:, changed] = (other[:, changed] + 1) % 5
        after = flat_logits(prior, other, conditions(3))
        assert all(torch.equal(before[i], after[i]) for i in range(changed + 1))
        seen[changed] = any(not torch.equal(before[i], after[i]) for i in range(changed + 1, prior.length))
    assert seen[:-1].all()  # and some later one sees each
    assert not torch.equal(before[0], flat_logits(prior, codes, conditions(3, seed=2))[0])


@torch.no_grad()
@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling(top_k=1), Sampling(top_p=1e-6)])
def test_greedy_sampling_with_the_cache_follows_the_largest_logits_without_it(prior: Prior, sampling: Sampling) -> None:
    codes = prior.sample(conditions(8), seeded(), sampling)
    logits = flat_logits(prior, codes, conditions(8))
    assert torch.equal(torch.stack([step.argmax(-1) for step in logits], 1), codes)
    assert torch.equal(codes, prior.sample(conditions(8), seeded(5), sampling))


@torch.no_grad()
def test_sequences_are_drawn_with_their_probabilities(tiny: Prior) -> None:
    n, condition = 20_000, conditions(1)
    drawn = tiny.sample(condition.expand(n, -1), seeded(3))
    sequences = all_sequences(tiny, 2)
    place = (2 ** torch.arange(5, -1, -1)).int()
    counts = torch.bincount((drawn.int() * place).sum(1), minlength=64)
    assert torch.equal((sequences.int() * place).sum(1), torch.arange(64))
    expected = n * tiny.log_likelihood(sequences, condition.expand(64, -1)).exp().double()
    assert stats.chisquare(counts.double(), expected * n / expected.sum()).pvalue > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_sharpens_or_flattens(prior: Prior, temperature: float) -> None:
    n, condition = 4000, conditions(1).expand(4000, -1)
    first = prior.sample(condition, seeded(), Sampling(temperature=temperature))[:, 0]
    logits = flat_logits(prior, torch.zeros(1, prior.length, dtype=torch.long), condition[:1])[0][0]
    expected = n * (logits.double() / temperature).softmax(0)
    assert stats.chisquare(torch.bincount(first, minlength=7), expected).pvalue > 1e-3


@torch.no_grad()
def test_top_k_keeps_to_the_k_likeliest(prior: Prior) -> None:
    codes = prior.sample(conditions(1).expand(300, -1), seeded(), Sampling(top_k=2))
    used = set()
    for i, logits in enumerate(flat_logits(prior, codes, conditions(1).expand(300, -1))):
        rank = (logits > logits.gather(1, codes[:, i : i + 1])).sum(1)
        assert rank.max() <= 1
        used |= set(rank.tolist())
    assert used == {0, 1}


@torch.no_grad()
@pytest.mark.parametrize("top_p", [0.3, 0.7])
def test_top_p_keeps_to_the_smallest_set_of_that_probability(prior: Prior, top_p: float) -> None:
    codes = prior.sample(conditions(1).expand(300, -1), seeded(), Sampling(top_p=top_p))
    largest = 0
    for i, logits in enumerate(flat_logits(prior, codes, conditions(1).expand(300, -1))):
        probability = logits.softmax(1)
        mine = probability.gather(1, codes[:, i : i + 1])
        likelier = torch.where(probability > mine, probability, 0.0).sum(1)
        assert (likelier < top_p + 1e-5).all()  # else the set was complete without it
        largest = max(largest, int((probability > mine).sum(1).max()))
    assert largest >= 1


def test_the_detector_embedding_is_a_condition(prior: Prior) -> None:
    codes = torch.zeros(1, prior.length, dtype=torch.long)
    loss = -prior.log_likelihood(codes, conditions(1)).sum()
    (gradient,) = torch.autograd.grad(loss, prior.embedding)
    assert gradient.abs().min() > 0
