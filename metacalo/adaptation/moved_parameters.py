"""The parameters that adaptation moves, and a step of them: shares of the rate, learned ratios, decay to the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metacalo.adaptation.methods import Method, MethodSettings, rate_share
from metacalo.errors import ConfigError
from metacalo.generators.base import ShowerGenerator
from metacalo.models.adapters import ADAPTER_SUFFIXES

__all__ = ["MovedParameters"]

_WARM_UP, _LAST_RATE = 10, 0.1  # steps; share of the highest rate that the last step has


class MovedParameters:
    """The parameters of a method, the only ones of the generator that get gradients, with their optimiser.

    Args:
        generator: what is adapted.
        settings: method, rank, rate, number of steps and decay.
        rates: step sizes that the base learned, by parameter; each element then moves in their ratios.

    Raises:
        ConfigError: the generator has no parameters that the method moves.
    """

    def __init__(self, generator: ShowerGenerator, settings: MethodSettings, rates: Mapping[str, Tensor]) -> None:
        self.settings = settings
        self.parameters = _open_only(generator, settings.method)
        self._fixed = _beyond_rank(self.parameters, settings.rank)
        ratios = _ratios(self.parameters, rates)
        self._ratios = ratios | {name: ratios.get(name, 1.0) * ~mask for name, mask in self._fixed.items()}
        self._start = self.copy() if settings.decay else {}
        self._optimizer = torch.optim.AdamW(
            _groups(self.parameters, settings.method), lr=settings.highest_rate, weight_decay=0.0
        )

    @property
    def count(self) -> int:
        """How many numbers move."""
        return sum(p.numel() for p in self.parameters.values()) - sum(int(m.sum()) for m in self._fixed.values())

    @property
    def rate(self) -> float:
        """The learning rate of the last step, before the shares of the groups."""
        group = self._optimizer.param_groups[0]
        return float(group["lr"] / group["share"])

    def copy(self) -> dict[str, Tensor]:
        """The values now."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def set(self, values: Mapping[str, Tensor]) -> None:
        """Puts `values` in."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def schedule(self, step: int) -> None:
        """Sets the rates of step 0, 1, ...: ten steps of warm-up, then linearly down."""
        factor = min(1.0, (step + 1) / _WARM_UP) * (1 - (1 - _LAST_RATE) * step / self.settings.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group["share"] * self.settings.highest_rate * factor

    def step(self, loss: Tensor) -> None:
        """A step down the gradient of `loss`, then the pull of the decay."""
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        before = {name: self.parameters[name].detach().clone() for name in self._ratios}
        self._optimizer.step()
        self._rescale_step(before)
        self._pull()

    @torch.no_grad()
    def _rescale_step(self, before: Mapping[str, Tensor]) -> None:
        for name, ratio in self._ratios.items():
            moved = self.parameters[name]
            moved.copy_(before[name] + ratio * (moved - before[name]))

    @torch.no_grad()
    def _pull(self) -> None:
        """Decay to where adaptation started (arXiv:1802.01483), decoupled from the gradient as in AdamW."""
        rates = {id(parameter): group["lr"] for group in self._optimizer.param_groups for parameter in group["params"]}
        for name, values in self._start.items():
            moved = self.parameters[name]
            moved.lerp_(values, min(1.0, self.settings.decay * rates[id(moved)]))


def _open_only(generator: ShowerGenerator, method: Method) -> dict[str, nn.Parameter]:
    """The parameters of the method, the only ones left that get gradients."""
    moved = generator.subspace(method)
    if not any(parameter.numel() for parameter in moved.values()):
        raise ConfigError(
            f"generator '{generator.name}' of this base has no parameters that method '{method}' moves; choose another "
            "--method"
        )
    for name, parameter in generator.named_parameters():
        parameter.requires_grad_(name in moved)
    return moved


def _groups(moved: Mapping[str, nn.Parameter], method: Method) -> list[dict[str, Any]]:
    """The parameters in groups of an optimiser by `rate_share`."""
    shares = {name: rate_share(name, method) for name in moved}
    return [
        {"params": [moved[name] for name in moved if shares[name] == share], "share": share}
        for share in sorted(set(shares.values()), reverse=True)
    ]


def _ratios(moved: Mapping[str, Tensor], rates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Learned step sizes of what moves, over their mean: which elements move more, and which less."""
    known = {name: rates[name].to(moved[name]) for name in moved if name in rates}
    if not known:
        return {}
    mean = torch.cat([rate.flatten() for rate in known.values()]).mean()
    return {name: rate / mean for name, rate in known.items()}


def _beyond_rank(moved: Mapping[str, Tensor], rank: int | None) -> dict[str, Tensor]:
    """True for the elements of low-rank matrices beyond the first `rank` components, which stay the base's."""
    if rank is None:
        return {}
    beyond = {}
    for name, values in moved.items():
        if name.endswith(ADAPTER_SUFFIXES):
            beyond[name] = torch.zeros_like(values, dtype=torch.bool)
            if name.endswith(".down"):
                beyond[name][rank:] = True
            else:
                beyond[name][:, rank:] = True
    return beyond
