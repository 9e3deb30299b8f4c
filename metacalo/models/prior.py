"""The autoregressive prior: a causal transformer over energies and code indices."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from metacalo.config import Settings
from metacalo.errors import ConfigError
from metacalo.models.patches import Patching
from metacalo.models.positions import sincos_3d
from metacalo.models.transformer import Block, BlockStack, KeyValueCache
from metacalo.typing import Codes, Conditions, Tokens

__all__ = ["Prior", "PriorSettings", "Sampling"]


class PriorSettings(Settings):
    """Size of the prior."""

    width: int = Field(default=128, ge=12, le=4096)
    blocks: int = Field(default=3, ge=1, le=256)
    heads: int = Field(default=2, ge=1, le=256)
    rank: int = Field(default=4, ge=0, le=4096, description="rank of the low-rank adapters")
    embedding: int = Field(default=16, ge=0, le=4096, description="length of the detector embedding")
    bins: int = Field(default=128, ge=2, le=65536, description="bins of an energy latent")


@dataclass(frozen=True)
class Sampling:
    """How the next index is drawn: temperature, then top-k, then top-p (nucleus); the defaults are the plain model.

    Raises:
        ConfigError: a value that leaves nothing to draw from.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or (self.top_k is not None and self.top_k < 1) or not 0 < self.top_p <= 1:
            raise ConfigError(f"temperature >= 0, top_k >= 1 and 0 < top_p <= 1 are needed, got {self}")


class Prior(nn.Module):
    """p(sequence | condition) = prod_i p(s_i | s_<i, condition).

    The sequence is: the total energy, the energy of each layer in depth (both as bins of their latents), then the code
    indices of each patch, `depth` of them in a row. Energies so are settled before shapes. The first token is the
    projected condition vector with the detector embedding, which adaptation moves.

    The transformer has one position per energy and one per patch. The codes of a patch follow from its position one
    after another through small heads that see the codes before (as in the RQ-Transformer, arXiv:2203.01941).
    """

    fixed_positions: Tensor

    def __init__(
        self, settings: PriorSettings, patching: Patching, depth: int, codebook_size: int, condition_size: int
    ) -> None:
        super().__init__()
        width = settings.width
        self.n_energies = 1 + patching.grid[2]
        self.n_patches = patching.n_tokens
        self.depth, self.bins, self.heads = depth, settings.bins, settings.heads
        self.condition_size = condition_size
        self.n_positions = self.n_energies + self.n_patches
        self.length = self.n_energies + self.n_patches * depth
        self.embedding = nn.Parameter(torch.zeros(settings.embedding))
        self.condition = nn.Sequential(
            nn.Linear(condition_size + settings.embedding, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.energy_tokens = nn.Embedding(settings.bins, width)
        self.code_tokens = nn.ModuleList(nn.Embedding(codebook_size, width) for _ in range(depth))
        self.positions = nn.Parameter(torch.randn(self.n_positions, width) * 0.02)
        fixed = torch.zeros(self.n_positions, width)
        fixed[self.n_energies :] = sincos_3d(patching.counts, width)
        self.register_buffer("fixed_positions", fixed, persistent=False)
        self.blocks = BlockStack(
            Block(width, settings.heads, causal=True, rank=settings.rank) for _ in range(settings.blocks)
        )
        self.norm = nn.RMSNorm(width)
        self.energy_head = nn.Linear(width, settings.bins)
        self.code_heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, codebook_size)) for _ in range(depth)
        )
        for table in (self.energy_tokens, *self.code_tokens):
            nn.init.normal_(table.weight, std=0.3)

    def start(self, conditions: Conditions) -> Float[Tensor, "n 1 width"]:
        """The first token, of the condition."""
        embedding = self.embedding.expand(conditions.shape[0], -1)
        return self.condition(torch.cat([conditions, embedding], dim=1))[:, None]  # type: ignore[no-any-return]

    def _split(self, codes: Codes) -> tuple[Int[Tensor, "n energy"], Int[Tensor, "n patch depth"]]:
        return codes[:, : self.n_energies], codes[:, self.n_energies :].reshape(-1, self.n_patches, self.depth)

    def patch_tokens(self, indices: Int[Tensor, "n patch depth"]) -> Tokens:
        """The tokens of patches with these code indices."""
        return torch.stack([table(indices[..., slot]) for slot, table in enumerate(self.code_tokens)]).sum(0)

    def _position(self, start: int, stop: int) -> Tensor:
        return self.positions[start:stop] + self.fixed_positions[start:stop]

    def _code_logits(self, hidden: Tensor, indices: Int[Tensor, "*n depth"], slot: int) -> Tensor:
        """Logits of code `slot` given the position's hidden state and the codes before it."""
        for before in range(slot):
            hidden = hidden + self.code_tokens[before](indices[..., before])
        return self.code_heads[slot](hidden)  # type: ignore[no-any-return]

    def forward(
        self, codes: Codes, conditions: Conditions
    ) -> tuple[Float[Tensor, "n energy bins"], Float[Tensor, "n patch depth size"]]:
        """Logits of every energy bin and of every code, each given the condition and all that is before it."""
        energies, indices = self._split(codes)
        before = torch.cat([self.energy_tokens(energies), self.patch_tokens(indices[:, :-1])], dim=1)
        x: Tokens = torch.cat([self.start(conditions), before], dim=1) + self._position(0, self.n_positions)
        x = self.norm(self.blocks(x))
        patches = x[:, self.n_energies :]
        logits = [self._code_logits(patches, indices, slot) for slot in range(self.depth)]
        return self.energy_head(x[:, : self.n_energies]), torch.stack(logits, dim=2)

    def log_likelihood(self, codes: Codes, conditions: Conditions) -> Float[Tensor, "n"]:
        """Log-likelihood ln p(codes | conditions) of each sequence, in nats."""
        energies, indices = self._split(codes)
        energy_logits, code_logits = self(codes, conditions)
        return _log_probability(energy_logits, energies).sum(1) + _log_probability(code_logits, indices).sum((1, 2))

    @torch.no_grad()
    def sample(self, conditions: Conditions, generator: torch.Generator, sampling: Sampling | None = None) -> Codes:
        """Sequences (n, length), drawn position by position with a key-value cache."""
        uniform = torch.rand(self.length, len(conditions), generator=generator).T
        return self.sample_from_uniform(uniform.to(conditions.device), conditions, sampling)

    @torch.no_grad()
    def sample_from_uniform(
        self, uniform: Float[Tensor, "n length"], conditions: Conditions, sampling: Sampling | None = None
    ) -> Codes:
        """The sequences that uniform numbers in [0, 1) stand for, one number for each index."""
        sampling = sampling or Sampling()
        x = self.start(conditions)
        shape = (len(conditions), self.heads, self.n_positions, x.shape[-1] // self.heads)
        caches = [KeyValueCache(*shape, like=x) for _ in self.blocks]
        drawn: list[Tensor] = []
        for position in range(self.n_positions):
            x = x + self._position(position, position + 1)
            for block, cache in zip(self.blocks, caches, strict=True):
                x = block(x, cache=cache)
            hidden = self.norm(x[:, -1])
            if position < self.n_energies:
                index = self.draw_energy(hidden, uniform[:, position], sampling)
                drawn.append(index[:, None])
                x = self.energy_tokens(index)[:, None]
            else:
                first = self.n_energies + (position - self.n_energies) * self.depth
                codes = self.draw_codes(hidden, uniform[:, first : first + self.depth], sampling)
                drawn.append(codes)
                x = self.patch_tokens(codes[:, None])
        return torch.cat(drawn, dim=1)

    def draw_energy(
        self, hidden: Float[Tensor, "n width"], uniform: Float[Tensor, "n"], sampling: Sampling
    ) -> Int[Tensor, "n"]:
        """The bin of an energy, given the hidden state of its position."""
        return _draw(self.energy_head(hidden).float(), sampling, uniform)

    def draw_codes(
        self, hidden: Float[Tensor, "n width"], uniform: Float[Tensor, "n depth"], sampling: Sampling
    ) -> Int[Tensor, "n depth"]:
        """The code indices of a patch, given the hidden state of its position."""
        drawn: list[Tensor] = []
        for slot in range(self.depth):
            before = torch.stack(drawn, dim=-1) if drawn else hidden.new_empty(hidden.shape[0], 0, dtype=torch.long)
            drawn.append(_draw(self._code_logits(hidden, before, slot).float(), sampling, uniform[:, slot]))
        return torch.stack(drawn, dim=-1)


def _log_probability(logits: Float[Tensor, "*n k"], index: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    return -F.cross_entropy(logits.float().flatten(0, -2), index.flatten(), reduction="none").view(index.shape)


def _draw(logits: Float[Tensor, "n k"], sampling: Sampling, uniform: Float[Tensor, "n"]) -> Int[Tensor, "n"]:
    logits = logits / max(sampling.temperature, 1e-6)
    if sampling.top_k is not None and sampling.top_k < logits.shape[1]:
        smallest = logits.topk(sampling.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(dim=1, descending=True)
        before = ordered.softmax(1).cumsum(1) - ordered.softmax(1)
        logits = logits.masked_fill((before >= sampling.top_p).gather(1, order.argsort(1)), -torch.inf)
    cumulative = logits.softmax(1).cumsum(1)
    wanted = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, wanted, right=True).squeeze(1).clamp_max(logits.shape[1] - 1)
