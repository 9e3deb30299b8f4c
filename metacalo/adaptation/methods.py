"""Adaptation methods: which parameters of a generator move to the shots, how fast, and which iterate is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from metacalo.config import Device, Seed, Settings
from metacalo.errors import ConfigError, MetacaloError
from metacalo.generators.base import Batch, ShowerGenerator, bf16
from metacalo.models.adapters import ADAPTER_SUFFIXES
from metacalo.models.subspaces import SubspaceName, in_subspace
from metacalo.runtime.progress import Track
from metacalo.runtime.run_log import WATTS_PER_CORE, Clock, RunLog
from metacalo.storage.checkpoint import tensor_hash
from metacalo.training_data.shower_pool import ShowerPool

__all__ = ["LEARNING_RATES", "RATE_SHARES", "Method", "MethodSettings", "adapt_generator", "mean_loss", "rate_share"]

Method = Literal["conditioning", "bias", "low-rank", "modulation", "conditioning+bias", "adapters", "full"]
"""The subspace of `models.subspaces.SUBSPACES` that adaptation moves."""

LEARNING_RATES: Mapping[Method, float] = {
    "conditioning": 3e-3,
    "bias": 6e-3,
    "low-rank": 3e-3,
    "modulation": 1e-2,
    "conditioning+bias": 5e-3,
    "adapters": 1e-2,
    "full": 5e-4,
}
"""Highest learning rate of each method: the fewer parameters move, the farther each (docs/experiments.md)."""

RATE_SHARES: Mapping[Method, Mapping[SubspaceName, float]] = {
    "conditioning+bias": {"context": 1.0, "conditioning": 0.3, "modulation": 1.0, "bias": 0.6},
    "adapters": {"context": 1.0, "low-rank": 0.3, "bias": 0.6},
}
"""Parts of methods that have several, to their shares of the learning rate, in the ratios of the parts' own methods; a
parameter belongs to the first part that holds it, and what is in none (the offsets of adaLN) has the whole rate."""


_JUDGED = 64  # held-back showers at a time, whatever the batch, so that runs with other settings have the same noise


class MethodSettings(Settings):
    """How a generator moves to the shots."""

    method: Method = Field(
        default="conditioning+bias", description="which parameters move; the tokenizer is frozen in all"
    )
    steps: int = Field(default=20, ge=0, le=10_000_000, description="optimiser steps per generator, at most")
    batch: int = Field(default=32, ge=1, le=65536, description="showers of an optimiser step")
    learning_rate: float | None = Field(
        default=None, gt=0, description="highest learning rate; by default that of the method"
    )
    rank: int | None = Field(
        default=None, ge=1, description="components of each low-rank matrix that move, at most; by default all"
    )
    decay: float = Field(
        default=0.0, ge=0, description="pull towards the base: share of the way back in a step, over the learning rate"
    )
    average: float = Field(
        default=0.8, ge=0, lt=1, description="decay of the average of the parameters over the steps; 0 = none"
    )
    held_back: float = Field(default=0.15, gt=0, lt=1, description="share of the shots that early stopping watches")
    patience: int = Field(default=2, ge=1, description="checks without progress after which adaptation stops")
    check_every: int = Field(default=5, ge=1, description="steps between two checks")
    seed: Seed = 1
    device: Device = "cpu"
    autocast: bool = Field(default=True, description="bfloat16 matrix products")
    watts_per_core: float = Field(
        default=WATTS_PER_CORE, ge=0, description="power of a core in W, for the estimate of the energy used"
    )

    @property
    def highest_rate(self) -> float:
        """The learning rate after warm-up: the one given, else the method's of `LEARNING_RATES`."""
        return LEARNING_RATES[self.method] if self.learning_rate is None else self.learning_rate


def adapt_generator(
    generator: ShowerGenerator,
    pool: ShowerPool,
    settings: MethodSettings,
    bar: Track | None = None,
    *,
    rates: Mapping[str, Tensor] | None = None,
    log: RunLog | None = None,
    stop: Event | None = None,
    on_check: Callable[[int, float], object] = lambda _step, _loss: None,
) -> dict[str, Any]:
    """Moves the parameters of the method to the showers of `pool`, in place, and returns the record of the run.

    Part of the shots is held back. At each check the average of the iterates, see `_take_in`, is judged by its loss
    there; the one with the least is kept, or the base's parameters where none is better.

    Args:
        generator: what is adapted.
        pool: the shots.
        settings: see `MethodSettings`.
        bar: shows the losses.
        rates: step sizes that the base learned (`Base.rates`); each element then moves in their ratios.
        log: of losses and cost.
        stop: ends the run where it is, once set (`parallel.side_by_side`).
        on_check: called with step and held-back loss at every check; what it raises ends the run. The shots held back
            and their noise depend on the seed alone, so that losses of different settings can be compared.

    Raises:
        ConfigError: the generator has no parameters that the method moves.
        MetacaloError: a frozen tensor changed.
    """
    started = time.perf_counter()
    hash_before = tensor_hash(generator.frozen())
    moved = _open_only(generator.to(settings.device), settings.method)
    ratios = _ratios(moved, rates or {})
    still = _other_components(moved, settings.rank)
    ratios |= {name: ratios.get(name, 1.0) * ~mask for name, mask in still.items()}
    start = _copy(moved) if settings.decay else {}
    draw = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(len(pool), generator=draw)
    n_held = min(len(pool) - 1, max(1, round(settings.held_back * len(pool))))
    held, kept = order[:n_held], order[n_held:]
    validation = _judged(pool, held, settings)
    rate = settings.highest_rate
    optimizer = torch.optim.AdamW(_parts(moved, settings.method), lr=rate, weight_decay=0.0)
    average = _copy(moved)
    best, best_step, step, worse = _copy(moved), 0, 0, 0
    best_loss = first_loss = _validate(generator, best, validation, settings)
    checks = [[0, first_loss]]
    log, clock = log or RunLog(), Clock(settings.watts_per_core, settings.device)
    log.begin(0)
    while step < settings.steps and worse < settings.patience and not (stop is not None and stop.is_set()):
        generator.train()
        rows = kept[torch.randint(len(kept), (settings.batch,), generator=draw)]
        batch = pool.batch(rows, draw).to(settings.device)
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * rate * min(1.0, (step + 1) / 10) * (1 - 0.9 * step / settings.steps)
        with bf16(settings.device, settings.autocast):
            loss = generator.loss(batch, draw)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        before = _copy({name: moved[name] for name in ratios})
        optimizer.step()
        _rescale_step(moved, before, ratios)
        _pull(optimizer, moved, start, settings.decay)
        step += 1
        _take_in(average, moved, settings.average, step)
        if step % settings.check_every == 0 or step == settings.steps:
            current = _validate(generator, average, validation, settings)
            checks.append([step, current])
            on_check(step, current)
            worse = 0 if current < best_loss else worse + 1
            if current < best_loss:
                best, best_loss, best_step = _copy(average), current, step
        if bar is not None:
            bar.advance(1, loss=float(loss.detach()), held_back=best_loss)
        if log.folder is not None:
            record = {"loss": float(loss.detach()), "held_back_loss": checks[-1][1], "learning_rate": _rate(optimizer)}
            log.write(step, generator=generator.name, **record, **clock.read())
    log.close()
    with torch.no_grad():
        for name, parameter in moved.items():
            parameter.copy_(best[name])
    generator.eval()
    if tensor_hash(generator.frozen()) != hash_before:
        raise MetacaloError(f"the frozen part of generator '{generator.name}' changed; please report this defect")
    total = sum(parameter.numel() for parameter in generator.parameters())
    trainable = sum(parameter.numel() for parameter in moved.values()) - sum(int(m.sum()) for m in still.values())
    return {
        "seconds": time.perf_counter() - started,
        "method": settings.method,
        "learning_rate": rate,
        "steps": step,
        "best_step": best_step,
        "held_back_loss": {"before": first_loss, "after": best_loss},
        "checks": checks,
        "parameters": {"trainable": trainable, "total": total, "share": trainable / total},
        "frozen_hash": hash_before,
    }


def mean_loss(generator: ShowerGenerator, pool: ShowerPool, settings: MethodSettings) -> float:
    """Mean loss over all showers of `pool`, with noise that depends on the seed of `settings` alone."""
    return _validate(generator, {}, _judged(pool, torch.arange(len(pool)), settings), settings)


def rate_share(name: str, method: Method) -> float:
    """Share of the method's learning rate with which the parameter of that name moves.

    Example:
        >>> rate_share("dit.blocks.0.attention.qkv.up", "adapters"), rate_share("dit.blocks.0.attention.qkv.up", "full")
        (0.3, 1.0)
    """
    return next((share for part, share in RATE_SHARES.get(method, {}).items() if in_subspace(name, part)), 1.0)


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


def _parts(moved: Mapping[str, nn.Parameter], method: Method) -> list[dict[str, Any]]:
    """What moves, in groups of an optimiser by `rate_share`."""
    shares = {name: rate_share(name, method) for name in moved}
    return [
        {"params": [moved[name] for name in moved if shares[name] == share], "share": share}
        for share in sorted(set(shares.values()), reverse=True)
    ]


def _rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the last step, before the shares of its parts."""
    group = optimizer.param_groups[0]
    return float(group["lr"] / group["share"])


def _ratios(moved: Mapping[str, Tensor], rates: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Learned step sizes of what moves, over their mean: which elements move more, and which less."""
    known = {name: rates[name].to(moved[name]) for name in moved if name in rates}
    if not known:
        return {}
    mean = torch.cat([rate.flatten() for rate in known.values()]).mean()
    return {name: rate / mean for name, rate in known.items()}


def _other_components(moved: Mapping[str, Tensor], rank: int | None) -> dict[str, Tensor]:
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


@torch.no_grad()
def _pull(
    optimizer: torch.optim.Optimizer, moved: Mapping[str, Tensor], start: Mapping[str, Tensor], decay: float
) -> None:
    """Decay to where adaptation started (arXiv:1802.01483), decoupled from the gradient as in AdamW, in place."""
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, values in start.items():
        moved[name].lerp_(values, min(1.0, decay * rates[id(moved[name])]))


@torch.no_grad()
def _rescale_step(moved: Mapping[str, Tensor], before: Mapping[str, Tensor], ratios: Mapping[str, Tensor]) -> None:
    """Multiplies the step that the optimiser has just taken, in place."""
    for name, ratio in ratios.items():
        moved[name].copy_(before[name] + ratio * (moved[name] - before[name]))


def _copy(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


@torch.no_grad()
def _take_in(average: Mapping[str, Tensor], iterate: Mapping[str, Tensor], decay: float, step: int) -> None:
    """Takes the iterate of step 1, 2, ... into the average sum_i a^(step - i) theta_i / sum_i a^(step - i), in place.

    One iterate is noisy, its batch being small. The sum starts at step 1: the base, where it would start otherwise, has
    a check of its own, and a third of it would be left after ten steps.
    """
    weight = (1 - decay) / (1 - decay**step)
    for name, values in average.items():
        values.lerp_(iterate[name], weight)


def _judged(pool: ShowerPool, rows: Tensor, settings: MethodSettings) -> list[Batch]:
    noise = torch.Generator().manual_seed(settings.seed + 1)
    parts = torch.split(rows, _JUDGED)
    return [pool.batch(part, noise, reflect=False).to(settings.device) for part in parts]


@torch.no_grad()
def _validate(
    generator: ShowerGenerator, values: Mapping[str, Tensor], batches: list[Batch], settings: MethodSettings
) -> float:
    """Mean loss over the held-back shots with `values` in the place of the parameters of those names.

    The noise is the same every time, so that two checks can be compared.
    """
    generator.eval()
    noise = torch.Generator().manual_seed(settings.seed + 2)
    repeats = 2
    with bf16(settings.device, settings.autocast):
        weighted = [
            float(functional_call(generator, dict(values), (batch, noise))) * len(batch)
            for _ in range(repeats)
            for batch in batches
        ]
    return sum(weighted) / (repeats * sum(len(batch) for batch in batches))
