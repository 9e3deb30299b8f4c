"""Measures a base on the showers it never saw and writes its CARD.md.

    python -m benchmarks.card --base base --fidelity out/fid/table.json --adaptation out/adaptation/adaptation.json

The tables are those of `benchmarks.fidelity` (run it with all tasks; of further runs, such as one with other seeds or
beside another base, the card has the main table) and of `benchmarks.adaptation`. Without the first, one is made here:
the base at zero shots (normaliser predicted from the detector's descriptors), against the showers of
each task that were kept out of pretraining.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.adaptation import generated
from benchmarks.fidelity_table import markdown
from metacalo.evaluate import EvaluateSettings, compare
from metacalo.model_folders.adapted import zero_shot
from metacalo.model_folders.base import Base, resolve_base
from metacalo.showers.tasks import discover_tasks
from metacalo.storage.checkpoint import atomic_file, load_json

TASKS = ("siw", "scipb", "pbwo4", "pblar")
LARGEST = 300  # showers generated for each task and generator
_MAIN = ("### Distances and classifiers", "### Against the frozen library")


def zero_shot_rows(base: Base, folder: str | None) -> list[str]:
    """Markdown rows: task, generator, unseen showers, W1, FPD, response."""
    tasks = discover_tasks(*([folder] if folder else []))
    rows = []
    for name in TASKS:
        task = tasks[name]
        with task.open() as file:
            unseen = np.flatnonzero(~np.isin(file.hashes(), base.seen))
            reference = file.load(unseen[: 2 * LARGEST])
        if len(reference) < 40:
            continue
        conditions = reference[np.arange(min(len(reference), LARGEST))]
        model = zero_shot(base, task.detector)
        told = "in training" if name in base.config.trained_on else "never seen"
        for generator in model.generators:
            sample, milliseconds = generated(model, generator, conditions)
            figures = compare(sample, reference, EvaluateSettings(classifiers=False))
            rows.append(_row(f"{name} ({told})", generator, figures, milliseconds, len(reference)))
            Console().print(rows[-1])
    return rows


def _row(task: str, generator: str, figures: dict[str, Any], milliseconds: float, n: int) -> str:
    w1, distance, response = figures["mean_w1"], figures["fpd"], figures["response"]
    ours, theirs = response["generated"], response["reference"]
    return (
        f"| {task} | {generator} | {n} | {w1['value']:.3f} ({w1['floor']:.3f}) | {distance['value']:.2f} "
        f"({distance['floor']:.2f}) | {ours['mean']:.4f} ({theirs['mean']:.4f}) | {ours['width']:.4f} "
        f"({theirs['width']:.4f}) | {milliseconds:.1f} |"
    )


def adaptation_rows(result: dict[str, Any]) -> list[str]:
    """Markdown rows of what `benchmarks.adaptation` measured."""
    rows = []
    for label, row in result.items():
        if label == "main job":
            continue
        cells = [_valued(row[key]) for key in ("mean_w1", "fpd", "low_level_auc", "high_level_auc")]
        response = row["response"]["generated"]
        rows.append(
            f"| {label} | " + " | ".join(cells) + f" | {response['mean']:.4f} | {response['width']:.4f} "
            f"| {row['ms']:.1f} |"
        )
    return rows


def _valued(entry: dict[str, float] | None) -> str:
    return "-" if entry is None else f"{entry['value']:.3f} ({entry['floor']:.3f})"


def fidelity_lines(base: Base, paths: Sequence[Path]) -> list[str]:
    """All tables of the first file of `benchmarks.fidelity`, the main ones of the others."""
    first, *others = [_tables(base, path) for path in paths]
    return first + [line for lines in others for line in ("", "## Fidelity, continued", *_main_sections(lines[1:]))]


def _main_sections(lines: Sequence[str]) -> list[str]:
    """The sections that `_MAIN` names, and what stands before all sections."""
    kept, keep = [], True
    for line in lines:
        if line.startswith("### "):
            keep = line.startswith(_MAIN)
        if keep:
            kept.append(line)
    while not kept[-1]:
        kept.pop()
    return kept


def _tables(base: Base, path: Path) -> list[str]:
    """The tables of a file, if they are of these weights."""
    result = load_json(path)
    first = next(iter(result["bases"].values()))
    if first["hash"] != base.hash:
        raise SystemExit(
            f"{path}: holds no figures of '{base.config.name}' with hash {base.hash[:12]}; measure it anew"
        )
    return markdown(result, level=2)


def zero_shot_lines(base: Base, folder: str | None) -> list[str]:
    """The table at zero shots, measured here."""
    return [
        "## Zero shots, showers kept out of pretraining",
        "",
        f"`python -m benchmarks.card --base {base.config.name}`. In brackets: Geant4 against itself with as many "
        "showers, or Geant4's own value.",
        "",
        "| task | generator | Geant4 showers | mean W1 | FPD | E_total/E_inc | its width | ms/shower |",
        "|---|---|---|---|---|---|---|---|",
        *zero_shot_rows(base, folder),
    ]


def card(base: Base, tables: list[str], adaptation: dict[str, Any] | None) -> str:
    """The text of CARD.md: what the base is, lines of `tables`, and the table of `benchmarks.adaptation`."""
    config, training = base.config, load_json(base.path / "training.json")
    settings = config.pretrain
    total = sum(config.trained_on.values())
    named = [f"{name} {config.trained_on[name]:,}" for name in TASKS if name in config.trained_on]
    family = {name: n for name, n in config.trained_on.items() if name.startswith("family/")}
    losses = {stage: record.get("losses") for stage, record in training.items()}
    told = [f"{stage} {values[-1]:.4f}" for stage, values in losses.items() if values]
    size = sum(file.stat().st_size for file in base.path.glob("*.safetensors")) / 1e6
    lines = [
        f"# {config.name}",
        "",
        f"Meta-trained base of metacalo {config.version}: tokenizer (VQ-VAE), autoregressive prior and diffusion",
        f"transformer for showers on a {' x '.join(map(str, config.grid))} mesh, 1 to 100 GeV. "
        f"{size:.1f} MB of weights.",
        "",
        f"- **Data**: {total:,} Geant4 showers: {', '.join(named)}; {len(family)} detectors of the family with "
        f"{sum(family.values()):,}. One shower in {settings['reserve_one_in']} was kept out.",
        f"- **Held out**: {', '.join(config.holdout) or 'nothing'}"
        + (", with every detector of the same pair of materials." if config.holdout else "."),
        f"- **Made by**: `{config.command}` (seed {settings['seed']}); recipe `pretrained/{config.name}.toml`. "
        "`full-tasks` holds the whole files of which `tasks/` ships a part.",
        f"- **Outer loop**: {settings['meta']['algorithm']} over the last {1 - settings['meta']['start']:.0%} of the "
        f"steps, {settings['meta']['inner_steps']} inner steps, after mixed batches.",
        f"- **Last training losses**: {', '.join(told)}.",
        f"- **Hash**: `{base.hash}`",
        "",
        *tables,
    ]
    if adaptation is not None:
        job = adaptation["main job"]
        lines += [
            "",
            "## Adapted to held-out PbLAr from 400 shots",
            "",
            f"`python -m benchmarks.adaptation --base {config.name}`. The whole job took {job['seconds']:.1f} s and "
            f"{job['GiB']:.2f} GiB on 2 cores. In brackets the Geant4 floor.",
            "",
            "| | mean W1 | FPD | AUC voxels | AUC observables | E_total/E_inc | its width | ms/shower |",
            "|---|---|---|---|---|---|---|---|",
            *adaptation_rows(adaptation),
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parses, measures, and writes CARD.md into the base's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="base")
    parser.add_argument("--tasks", default=None, help="folder of the tasks; by default those that ship")
    parser.add_argument("--fidelity", type=Path, nargs="+", help="table.json of benchmarks.fidelity, one or more")
    parser.add_argument("--adaptation", type=Path, default=None, help="adaptation.json of benchmarks.adaptation")
    arguments = parser.parse_args()
    base = resolve_base(arguments.base)
    adaptation = load_json(arguments.adaptation) if arguments.adaptation else None
    fidelity = arguments.fidelity
    tables = zero_shot_lines(base, arguments.tasks) if fidelity is None else fidelity_lines(base, fidelity)
    text = card(base, tables, adaptation)
    with atomic_file(base.path / "CARD.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    Console().print(f"{base.path / 'CARD.md'} written")


if __name__ == "__main__":
    main()
