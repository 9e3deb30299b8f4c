"""Golden figures: what each shipped base makes of 100 incident energies of 10 GeV, for both generators at zero shots.

    python -m tests.golden

writes them anew to `tests/golden.json`, after a change of behaviour that is wanted.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from metacalo.evaluate.observables import observables
from metacalo.model_folders.adapted import ShowerModel, load_model
from metacalo.showers import data_folder, resolve_task

__all__ = ["FILE", "GENERATORS", "OBSERVABLES", "N", "bases", "figures", "shipped"]

FILE = Path(__file__).with_name("golden.json")
N = 100
GENERATORS = ("ar", "diffusion")
OBSERVABLES = ("response", "longitudinal_mean", "longitudinal_width", "lateral_mean", "occupancy", "max_fraction")


def bases() -> list[str]:
    """Names of the bases that ship."""
    return sorted(path.parent.name for path in data_folder("pretrained").glob("*/config.json"))


def shipped(name: str) -> ShowerModel:
    """The base at zero shots, for PbLAr."""
    return load_model(data_folder("pretrained") / name, detector=resolve_task("pblar").detector)


def figures(model: ShowerModel, generator: str, *, seed: int = 1) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each observable, over 100 showers of 10 GeV at 90 degrees."""
    energy, theta = np.full(N, 1e4, np.float32), np.full(N, np.pi / 2, np.float32)
    parts = model.generate(generator, energy, theta, np.zeros(N, np.float32), seed=seed, batch_size=N)
    seen = observables(np.concatenate([part.showers for part in parts]), energy)
    return {
        name: {"mean": float(getattr(seen, name).mean()), "width": float(getattr(seen, name).std(ddof=1))}
        for name in OBSERVABLES
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {name: {each: figures(shipped(name), each) for each in GENERATORS} for name in bases()}
    FILE.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
