"""Configurations that can be pretrained by name: published ones, to be compared with metacalo's own, and a tiny one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from metacalo.errors import UnknownNameError
from metacalo.generators.diffusion import CALODIT
from metacalo.pretraining.settings import PretrainSettings
from metacalo.typing import PathLike

__all__ = ["PRESETS", "resolve_recipe"]

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "calodit": {
            "generators": ("diffusion",),
            "preprocessing": "log",
            "diffusion": CALODIT.model_dump(),
            "meta": {"start": 1.0},
        },
        "tiny": {
            "most_tasks": 4,
            "capacity": 200,
            "tokenizer": {"width": 24, "blocks": 1, "quantizer": {"size": 32, "depth": 2, "code_width": 8}},
            "prior": {"width": 24, "blocks": 1, "rank": 2, "embedding": 4, "bins": 32},
            "diffusion": {"dit": {"width": 24, "blocks": 1, "rank": 2, "embedding": 4}},
            "train_tokenizer": {"steps": 100, "batch": 16, "warmup": 20},
            "train_ar": {"steps": 100, "batch": 16, "warmup": 20},
            "train_diffusion": {"steps": 100, "batch": 16, "warmup": 20},
            "meta": {"start": 0.8, "support": 4, "query": 4},
        },
    }
)
"""Name to the settings that differ from the default.

calodit: the diffusion transformer of Par04 (`generators.diffusion.CALODIT`) with its own preprocessing
(`showers.plain`), pretrained on mixed batches of all detectors, as CaloDiT-2 is (arXiv:2509.07700). It has metacalo's
condition vector in the place of a label per detector, and no episodes.

tiny: all stages on small networks and the first four detectors, in a minute or two on one core. It shows that a
machine, a queue or several processes work, and is of no use otherwise.
"""


def resolve_recipe(preset: str | None, path: PathLike | None = None, **overrides: Any) -> PretrainSettings:
    """Settings of pretraining: those of a preset, those of a TOML file over them, `overrides` over both.

    Tables of the file are laid over the preset's key by key; overrides that are None do not count.

    Raises:
        UnknownNameError: there is no such preset.
        ConfigError: the file cannot be read, or a value is wrong.

    Example:
        >>> resolve_recipe("calodit", seed=3).diffusion.steps
        400
    """
    if preset is not None and preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    return PretrainSettings.resolve(path, onto={} if preset is None else PRESETS[preset], **overrides)
