"""The main job measured: wall time, memory, generation time, and fidelity against zero-shot and from-scratch.

    python -m benchmarks.adaptation --base base-no-pblar --task pblar --shots 400 --out out/adaptation

Reference showers are never shots, nor seen in pretraining. From scratch means the same network with fresh weights (the
frozen tokenizer is given to it), all parameters trained on the same shots with the same early stopping for ten times
the wall time that adaptation took. It is shown with two preprocessings, both fitted on the shots alone: the usual one,
one transform for all layers, one for all rings and one for all cells whatever their place and the shower's energy
("plain"), and metacalo's tables for each layer and ring ("tables"), which already make every single-cell spectrum
nearly right without any network. Neither has the hyperprior, correlations or the spectrum of cells, which come with a
base.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from metacalo.adapt import AdaptSettings
from metacalo.adaptation.adapt_generator import adapt_generator
from metacalo.evaluate import EvaluateSettings, compare
from metacalo.model_folders.adapted import ShowerModel, load_model, zero_shot
from metacalo.model_folders.base import resolve_base
from metacalo.normaliser.energy_dependence import EnergyDependence
from metacalo.normaliser.fitting import fit_normaliser
from metacalo.normaliser.marginals import ConditionalMarginals
from metacalo.normaliser.normaliser import STAGES, Normaliser
from metacalo.normaliser.response import convention_scale, fit_response
from metacalo.normaliser.tabulate import fit_marginals
from metacalo.runtime.threads import side_by_side
from metacalo.showers.shower_file import Showers
from metacalo.showers.tasks import Task, resolve_task
from metacalo.storage.checkpoint import save_json
from metacalo.training_data.shower_pool import ShowerPool

GENERATED = 1000
POOLED = 200_000  # values drawn for the plain transforms


def main_job(task: Task, base: str, shots: int, out: Path) -> dict[str, float]:
    """`metacalo adapt` in a fresh process: wall seconds and peak resident memory in GiB."""
    command = [sys.executable, "-m", "metacalo.cli", "adapt", "--detector", str(task.path), "--base", base]
    command += ["--shots", str(shots), "--generator", "both", "--out", str(out), "--force", "--quiet"]
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return {"seconds": time.perf_counter() - started, "GiB": usage.ru_maxrss / 2**20}


def plain_normaliser(tables: Normaliser, shots: Showers) -> Normaliser:
    """`tables` of `shots` with one transform for each kind of value: place and energy are unknown to it.

    Layers, rings, hit counts and cells still follow one from the other, so that energies are conserved. A table of
    quantiles contains logarithm, shift and scale as a special case.
    """
    at_one_energy, across = np.full(len(shots), 1e4), np.full(len(shots), np.pi / 2)
    response = shots.showers.sum((1, 2, 3), dtype=np.float64) / shots.energy / tables.scale
    parts: dict[str, Any] = {stage: _pooled(getattr(tables, stage)) for stage in STAGES}
    total = fit_response(response, at_one_energy, across)
    return replace(
        tables, total=total, energy_dependence=EnergyDependence.none(tables.energy_dependence.mean.shape[1]), **parts
    )


def _pooled(tables: ConditionalMarginals) -> ConditionalMarginals:
    """The same table for all sites and contexts: that of values drawn from all, by the number behind each."""
    noise = torch.Generator().manual_seed(0)
    n_knots, every_row = len(tables.knots), replace(tables, planes=torch.zeros(1))
    row = torch.multinomial(tables.weight.flatten(), POOLED, replacement=True, generator=noise)
    site, knot = row // n_knots, row % n_knots
    latent = torch.randn(POOLED, 1, 1, generator=noise)
    value = every_row.inverse(latent, tables.knots[knot][:, None], site[:, None]).flatten().numpy()
    one = fit_marginals([(value, np.zeros(POOLED))], np.array([0.0, 1.0]))
    columns = one.columns()[:, :1].expand_as(tables.columns())
    return ConditionalMarginals.from_columns(tables.knots, columns, tables.weight, planes=tables.planes)


def scratch(
    model: ShowerModel, shots: Showers, name: str, normaliser: Normaliser, seconds: float, settings: AdaptSettings
) -> ShowerModel:
    """The same network from fresh weights on the same shots, for `seconds` of wall time."""
    torch.manual_seed(settings.seed)
    pool = ShowerPool(shots, normaliser, model.detector)

    patient = settings.model_copy(update={"method": "full", "patience": 10**6, "steps": 20, "learning_rate": 1e-3})
    per_step = adapt_generator(model.base.fresh(name), pool, patient)["seconds"] / 20
    generator = model.base.fresh(name)
    steps = max(20, round(seconds / per_step))
    record = adapt_generator(generator, pool, patient.model_copy(update={"steps": steps}))
    Console().print(
        f"{name} from scratch: {record['steps']} steps in {record['seconds']:.0f} s, best {record['best_step']}"
    )
    return ShowerModel(model.base, model.detector, normaliser, {name: generator}, model.shots, method="full")


def generated(model: ShowerModel, name: str, conditions: Showers) -> tuple[Showers, float]:
    """One shower for each condition, and milliseconds a shower at batch 100."""
    started = time.perf_counter()
    parts = list(model.generate(name, conditions.energy, conditions.theta, conditions.phi, seed=7, batch_size=100))
    milliseconds = 1e3 * (time.perf_counter() - started) / len(conditions)
    showers = np.concatenate([part.showers for part in parts])
    return Showers(showers, conditions.energy, conditions.theta, conditions.phi, model.detector), milliseconds


def fidelity(model: ShowerModel, name: str, reference: Showers, *, classifiers: bool) -> dict[str, Any]:
    """Distances of `GENERATED` showers to the reference, and the time they took."""
    sample, milliseconds = generated(model, name, reference[np.arange(GENERATED)])
    figures = compare(sample, reference, EvaluateSettings(classifiers=classifiers, rotations=2))
    wanted = ("mean_w1", "fpd", "low_level_auc", "high_level_auc", "response")
    return {**{key: figures[key] for key in wanted}, "ms": milliseconds}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures; see the module."""
    out, console = Path(arguments.out), Console()
    task = resolve_task(arguments.task)
    result: dict[str, Any] = {"main job": main_job(task, arguments.base, arguments.shots, out / "adapted")}
    console.print(f"main job: {result['main job']['seconds']:.1f} s, {result['main job']['GiB']:.2f} GiB")
    adapted = load_model(out / "adapted")
    metrics = json.loads((out / "adapted" / "metrics.json").read_text())
    with task.open() as file:
        shots = file.load(np.array(metrics["shots"]["rows"]))
        unseen = np.flatnonzero(~np.isin(file.hashes(), np.concatenate([adapted.shots, adapted.base.seen])))
        reference = file.load(np.random.default_rng(3).permutation(unseen)[: arguments.reference])
    scale = convention_scale(shots.showers, shots.energy)
    before = zero_shot(resolve_base(arguments.base), task.detector, scale=scale)
    settings = AdaptSettings(base=arguments.base, shots=arguments.shots)
    tables = fit_normaliser(shots.showers, shots.energy, shots.theta)
    kinds = {"plain": plain_normaliser(tables, shots), "tables": tables}
    rivals = [(name, kind, normaliser) for name in adapted.generators for kind, normaliser in kinds.items()]
    # two at a time, each on its share of the cores, as the two generators were adapted
    calls = [
        partial(scratch, adapted, shots, name, normaliser, 10 * metrics["generators"][name]["seconds"], settings)
        for name, _, normaliser in rivals
    ]
    trained = {(n, kind): model for (n, kind, _), model in zip(rivals, side_by_side(calls, "cpu"), strict=True)}
    for name in adapted.generators:
        models = {"zero-shot": before, "adapted": adapted}
        models |= {f"from scratch ({kind})": trained[name, kind] for kind in kinds}
        for label, model in models.items():
            figures = fidelity(model, name, reference, classifiers=arguments.classifiers)
            result[f"{name}, {label}"] = figures
            console.print(f"{name}, {label}: W1 {figures['mean_w1']['value']:.4f}, FPD {figures['fpd']['value']:.2f}")
    return result


def table(result: dict[str, Any]) -> Table:
    """The figures a reader looks for."""
    job = result["main job"]
    made = Table(title=f"main job: {job['seconds']:.1f} s, {job['GiB']:.2f} GiB")
    columns = ("", "mean W1", "floor", "FPD", "floor", "AUC low", "AUC high", "response mean", "width", "ms/shower")
    for column in columns:
        made.add_column(column, justify="right" if column else "left")

    def figure(entry: dict[str, float] | None, key: str = "value") -> str:
        return "-" if entry is None else f"{entry[key]:.3f}"

    for label, row in result.items():
        if label == "main job":
            continue
        w1, distance, response = row["mean_w1"], row["fpd"], row["response"]["generated"]
        made.add_row(
            label,
            *(figure(w1), figure(w1, "floor"), figure(distance), figure(distance, "floor")),
            *(figure(row["low_level_auc"]), figure(row["high_level_auc"])),
            *(f"{response['mean']:.4f}", f"{response['width']:.4f}", f"{row['ms']:.1f}"),
        )
    return made


def main() -> None:
    """Parses, runs, prints, and writes `adaptation.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="base-no-pblar")
    parser.add_argument("--task", default="pblar")
    parser.add_argument("--shots", type=int, default=400)
    parser.add_argument("--reference", type=int, default=2900, help="Geant4 showers to compare with, at most")
    parser.add_argument("--out", default="out/adaptation")
    parser.add_argument("--classifiers", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    result = run(arguments)
    Console(width=150).print(table(result))
    save_json(Path(arguments.out) / "adaptation.json", result)


if __name__ == "__main__":
    main()
