"""Model cards: what is known of the model that made a file of showers."""

from __future__ import annotations

from pathlib import Path

from metacalo.detectors.condition_range import range_of_attributes
from metacalo.errors import MetacaloError
from metacalo.model_folders.base import Base, resolve_base
from metacalo.showers.shower_file import open_showers
from metacalo.showers.tasks import shower_path
from metacalo.typing import PathLike

__all__ = ["card_of"]

_LABELS = {
    "generator": "generator",
    "model": "model",
    "base": "base",
    "seed": "seed",
}  # attributes that generate writes


def card_of(path: PathLike) -> str:
    """Markdown on the model that made a shower file, from the file's attributes; empty where they say nothing.

    The card of the base follows where a base of that name and hash ships with metacalo. No file is looked for at
    a place that the attributes name: they come with the showers, from whoever made these.
    """
    with open_showers(shower_path(path)) as file:
        attributes = file.attributes
    lines = [f"- {label}: {attributes[key]}" for key, label in _LABELS.items() if key in attributes]
    if seen := range_of_attributes(attributes):
        lines.append(f"- energies and angles that the model has seen: {seen}")
    base = _shipped(str(attributes.get("base", "")), str(attributes.get("base_hash", "")))
    card = Path(base.path, "CARD.md") if base else None
    content = card.read_text(encoding="utf-8") if card and card.is_file() else ""
    return "\n".join(lines) + (f"\n\n{content}" if content else "\n" if lines else "")


def _shipped(name: str, content_hash: str) -> Base | None:
    if not name or Path(name).name != name or Path(name).is_dir():
        return None
    try:
        base = resolve_base(name)
    except MetacaloError:
        return None
    return base if base.hash == content_hash else None
