"""What every generator of showers can do, so that each command is written once."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metacalo.models.subspaces import SubspaceName, in_subspace
from metacalo.normaliser.latents import Latents
from metacalo.typing import Conditions

__all__ = ["Batch", "ShowerGenerator", "bf16"]


@dataclass(frozen=True)
class Batch:
    """Normalised showers with their condition vectors.

    Attributes:
        latents: of the showers.
        conditions: likewise.
        start: where they begin in the batch that several processes share.
        total: showers of that batch; 0 = these are all.
    """

    latents: Latents
    conditions: Conditions
    start: int = 0
    total: int = 0

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def whole(self) -> int:
        """Showers of the whole batch: the noise of a loss is drawn for all of them, whoever has which."""
        return self.total or len(self)

    @property
    def rows(self) -> slice:
        """Which of the whole batch these are."""
        return slice(self.start, self.start + len(self))

    @property
    def share(self) -> float:
        """Part of the whole batch that these are: the weight of their mean loss in its."""
        return len(self) / self.whole

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(self, latents=self.latents.to(device), conditions=self.conditions.to(device))


class ShowerGenerator(nn.Module, metaclass=ABCMeta):
    """A conditional density of normalised showers.

    A generator knows nothing of MeV: `Normaliser` stands between it and showers.
    """

    name: str

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """Training loss, mean over the batch; `generator` gives its noise."""

    def forward(self, batch: Batch, generator: torch.Generator) -> Float[Tensor, ""]:
        """The loss: what meta-learning engines differentiate is a module call."""
        return self.loss(batch, generator)

    @property
    @abstractmethod
    def sees_cells(self) -> bool:
        """Whether the loss depends on the latents of cells; else batches may come without."""

    @abstractmethod
    def sample(self, conditions: Conditions, generator: torch.Generator) -> Latents:
        """One normalised shower for each condition vector; the same `generator` state gives the same showers."""

    def frozen(self) -> dict[str, Tensor]:
        """Tensors that no adaptation may change: tokenizer encoder, codebooks, decoder. Empty where there are none."""
        return {}

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that pretraining moves: all but the frozen ones."""
        frozen = self.frozen()
        return {name: parameter for name, parameter in self.named_parameters() if name not in frozen}

    def subspace(self, name: SubspaceName) -> dict[str, nn.Parameter]:
        """The trainable parameters of a subspace, see `SUBSPACES`."""
        return {key: parameter for key, parameter in self.trainable().items() if in_subspace(key, name)}

    def adaptable(self) -> dict[str, nn.Parameter]:
        """What adaptation moves by default: the conditioning, biases, and the offsets of adaLN."""
        return self.subspace("conditioning+bias")


def bf16(device: torch.device | str, enabled: bool = True) -> torch.autocast:
    """Autocast to bfloat16: about four times as fast on CPUs with AMX and on GPUs."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=enabled)
