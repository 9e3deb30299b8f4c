"""The prior's sampling position by position, in steps that a graph can loop over: buffers of keys have a fixed size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from metacalo.models.prior import Prior, Sampling
from metacalo.models.transformer import KeyValueCache
from metacalo.typing import Codes, Conditions

__all__ = ["EnergyStep", "PatchStep", "SequenceSampler", "Start", "scripted"]


class SequenceSampler(nn.Module):
    """`Prior.sample_from_uniform` with its sampling settings."""

    def __init__(self, prior: Prior, sampling: Sampling) -> None:
        super().__init__()
        self.prior, self.sampling = prior, sampling

    def forward(self, uniform: Float[Tensor, "n length"], conditions: Conditions) -> Codes:
        """See `Prior.sample_from_uniform`."""
        return self.prior.sample_from_uniform(uniform, conditions, self.sampling)


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
    """The first token, and an empty buffer of keys or values of a block, (n, head, position, width of a head)."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, conditions: Conditions) -> tuple[Tensor, Tensor]:
        """Of `conditions`, the token (n, 1, width) and the buffer."""
        x = self.prior.start(conditions)
        width = x.shape[-1] // self.prior.heads
        return x, torch.zeros(conditions.shape[0], self.prior.heads, self.prior.n_positions, width)


class _Step(nn.Module):
    positions: Tensor

    def __init__(self, prior: Prior, sampling: Sampling) -> None:
        super().__init__()
        self.prior, self.sampling = prior, sampling
        self.register_buffer("positions", (prior.positions + prior.fixed_positions).detach(), persistent=False)

    def hidden(self, position: Int[Tensor, "1"], x: Tensor, buffers: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Hidden state (n, width) of a position whose token is `x`, and the buffers with its keys and values."""
        x = x + self.positions.index_select(0, position)
        kept: list[Tensor] = []
        for number, block in enumerate(self.prior.blocks):
            cache = _Written(buffers[2 * number], buffers[2 * number + 1], position)
            x = block(x, cache=cache)
            kept += [cache.keys, cache.values]
        return self.prior.norm(x[:, -1]), kept


class EnergyStep(_Step):
    """One energy: its bin (n, 1), the next token, and the buffers with what it adds to them."""

    def forward(
        self, number: Int[Tensor, "1"], uniform: Float[Tensor, "n length"], x: Tensor, *buffers: Tensor
    ) -> tuple[Tensor, ...]:
        """One step.

        Args:
            number: of the energy.
            uniform: numbers of the whole sequence.
            x: token (n, 1, width).
            buffers: keys, then values, of each block.
        """
        hidden, kept = self.hidden(number, x, buffers)
        index = self.prior.draw_energy(hidden, uniform.index_select(1, number)[:, 0], self.sampling)
        return index[:, None], self.prior.energy_tokens(index)[:, None], *kept


class PatchStep(_Step):
    """One patch, as `EnergyStep`, with its codes (n, depth)."""

    def forward(
        self, number: Int[Tensor, "1"], uniform: Float[Tensor, "n length"], x: Tensor, *buffers: Tensor
    ) -> tuple[Tensor, ...]:
        """One step; see `EnergyStep`."""
        hidden, kept = self.hidden(number + self.prior.n_energies, x, buffers)
        places = self.prior.n_energies + number * self.prior.depth + torch.arange(self.prior.depth)
        codes = self.prior.draw_codes(hidden, uniform.index_select(1, places), self.sampling)
        return codes, self.prior.patch_tokens(codes[:, None]), *kept


class _Stacked(nn.Module):
    """A step with all buffers in one tensor: a script must know how many there are."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, number: Tensor, uniform: Tensor, x: Tensor, buffers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        drawn, x, *kept = self.step(number, uniform, x, *buffers.unbind(0))
        return drawn, x, torch.stack(kept)


class _Loops(nn.Module):
    """What is scripted: it must be plain."""

    def __init__(self, start: nn.Module, energy: nn.Module, patch: nn.Module, prior: Prior) -> None:
        super().__init__()
        self.start, self.energy, self.patch = start, energy, patch
        self.n_energies: int = prior.n_energies
        self.n_patches: int = prior.n_patches
        self.n_buffers: int = 2 * len(prior.blocks)

    def forward(self, uniform: Tensor, conditions: Tensor) -> Tensor:
        x, buffer = self.start(conditions)
        buffers = torch.stack([buffer] * self.n_buffers)
        all_drawn: list[Tensor] = []
        for number in range(self.n_energies):
            drawn, x, buffers = self.energy(torch.tensor([number]), uniform, x, buffers)
            all_drawn.append(drawn)
        for number in range(self.n_patches):
            drawn, x, buffers = self.patch(torch.tensor([number]), uniform, x, buffers)
            all_drawn.append(drawn)
        return torch.cat(all_drawn, dim=1)


def scripted(sampler: SequenceSampler, trace: Callable[[nn.Module, tuple[Tensor, ...]], nn.Module]) -> nn.Module:
    """The same function in TorchScript, of steps that `trace` records once each."""
    prior, start = sampler.prior, Start(sampler.prior)
    conditions = torch.rand(2, prior.condition_size)
    uniform = torch.rand(2, prior.length)
    x, buffer = start(conditions)
    given = (torch.tensor([1]), uniform, x, torch.stack([buffer] * 2 * len(prior.blocks)))
    energy, patch = (trace(_Stacked(step(prior, sampler.sampling)), given) for step in (EnergyStep, PatchStep))
    return torch.jit.script(_Loops(trace(start, (conditions,)), energy, patch, prior))
