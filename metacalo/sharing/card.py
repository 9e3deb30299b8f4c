"""The card of a model that is shared: what hubs read in its first lines, then what a physicist wants to know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from metacalo.errors import MALFORMED, ModelFolderError
from metacalo.model_folders.adapted import AdaptedConfig
from metacalo.model_folders.base import BaseConfig, checked_kind
from metacalo.runtime.wording import counted
from metacalo.sharing.card_figures import Figure, of_card, of_metrics
from metacalo.sharing.validation import ValidatedFolder
from metacalo.storage.checkpoint import load_json

__all__ = ["CARD", "readme", "without_header"]

CARD: Final = "CARD.md"
"""Name of the card in a model folder."""

_TAGS: Final = ("metacalo", "calorimeter", "geant4", "fast-simulation", "high-energy-physics")
_NONE: Final = "No figures were measured."


def readme(folder: Path, found: ValidatedFolder, *, repository: str, source: str, license: str) -> str:  # noqa: A002
    """The README of a repository: its header in YAML, with all figures that were measured, and the card.

    Args:
        folder: of a base or an adapted model; its CARD.md is the card, or else one is made.
        found: what it was found to be.
        repository: where it goes, such as `group/pblar`.
        source: where its files can be looked at, without the file.
        license: by its name on the hub.

    Raises:
        ModelFolderError: a file on the model cannot be read.
    """
    text = _written(folder / CARD)
    if found.kind == "base":
        config = BaseConfig.build(checked_kind(folder, "base"), source=str(folder / "config.json"))
        text = text or _joined(_base_lines(config))
        # a card that names other weights, or none, has no figures of these
        figures = of_card(text, config.generators) if found.base_hash in text else []
    else:
        metrics = load_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
        try:
            text = text or _joined(_adapted_lines(folder, metrics))
            figures = of_metrics(metrics)
        except MALFORMED as error:
            raise ModelFolderError(f"{folder}/metrics.json: not what adapt writes ({error!r}); adapt again") from None
    return _header(repository, source, license, (*_TAGS, found.kind), figures) + text


def without_header(text: str) -> str:
    """A README without the lines for the hub."""
    return re.sub(r"\A---\n.*?\n---\n\n?", "", text, count=1, flags=re.DOTALL)


def _written(path: Path) -> str:
    """The card of a folder, empty where it has none."""
    if not path.is_file():
        return ""
    try:
        return without_header(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ModelFolderError(f"{path}: is no UTF-8 text ({error}); save it as one") from None


def _header(repository: str, source: str, license: str, tags: tuple[str, ...], figures: list[Figure]) -> str:  # noqa: A002
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="other",
            task_name="calorimeter shower generation",
            dataset_type="geant4",
            dataset_name=f"Geant4 showers, {_data(figure)}",
            dataset_config=_data(figure),  # without it the library takes all data for the same
            metric_type=figure.metric,
            metric_name=f"{figure.name}, {figure.generator}",
            metric_value=figure.value,
            metric_config=figure.generator,
            source_name=figure.file,
            source_url=f"{source}/{figure.file}",
        )
        for figure in figures
    ]
    card = ModelCardData(
        library_name="metacalo",
        license=license,
        tags=list(tags),
        model_name=repository.split("/")[-1] if results else None,
        eval_results=results or None,
    )
    return f"---\n{card.to_yaml(line_break=chr(10)).rstrip()}\n---\n\n"


def _data(figure: Figure) -> str:
    return figure.data if figure.shots is None else f"{figure.data}, {counted(figure.shots, 'shot')}"


def _joined(lines: Iterator[str]) -> str:
    return "\n".join(lines) + "\n"


def _base_lines(config: BaseConfig) -> Iterator[str]:
    """The card of a base that has none: what its config.json says."""
    yield f"# {config.name}"
    yield ""
    yield f"Meta-trained base of metacalo {config.version} for showers on a {_mesh(config.grid)} mesh."
    yield ""
    yield f"- **Data**: {sum(config.trained_on.values()):,} Geant4 showers of {len(config.trained_on)} tasks."
    yield f"- **Energies and angles of the data**: {config.trained_range}."
    yield f"- **Held out**: {', '.join(config.holdout) or 'nothing'}."
    yield f"- **Generators**: {', '.join(config.generators)}."
    yield from _made_by(config.command)
    yield ""
    yield _NONE


def _adapted_lines(folder: Path, metrics: dict[str, Any]) -> Iterator[str]:
    """The card of an adapted model: what its config.json and metrics.json say."""
    config = AdaptedConfig.build(checked_kind(folder, "adapted"), source=str(folder / "config.json"))
    name = metrics.get("detector", "a detector")
    yield f"# {name}"
    yield ""
    yield f"Generator of calorimeter showers of {name}, adapted by metacalo {config.version}, on a "
    yield f"{_mesh(config.grid)} mesh."
    yield ""
    yield f"- **Base**: `{config.base}` with hash `{config.base_hash}`; it is needed beside this model."
    if "shots" in metrics:
        yield f"- **Shots**: {metrics['shots']['number']:,} Geant4 showers."
    if config.shots_range:
        yield f"- **Energies and angles of the shots**: {config.shots_range}; the model is not tested beyond them."
    yield f"- **Generators**: {', '.join((*config.generators, *config.libraries))}; what moved: {config.method}."
    yield from _made_by(config.command)
    yield ""
    fidelity = metrics.get("fidelity")
    if not fidelity:
        yield _NONE
        return
    yield "## Fidelity"
    yield ""
    of_geant4 = "unseen showers of Geant4" if fidelity["unseen"] else "of the shots, for there are no other showers"
    yield f"{fidelity['showers']:,} showers of each, against as many {of_geant4}, by"
    yield "`metacalo adapt` (metrics.json). In brackets Geant4 against itself."
    yield ""
    far = [label for label in fidelity.get("far_from_geant4", ()) if not label.startswith("before (")]
    if far:
        yield f"**Do not use {', '.join(far)}: showers are far from Geant4's.**"
        yield ""
    yield "| | mean W1 | E_total/E_inc | its width |"
    yield "|---|---|---|---|"
    for label, response in fidelity["response"].items():
        w1 = _valued(fidelity[label]["mean_w1"]) if label in fidelity else "-"
        yield f"| {label} | {w1} | {response['mean']:.4f} | {response['width']:.4f} |"
    if (folder / "profiles.png").is_file():
        yield ""
        yield "![profiles](profiles.png)"


def _made_by(command: str) -> Iterator[str]:
    if command:
        yield f"- **Made by**: `{command}`"


def _mesh(grid: tuple[int, int, int]) -> str:
    return " x ".join(map(str, grid))


def _valued(entry: dict[str, float]) -> str:
    return f"{entry['value']:.3f} ({entry['floor']:.3f})"
