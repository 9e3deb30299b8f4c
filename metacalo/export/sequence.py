"""The prior's sampling position by position, in steps that a graph can loop over: buffers of keys have a fixed size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metacalo.models.prior import Prior, Sampling
from metacalo.models.transformer import KeyValueCache
from metacalo.typing import Codes, Conditions

__all__ = ["EnergyStep", "PatchStep", "SequenceSampler", "Start", "example_conditions", "scripted"]


class SequenceSampler(nn.Module):
    """`Prior.carry` with its sampling settings."""

    def __init__(self, prior: Prior, sampling: Sampling) -> None:
        super().__init__()
        self.prior, self.sampling = prior, sampling

    def forward(self, uniform: Float[Tensor, "n length"], conditions: Conditions) -> Codes:
        """See `Prior.carry`."""
        return self.prior.carry(uniform, conditions, self.sampling)


class _Written(KeyValueCache):
    """Keys and values of one block with those of a position written into their place."""

    def __init__(self, keys: Tensor, values: Tensor, position: Int[Tensor, "1"]) -> None:
        places = torch.arange(keys.shape[2])
        self.keys, self.values = keys, values
        self.place = (places == position)[:, None]
        self.seen = (places <= position)[None]

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores (n, heads, 1, head_width) and returns all places."""
        self.keys = torch.where(self.place, keys, self.keys)
        self.values = torch.where(self.place, values, self.values)
        return self.keys, self.values


class Start(nn.Module):
    """The first token, and empty buffers for keys and values of all blocks: (2 block, n, head, position, width)."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Of `conditions`, the token (n, 1, width) and the buffers."""
        x = self.prior.start(conditions)
        width = x.shape[-1] // self.prior.heads
        sizes = (2 * len(self.prior.blocks), conditions.shape[0], self.prior.heads, self.prior.n_positions, width)
        return x, torch.zeros(sizes)


class _Step(nn.Module):
    positions: Tensor

    def __init__(self, prior: Prior, sampling: Sampling) -> None:
        super().__init__()
        self.prior, self.sampling = prior, sampling
        self.register_buffer("positions", (prior.positions + prior.fixed_positions).detach(), persistent=False)

    def hidden(self, position: Int[Tensor, "1"], x: Tensor, buffers: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden state (n, width) of a position whose token is `x`, and the buffers with its keys and values."""
        x = x + self.positions.index_select(0, position)
        known = buffers.unbind(0)
        kept: list[Tensor] = []
        for number, block in enumerate(self.prior.blocks):
            cache = _Written(known[2 * number], known[2 * number + 1], position)
            x = block(x, cache=cache)
            kept += [cache.keys, cache.values]
        return self.prior.norm(x[:, -1]), torch.stack(kept)


class EnergyStep(_Step):
    """One energy: from its number (1,), its token and the buffers to the next token, the buffers and its bin (n, 1)."""

    def forward(
        self, number: Int[Tensor, "1"], x: Tensor, buffers: Tensor, uniform: Float[Tensor, "n length"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step; `uniform` is that of the whole sequence."""
        hidden, buffers = self.hidden(number, x, buffers)
        index = self.prior.draw_energy(hidden, uniform.index_select(1, number)[:, 0], self.sampling)
        return self.prior.energy_tokens(index)[:, None], buffers, index[:, None]


class PatchStep(_Step):
    """One patch, as `EnergyStep`, with its codes (n, depth)."""

    def forward(
        self, number: Int[Tensor, "1"], x: Tensor, buffers: Tensor, uniform: Float[Tensor, "n length"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step; `uniform` is that of the whole sequence."""
        hidden, buffers = self.hidden(number + self.prior.n_energies, x, buffers)
        places = self.prior.n_energies + number * self.prior.depth + torch.arange(self.prior.depth)
        codes = self.prior.draw_codes(hidden, uniform.index_select(1, places), self.sampling)
        return self.prior.patch_tokens(codes[:, None]), buffers, codes


class _Loops(nn.Module):
    """What is scripted: it must be plain."""

    def __init__(self, start: nn.Module, energy: nn.Module, patch: nn.Module, prior: Prior) -> None:
        super().__init__()
        self.start, self.energy, self.patch = start, energy, patch
        self.n_energies: int = prior.n_energies
        self.n_patches: int = prior.n_patches

    def forward(self, uniform: Tensor, conditions: Tensor) -> Tensor:
        x, buffers = self.start(conditions)
        drawn: list[Tensor] = []
        for number in range(self.n_energies):
            x, buffers, index = self.energy(torch.tensor([number]), x, buffers, uniform)
            drawn.append(index)
        for number in range(self.n_patches):
            x, buffers, codes = self.patch(torch.tensor([number]), x, buffers, uniform)
            drawn.append(codes)
        return torch.cat(drawn, dim=1)


def example_conditions(prior: Prior) -> Conditions:
    """Two condition vectors of the size that the prior reads, for tracing."""
    first = prior.condition[0]
    assert isinstance(first, nn.Linear)
    return torch.rand(2, first.in_features - len(prior.embedding))


def scripted(sampler: SequenceSampler, trace: Callable[[nn.Module, tuple[Tensor, ...]], nn.Module]) -> nn.Module:
    """The same function in TorchScript, of steps that `trace` records once each."""
    prior = sampler.prior
    conditions, number = example_conditions(prior), torch.tensor([1])
    start = Start(prior)
    given = (number, *start(conditions), torch.rand(2, prior.length))
    energy, patch = (trace(step(prior, sampler.sampling), given) for step in (EnergyStep, PatchStep))
    made: nn.Module = torch.jit.script(_Loops(trace(start, (conditions,)), energy, patch, prior))
    return made
