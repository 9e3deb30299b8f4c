"""Early stopping: the average of the iterates is judged on shots held back, and the best one is kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call

from metacalo.adaptation.methods import MethodSettings
from metacalo.generators.base import Batch, ShowerGenerator, bf16
from metacalo.training_data.shower_pool import ShowerPool

__all__ = ["BestAverage", "mean_loss"]

_JUDGED = 64  # held-back showers at a time, whatever the batch, so that runs with other settings have the same noise
_REPEATS = 2  # noises of each held-back shower


class BestAverage:
    """The average of the iterates, and the best one so far by its loss on the shots held back.

    Args:
        generator: what is adapted.
        start: values of its moved parameters; they are the best until an average is better.
        pool: the shots.
        held: rows of `pool` that are held back.
        settings: decay of the average, seed and device.

    Attributes:
        best: the best values.
        loss: their held-back loss.
        at_step: the step after which they were.
        checks: [step, loss] of each check; the first is of `start`.
        worse: checks in a row without progress.
    """

    def __init__(
        self,
        generator: ShowerGenerator,
        start: Mapping[str, Tensor],
        pool: ShowerPool,
        held: Tensor,
        settings: MethodSettings,
    ) -> None:
        self._generator, self._settings = generator, settings
        self._batches = _batches(pool, held, settings)
        self.best, self.at_step, self.worse = _copy(start), 0, 0
        self._average = _copy(start)
        self.loss = _validate(generator, self.best, self._batches, settings)
        self.checks: list[list[float]] = [[0, self.loss]]

    @torch.no_grad()
    def take_in(self, iterate: Mapping[str, Tensor], step: int) -> None:
        """Takes the iterate of step 1, 2, ... into the average sum_i a^(step - i) theta_i / sum_i a^(step - i).

        One iterate is noisy, its batch being small. The sum starts at step 1: the base, where it would start otherwise,
        has a check of its own, and a third of it would be left after ten steps.
        """
        weight = (1 - self._settings.average) / (1 - self._settings.average**step)
        for name, values in self._average.items():
            values.lerp_(iterate[name], weight)

    def check(self, step: int) -> float:
        """The held-back loss of the average; where it is the least, the average is kept."""
        loss = _validate(self._generator, self._average, self._batches, self._settings)
        self.checks.append([step, loss])
        self.worse = 0 if loss < self.loss else self.worse + 1
        if loss < self.loss:
            self.best, self.loss, self.at_step = _copy(self._average), loss, step
        return loss


def mean_loss(generator: ShowerGenerator, pool: ShowerPool, settings: MethodSettings) -> float:
    """Mean loss over all showers of `pool`, with noise that depends on the seed of `settings` alone."""
    return _validate(generator, {}, _batches(pool, torch.arange(len(pool)), settings), settings)


def _copy(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def _batches(pool: ShowerPool, rows: Tensor, settings: MethodSettings) -> list[Batch]:
    noise = torch.Generator().manual_seed(settings.seed + 1)
    chunks = torch.split(rows, _JUDGED)
    return [pool.batch(chunk, noise, reflect=False).to(settings.device) for chunk in chunks]


@torch.no_grad()
def _validate(
    generator: ShowerGenerator, values: Mapping[str, Tensor], batches: list[Batch], settings: MethodSettings
) -> float:
    """Mean loss over the held-back shots with `values` in the place of the parameters of those names.

    The noise is the same every time, so that two checks can be compared.
    """
    generator.eval()
    noise = torch.Generator().manual_seed(settings.seed + 2)
    with bf16(settings.device, settings.autocast):
        weighted = [
            float(functional_call(generator, dict(values), (batch, noise))) * len(batch)
            for _ in range(_REPEATS)
            for batch in batches
        ]
    return sum(weighted) / (_REPEATS * sum(len(batch) for batch in batches))
