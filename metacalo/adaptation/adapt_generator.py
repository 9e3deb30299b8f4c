"""A generator moved to the shots: optimiser steps on some, early stopping on others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any

import torch
from torch import Tensor

from metacalo.adaptation.early_stopping import BestAverage
from metacalo.adaptation.methods import MethodSettings
from metacalo.adaptation.moved_parameters import MovedParameters
from metacalo.errors import MetacaloError
from metacalo.generators.base import ShowerGenerator, bf16
from metacalo.runtime.progress import Track
from metacalo.runtime.run_log import Clock, RunLog
from metacalo.storage.checkpoint import tensor_hash
from metacalo.training_data.shower_pool import ShowerPool

__all__ = ["adapt_generator"]


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

    Part of the shots is held back. The average of the iterates with the least loss there is kept, or
    the base's parameters where none is better (`BestAverage`).

    Args:
        generator: what is adapted.
        pool: the shots.
        settings: see `MethodSettings`.
        bar: shows the losses.
        rates: step sizes that the base learned (`Base.rates`); each element then moves in their ratios.
        log: of losses and cost.
        stop: ends the run where it is, once set (`threads.side_by_side`).
        on_check: called with step and held-back loss at every check; what it raises ends the run. The shots held back
            and their noise depend on the seed alone, so that losses of different settings can be compared.

    Raises:
        ConfigError: the generator has no parameters that the method moves.
        MetacaloError: a frozen tensor changed.
    """
    started = time.perf_counter()
    hash_before = tensor_hash(generator.frozen())
    moved = MovedParameters(generator.to(settings.device), settings, rates or {})
    draw = torch.Generator().manual_seed(settings.seed)
    held, kept = _held_back(len(pool), settings.held_back, draw)
    average = BestAverage(generator, moved.copy(), pool, held, settings)
    log, clock = log or RunLog(), Clock(settings.watts_per_core, settings.device)
    log.begin(0)
    step = 0
    while step < settings.steps and average.worse < settings.patience and not (stop is not None and stop.is_set()):
        loss = _step(generator, moved, pool, kept, step, draw)
        step += 1
        average.take_in(moved.parameters, step)
        if step % settings.check_every == 0 or step == settings.steps:
            on_check(step, average.check(step))
        if bar is not None:
            bar.advance(1, loss=loss, held_back=average.loss)
        if log.folder is not None:
            losses = {"loss": loss, "held_back_loss": average.checks[-1][1], "learning_rate": moved.rate}
            log.write(step, generator=generator.name, **losses, **clock.read())
    log.close()
    moved.set(average.best)
    generator.eval()
    if tensor_hash(generator.frozen()) != hash_before:
        raise MetacaloError(f"the frozen part of generator '{generator.name}' changed; please report this defect")
    total = sum(parameter.numel() for parameter in generator.parameters())
    return {
        "seconds": time.perf_counter() - started,
        "method": settings.method,
        "learning_rate": settings.highest_rate,
        "steps": step,
        "best_step": average.at_step,
        "held_back_loss": {"before": average.checks[0][1], "after": average.loss},
        "checks": average.checks,
        "parameters": {"trainable": moved.count, "total": total, "share": moved.count / total},
        "frozen_hash": hash_before,
    }


def _held_back(n: int, share: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of the shots that early stopping watches, at least one, and of the others, at least one."""
    order = torch.randperm(n, generator=draw)
    n_held = min(n - 1, max(1, round(share * n)))
    return order[:n_held], order[n_held:]


def _step(
    generator: ShowerGenerator,
    moved: MovedParameters,
    pool: ShowerPool,
    kept: Tensor,
    step: int,
    draw: torch.Generator,
) -> float:
    """One optimiser step on showers drawn from the rows `kept`; returns its loss."""
    settings = moved.settings
    generator.train()
    batch = pool.batch(kept[torch.randint(len(kept), (settings.batch,), generator=draw)], draw).to(settings.device)
    moved.schedule(step)
    with bf16(settings.device, settings.autocast):
        loss = generator.loss(batch, draw)
    moved.step(loss)
    return float(loss.detach())
