"""The outer loop: optimiser, learning-rate schedule, averaged weights, and a state on disk from which it goes on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from metacalo.config import Settings
from metacalo.errors import ModelFolderError, OutputError
from metacalo.runtime.distributed import Ranks
from metacalo.runtime.progress import track
from metacalo.runtime.run_log import Clock, RunLog
from metacalo.runtime.signals import signals_held
from metacalo.storage.checkpoint import load_tensors, save_tensors
from metacalo.training_data.sampler import EpisodeSampler

__all__ = ["OuterLoop", "StageSettings", "average_decay"]


def average_decay(highest: float, step: int) -> float:
    """Decay of the average of the weights after so many steps before this one.

    It grows with them (as in arXiv:2206.00364, App. F), so that the random start is forgotten.

    Example:
        >>> average_decay(0.999, 0), average_decay(0.999, 10**6)
        (0.1, 0.999)
    """
    return min(highest, (1 + step) / (10 + step))


class StageSettings(Settings):
    """How long and how fast one stage trains."""

    steps: int = Field(ge=0)
    batch: int = Field(default=64, ge=1, description="showers per plain step")
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: int = Field(default=200, ge=0, description="steps over which the learning rate rises")
    last_rate: float = Field(
        default=0.02, ge=0, le=1, description="learning rate of the last step, as a share of the highest; 1 = no decay"
    )
    weight_decay: float = Field(default=0.01, ge=0)
    average: float = Field(
        default=0.999, ge=0, lt=1, description="decay of the averaged weights that are kept in the end"
    )


@dataclass
class _Line:
    """What the next line of the log is made of: showers drawn before it, since when, and losses."""

    showers: int
    since: float = field(default_factory=time.monotonic)
    losses: list[float] = field(default_factory=list)


@dataclass
class OuterLoop:
    """Runs a stage step by step and keeps its state.

    Attributes:
        name: of the stage, shown beside the bar.
        model: what is trained.
        parameters: those that move, by name; some may be no part of the model.
        sampler: source of the showers; its state is part of the state on disk.
        noise: generator of the loss's own noise, likewise.
        gradient_step: (step) to this process's share of the loss; leaves its share of gradients in `parameter.grad`.
        settings: see `StageSettings`.
        state_file: where the state is kept.
        save_every: seconds between two states.
        ranks: the processes that share each step; the first one writes.
        log: of losses and cost.
        clock: counts the cost.

    A run that is interrupted and resumed on the same device draws the same showers and noise, and ends with the same
    weights bit for bit as one that was not. A signal that asks the process to end is taken between two steps, once the
    state is kept.
    """

    name: str
    model: nn.Module
    parameters: Mapping[str, nn.Parameter]
    sampler: EpisodeSampler
    noise: torch.Generator
    gradient_step: Callable[[int], Tensor]
    settings: StageSettings
    state_file: Path
    save_every: float
    ranks: Ranks = field(default_factory=Ranks)
    log: RunLog = field(default_factory=RunLog)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self._optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            betas=(0.9, 0.99),
            fused=True,
        )
        self._average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.step = 0
        self.losses: list[float] = []
        self._recent = 0.0  # sum of the losses since the last mean
        self.cost: dict[str, float] = {}

    def run(self, *, resume: bool) -> list[float]:
        """Trains to the end, leaves the averaged weights in the model, and returns the loss of every 50 steps."""
        if resume and self.state_file.exists():
            self._restore()
        self.ranks.align([*self.model.state_dict().values(), *self._beside().values()])
        self.log.begin(self.step)
        steps = self.settings.steps
        saved = time.monotonic()
        self.model.train()
        with (
            track(self.name, steps, completed=self.step, quiet=not self.ranks.first) as bar,
            closing(self.log),
            signals_held() as signals,
        ):
            line = _Line(self.sampler.showers)
            while self.step < steps:
                rate = self._learning_rate()
                loss = float(self._advance())
                self._recent += loss
                line.losses.append(loss)
                bar.advance()
                if self.log.due(self.step, steps):
                    self.cost = self.clock.read()
                    self.log.write(self.step, stage=self.name, learning_rate=rate, **self._figures(line), **self.cost)
                    line = _Line(self.sampler.showers)
                if self.step % 50 == 0:
                    self.losses.append(self._recent / 50)
                    self._recent = 0.0
                    bar.advance(0, loss=self.losses[-1])
                asked = self.ranks.total([signals.asked])[0] > 0  # all of them end after the same step
                due = self.step % 50 == 0 and time.monotonic() - saved > self.save_every
                if due or asked:
                    if self.ranks.first:
                        self._save()
                    saved = time.monotonic()
                if asked:
                    break
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self._average[name])
        self.model.eval()
        return self.losses

    def _figures(self, line: _Line) -> dict[str, float]:
        """Mean loss and throughput, of all processes, since the last line."""
        rate = (self.sampler.showers - line.showers) / (time.monotonic() - line.since)
        return {"loss": sum(line.losses) / len(line.losses), "showers_per_second": rate}

    def _advance(self) -> Tensor:
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.ranks.add_up(self.parameters, self.gradient_step(self.step))
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), 1.0)
        self._optimizer.step()
        decay = average_decay(self.settings.average, self.step)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                self._average[name].lerp_(parameter, 1 - decay)
        self.step += 1
        return loss.detach()

    def _learning_rate(self) -> float:
        """Linear warm-up, then a cosine to the last rate."""
        settings = self.settings
        if self.step < settings.warmup:
            return settings.learning_rate * (self.step + 1) / settings.warmup
        progress = (self.step - settings.warmup) / max(1, settings.steps - settings.warmup)
        share = settings.last_rate + (1 - settings.last_rate) * 0.5 * (1 + math.cos(math.pi * progress))
        return settings.learning_rate * share

    def _beside(self) -> dict[str, nn.Parameter]:
        """What moves and is no part of the model: learned rates."""
        own = dict(self.model.named_parameters())
        return {name: parameter for name, parameter in self.parameters.items() if name not in own}

    def _save(self) -> None:
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"beside/{name}": parameter for name, parameter in self._beside().items()}
        tensors |= {f"average/{name}": tensor for name, tensor in self._average.items()}
        for index, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": tensor for name, tensor in moments.items()}
        tensors |= {f"sampler/{name}": tensor for name, tensor in self.sampler.state().items()}
        tensors["noise"] = self.noise.get_state()
        tensors["global"] = torch.get_rng_state()  # the codebook's k-means and revival draw from it
        if torch.cuda.is_available():
            tensors["cuda"] = torch.cuda.get_rng_state()
        tensors["losses"] = torch.tensor(self.losses, dtype=torch.float64)
        tensors["recent"] = torch.tensor(self._recent, dtype=torch.float64)
        metadata = {"stage": self.name, "step": str(self.step), "cost": json.dumps(self.cost)}
        try:
            save_tensors(self.state_file, tensors, metadata)
        except OutputError as error:
            raise OutputError(f"{error}; the state before is kept, so go on with --resume") from error

    def _restore(self) -> None:
        tensors, metadata = load_tensors(self.state_file, largest=None)
        if metadata.get("stage") != self.name:
            raise ModelFolderError(f"{self.state_file}: holds stage '{metadata.get('stage')}', not '{self.name}'")

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        self.model.load_state_dict(part("model/"))
        with torch.no_grad():
            for name, parameter in self._beside().items():
                parameter.copy_(tensors[f"beside/{name}"])
        device = next(iter(self._average.values())).device
        self._average = {name: tensor.to(device) for name, tensor in part("average/").items()}
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in part("optimizer/").items():
            index, moment = name.split("/")
            state.setdefault(int(index), {})[moment] = tensor
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": state})
        self.sampler.restore(part("sampler/"))
        self.noise.set_state(tensors["noise"])
        torch.set_rng_state(tensors["global"])
        if "cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["cuda"])
        self.losses = tensors["losses"].tolist()
        self._recent = float(tensors.get("recent", 0.0))  # older states were kept where it is zero
        self.step = int(metadata["step"])
        self.cost = json.loads(metadata.get("cost", "{}"))
        self.clock.go_on(self.cost)
