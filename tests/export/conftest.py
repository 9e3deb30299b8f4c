from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from metacalo.export import ExportSettings, export
from metacalo.export.graph import ShowerGraph
from metacalo.model_folders.adapted import ShowerModel, load_model
from metacalo.showers import resolve_task

BASE = "base-no-pblar"
SHORT = {"generator": "diffusion", "sampler": "euler", "steps": 1, "opset": 20, "seed": 5}
"""Settings of the smallest file."""


def zero_shot_model() -> ShowerModel:
    return load_model(BASE, detector=resolve_task("pblar").detector)


@pytest.fixture(scope="session")
def model() -> ShowerModel:
    """The shipped base at zero shots of PbLAr."""
    return zero_shot_model()


@pytest.fixture(scope="session")
def graphs() -> dict[str, ShowerGraph]:
    """Both of its generators as PyTorch modules."""
    return {name: ShowerGraph(zero_shot_model(), name) for name in ("ar", "diffusion")}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A file by its settings, written once."""
    folder, known = tmp_path_factory.mktemp("exported"), {}

    def file(**settings: object) -> Path:
        key = tuple(sorted(settings.items()))
        if key not in known:
            path = folder / f"{len(known)}.model"
            detector = resolve_task("pblar").detector
            known[key] = export(BASE, path, ExportSettings(**settings), detector=detector)
        return known[key]

    return file


def conditions(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Energies in GeV, 1 to 100, theta and phi."""
    generator = torch.Generator().manual_seed(seed)
    energy = 10 ** (2 * torch.rand(n, generator=generator))
    return energy, 1 + 0.5 * torch.rand(n, generator=generator), 6 * torch.rand(n, generator=generator) - 3
