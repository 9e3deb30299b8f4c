"""Writes the CARD.md of a base: what it is, and how well it does.

    python -m benchmarks.card --base base --fidelity out/fid/table.json --main-job out/main-job/main-job.json

The tables are those of `benchmarks.fidelity` (run it with all tasks; of further runs, such as one with other seeds or
beside another base, the card has the main table).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.fidelity.table import markdown
from metacalo.model_folders.base import Base, resolve_base
from metacalo.storage.checkpoint import atomic_file, load_json

TASKS = ("siw", "scipb", "pbwo4", "pblar")
_MAIN = ("### Distances and classifiers", "### Against the frozen library")


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


def card(base: Base, tables: list[str], job: dict[str, Any] | None = None) -> str:
    """The text of CARD.md: what the base is, lines of `tables`, and seconds and memory of the main job."""
    config, training = base.config, load_json(base.path / "training.json")
    settings = config.pretrain
    total = sum(config.trained_on.values())
    named = [f"{name} {config.trained_on[name]:,}" for name in TASKS if name in config.trained_on]
    family = {name: n for name, n in config.trained_on.items() if name.startswith("family/")}
    losses = {stage: record.get("losses") for stage, record in training.items()}
    last = [f"{stage} {values[-1]:.4f}" for stage, values in losses.items() if values]
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
        f"- **Last training losses**: {', '.join(last)}.",
        f"- **Hash**: `{base.hash}`",
        "",
        *tables,
    ]
    if job is not None:
        lines += [
            "",
            "## The main job",
            "",
            f"`python -m benchmarks.speed main-job --base {config.name}`: "
            f"{job['seconds']:.1f} s, {job['GiB']:.2f} GiB.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parses, and writes CARD.md into the base's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="base")
    parser.add_argument("--fidelity", type=Path, nargs="+", required=True, help="table.json of benchmarks.fidelity")
    parser.add_argument("--main-job", type=Path, help="main-job.json of benchmarks.speed")
    arguments = parser.parse_args()
    base = resolve_base(arguments.base)
    job = load_json(arguments.main_job) if arguments.main_job else None
    text = card(base, fidelity_lines(base, arguments.fidelity), job)
    with atomic_file(base.path / "CARD.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    Console().print(f"{base.path / 'CARD.md'} written")


if __name__ == "__main__":
    main()
