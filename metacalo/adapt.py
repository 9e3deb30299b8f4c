"""`metacalo adapt`: from a few hundred showers of a new detector to its generator."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

import metacalo
from metacalo.base import GENERATORS, resolve_base
from metacalo.checkpoint import atomic_folder, require_free, save_json, tensor_hash
from metacalo.comparison import compare_models
from metacalo.config import Device, Seed, Settings
from metacalo.errors import MetacaloError, ShowerFileError, UnknownNameError
from metacalo.generators.base import Batch, ShowerGenerator, bf16
from metacalo.generators.frozen import FrozenLibrary
from metacalo.meta.episodes import ShowerPool
from metacalo.model import ShowerModel, save_model, zero_shot
from metacalo.parallel import side_by_side
from metacalo.progress import Track, bars
from metacalo.showers.detector import Detector
from metacalo.showers.hdf5 import ShowerFile, Showers
from metacalo.showers.tasks import resolve_task

__all__ = ["AdaptResult", "AdaptSettings", "adapt", "adapt_generator", "adapted_model"]


class AdaptSettings(Settings):
    """Everything that decides what an adapted model becomes."""

    base: str = "base"
    shots: int = Field(default=400, ge=2)
    generator: Literal["ar", "diffusion", "both", "frozen"] = Field(
        default="both", description="both = ar and diffusion; frozen = a library of the shots, no network"
    )
    steps: int = Field(default=40, ge=0, description="optimiser steps per generator, at most")
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    held_back: float = Field(default=0.15, gt=0, lt=1, description="share of the shots that early stopping watches")
    patience: int = Field(default=2, ge=1, description="checks without progress after which adaptation stops")
    check_every: int = Field(default=10, ge=1, description="steps between two checks")
    seed: Seed = 1
    device: Device = "cpu"
    autocast: bool = True
    compared_showers: int = Field(
        default=200, ge=0, description="generated for the before/after comparison; 0 = no comparison"
    )

    @property
    def generators(self) -> tuple[str, ...]:
        """Names of the generators that are adapted; none where the shots become a library."""
        return {"both": GENERATORS, "frozen": ()}.get(self.generator, (self.generator,))


@dataclass(frozen=True)
class AdaptResult:
    """The adapted model and the figures of its run (`metrics.json`)."""

    model: ShowerModel
    metrics: dict[str, Any]
    out: Path


def adapt(
    detector: str | Path,
    out: str | Path,
    settings: AdaptSettings | None = None,
    *,
    described: Detector | None = None,
    force: bool = False,
    command: str = "",
) -> AdaptResult:
    """Adapts a base to the showers of a detector and writes the model folder `out`.

    Args:
        detector: a shower file, a task folder or the name of a task.
        out: folder to write: adapters or library, normaliser, config.json, metrics.json, profiles.png.
        settings: see `AdaptSettings`.
        described: takes the place of what the file says about its detector.
        force: replace an existing `out`.
        command: recorded with the result.

    Raises:
        ShowerFileError: the file cannot be read, or has fewer showers than shots.
        DetectorError: nothing tells the detector, or its mesh is not the base's.
        UnknownNameError: no such base, task or generator.
        OutputError: `out` exists and not `force`, or cannot be written.
        MetacaloError: a frozen tensor changed, which would be a defect of metacalo.
    """
    started = time.perf_counter()
    settings = settings or AdaptSettings()
    require_free(Path(out), force)
    base = resolve_base(settings.base)
    for name in settings.generators:
        if name not in base.config.generators:
            raise UnknownNameError("generator", name, base.config.generators)
    task = resolve_task(detector, detector=described)
    with task.open() as file:
        rows = _draw_shots(file, settings)
        shots = file.load(rows)
        reference = _reference(file, rows, settings)
    before = zero_shot(base, task.detector, scale=_convention_scale(shots))
    model, runs = adapted_model(before, shots, settings)
    metrics: dict[str, Any] = {
        "base": {"name": base.config.name, "hash": base.hash},
        "detector": task.detector.name,
        "shots": {
            "file": Path(task.path).name,
            "group": task.group,
            "number": len(rows),
            "rows": rows.tolist(),
            "hash": hashlib.sha256(np.sort(model.shots).tobytes()).hexdigest(),
            "seen_in_pretraining": int(np.isin(model.shots, base.seen).sum()),
        },
        "generators": runs,
    }
    with atomic_folder(out, force=force) as folder:
        if reference is not None:
            metrics["fidelity"] = compare_models(
                before,
                model,
                reference,
                settings.compared_showers,
                folder / "profiles.png",
                seed=settings.seed,
                device=settings.device,
                autocast=settings.autocast,
            )
        metrics["seconds"] = {"total": time.perf_counter() - started}
        metrics["settings"] = settings.model_dump(mode="json")
        metrics["command"] = command
        save_model(folder, model, metrics["settings"], metacalo.__version__, command)
        save_json(folder / "metrics.json", metrics)
    return AdaptResult(model, metrics, Path(out))


def adapted_model(
    before: ShowerModel, shots: Showers, settings: AdaptSettings
) -> tuple[ShowerModel, dict[str, dict[str, Any]]]:
    """Normaliser and generators of `before` fitted to `shots`, or a library of them; with the record of each run."""
    if settings.generator == "frozen":
        return _with_library(before, shots)
    normaliser = before.base.preprocessing.fit(shots, prior=before.normaliser)
    pool = ShowerPool(shots, normaliser, before.detector)
    generators = {name: before.base.generator(name) for name in settings.generators}
    with bars() as add:
        records = side_by_side(
            [
                partial(adapt_generator, generator, pool, settings, bar=add(f"adapt {name}", settings.steps))
                for name, generator in generators.items()
            ],
            settings.device,
        )
    runs = dict(zip(generators, records, strict=True))
    return ShowerModel(before.base, before.detector, normaliser, generators, shots.hashes()), runs


def _with_library(before: ShowerModel, shots: Showers) -> tuple[ShowerModel, dict[str, dict[str, Any]]]:
    started = time.perf_counter()
    library = FrozenLibrary.from_shots(shots)
    model = replace(before, generators={}, shots=shots.hashes(), libraries={"frozen": library})
    record = {"showers": len(library), "threshold_MeV": library.threshold}
    return model, {"frozen": {"seconds": time.perf_counter() - started, **record}}


def adapt_generator(
    generator: ShowerGenerator,
    pool: ShowerPool,
    settings: AdaptSettings,
    parameters: Mapping[str, nn.Parameter] | None = None,
    bar: Track | None = None,
) -> dict[str, Any]:
    """Moves the adaptable parameters to the showers of `pool`, in place, and returns the record of the run.

    Part of the shots is held back; the parameters with the least loss on it are kept, those of the base included.

    Args:
        generator: what is adapted.
        pool: the shots.
        settings: see `AdaptSettings`.
        parameters: those to move instead, for example all of `generator.trainable()`.
        bar: shows the losses.

    Raises:
        MetacaloError: a frozen tensor changed.
    """
    started = time.perf_counter()
    hash_before = tensor_hash(generator.frozen())
    generator.to(settings.device)
    adaptable = generator.adaptable() if parameters is None else parameters
    for name, parameter in generator.named_parameters():
        parameter.requires_grad_(name in adaptable)
    draw = torch.Generator().manual_seed(settings.seed)
    order = torch.randperm(len(pool), generator=draw)
    n_held = min(len(pool) - 1, max(1, round(settings.held_back * len(pool))))
    held, kept = order[:n_held], order[n_held:]
    validation = _validation_batches(pool, held, settings)
    optimizer = torch.optim.AdamW(adaptable.values(), lr=settings.learning_rate, weight_decay=0.0)
    best_loss = first_loss = _validate(generator, validation, settings)
    best = {name: parameter.detach().clone() for name, parameter in adaptable.items()}
    best_step, step, worse = 0, 0, 0
    while step < settings.steps and worse < settings.patience:
        generator.train()
        rows = kept[torch.randint(len(kept), (settings.batch,), generator=draw)]
        batch = pool.batch(rows, draw).to(settings.device)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / 10) * (1 - 0.9 * step / settings.steps)
        with bf16(settings.device, settings.autocast):
            loss = generator.loss(batch, draw)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        step += 1
        if step % settings.check_every == 0 or step == settings.steps:
            current = _validate(generator, validation, settings)
            worse = 0 if current < best_loss else worse + 1
            if current < best_loss:
                best_loss, best_step = current, step
                best = {name: parameter.detach().clone() for name, parameter in adaptable.items()}
        if bar is not None:
            bar.advance(1, loss=float(loss.detach()), held_back=best_loss)
    with torch.no_grad():
        for name, parameter in adaptable.items():
            parameter.copy_(best[name])
    generator.eval()
    if tensor_hash(generator.frozen()) != hash_before:
        raise MetacaloError(f"the frozen part of generator '{generator.name}' changed; please report this defect")
    total = sum(parameter.numel() for parameter in generator.parameters())
    return {
        "seconds": time.perf_counter() - started,
        "steps": step,
        "best_step": best_step,
        "held_back_loss": {"before": first_loss, "after": best_loss},
        "parameters": {"trainable": sum(p.numel() for p in adaptable.values()), "total": total},
        "frozen_hash": hash_before,
    }


def _validation_batches(pool: ShowerPool, held: torch.Tensor, settings: AdaptSettings) -> list[Batch]:
    noise = torch.Generator().manual_seed(settings.seed + 1)
    parts = torch.split(held, 2 * settings.batch)
    return [pool.batch(part, noise, reflect=False).to(settings.device) for part in parts]


@torch.no_grad()
def _validate(generator: ShowerGenerator, batches: list[Batch], settings: AdaptSettings) -> float:
    """Mean loss over the held-back shots with the same noise every time, so that two checks can be compared."""
    generator.eval()
    noise = torch.Generator().manual_seed(settings.seed + 2)
    repeats = 2
    with bf16(settings.device, settings.autocast):
        weighted = [float(generator.loss(b, noise)) * len(b) for _ in range(repeats) for b in batches]
    return sum(weighted) / (repeats * sum(len(batch) for batch in batches))


def _draw_shots(file: ShowerFile, settings: AdaptSettings) -> np.ndarray:
    if len(file) < settings.shots:
        raise ShowerFileError(
            f"{file.path}: holds {len(file)} showers, --shots {settings.shots} wants more; ask for at most {len(file)}"
        )
    rng = np.random.default_rng(settings.seed)
    return np.sort(rng.choice(len(file), settings.shots, replace=False))


def _reference(file: ShowerFile, shots: np.ndarray, settings: AdaptSettings) -> Showers | None:
    """Geant4 showers to compare with: those that are no shots, or the shots where the file has no others."""
    if settings.compared_showers < 20:
        return None
    others = np.setdiff1d(np.arange(len(file)), shots)
    pool = others if len(others) >= 20 else shots
    rng = np.random.default_rng(settings.seed + 1)
    return file.load(np.sort(rng.choice(pool, min(len(pool), 2 * settings.compared_showers), replace=False)))


def _convention_scale(shots: Showers) -> float:
    """1 where deposits were divided by the sampling fraction, else their mean part of the incident energy."""
    response = float(np.mean(shots.showers.sum((1, 2, 3), dtype=np.float64) / shots.energy))
    return 1.0 if response > 0.5 else response
