"""Whether what a model folder holds fits together, found out before anything of its sizes takes memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from metacalo.detectors.detector import Detector
from metacalo.errors import MALFORMED, ModelFolderError
from metacalo.normaliser.latents import Latents
from metacalo.normaliser.preprocessing import AnyNormaliser, DetectorPrior

__all__ = ["load_hashes", "predicted_normaliser", "require_alike", "require_sizes"]


def require_sizes(build: Callable[[], nn.Module], tensors: Mapping[str, Tensor], source: Path) -> None:
    """Refuses weights that are not those of a network, before it takes any memory.

    Args:
        build: makes the network.
        tensors: its state, as read.
        source: the file that they are from, beside a config.json.

    Raises:
        ModelFolderError: there can be no such network, or a tensor is missing or of another shape.
    """
    try:
        with torch.device("meta"):
            sketch = build()
    except MALFORMED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFolderError(f"{source.parent}/config.json: no network has those sizes ({reason})") from None
    for key, tensor in sketch.state_dict().items():
        found = tuple(tensors[key].shape) if key in tensors else None
        if found != tuple(tensor.shape):
            raise ModelFolderError(
                f"{source}: does not fit its config.json (tensor '{key}' is {found or 'missing'}, "
                f"{tuple(tensor.shape)} is needed); make the model again"
            )


def load_hashes(tensors: Mapping[str, Tensor], source: Path) -> np.ndarray:
    """The content hashes of showers, int64, of a file that holds them and nothing else.

    Raises:
        ModelFolderError: it does not.
    """
    hashes = tensors.get("hashes")
    if hashes is None or hashes.dtype != torch.int64 or hashes.ndim != 1:
        raise ModelFolderError(f"{source}: no tensor 'hashes' of whole numbers; make the model again")
    return np.asarray(hashes.numpy())


def predicted_normaliser(
    hyperprior: DetectorPrior, detector: Detector, grid: tuple[int, int, int], base: Path, *, scale: float = 1.0
) -> AnyNormaliser:
    """What a base says about the detector's normaliser, tried on one shower of noise.

    Args:
        hyperprior: of the base.
        detector: on a mesh of `grid` cells.
        grid: cells in r, phi and z.
        base: folder of the base.
        scale: mean E_total / E_inc of the wanted convention.

    Raises:
        ModelFolderError: the hyperprior does not fit the base's config.
    """
    described = torch.from_numpy(detector.descriptors())
    try:
        normaliser: AnyNormaliser = hyperprior.predict(described)
        noise = Latents.noise(1, grid, torch.Generator().manual_seed(0))
        shower = normaliser.inverse(noise, torch.tensor([1e4]), torch.tensor([math.pi / 2]))
        fits = tuple(shower.shape[1:]) == grid and bool(shower.isfinite().all())
        reason = None if fits else f"it makes showers of {tuple(shower.shape[1:])} cells, or no finite ones"
    except MALFORMED as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if reason is None:
        return normaliser if scale == 1 else hyperprior.predict(described, scale=scale)
    raise ModelFolderError(
        f"{base}/hyperprior.safetensors: does not fit its config.json ({reason}); make the base again"
    )


def require_alike(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises `ValueError` unless names and shapes are the same."""
    for name in sorted({*found, *wanted}):
        shapes = [tuple(each[name].shape) if name in each else None for each in (found, wanted)]
        if shapes[0] != shapes[1]:
            message = f"tensor '{name}' is {shapes[0] or 'missing'}, {shapes[1] or 'none'} was expected"
            raise ValueError(message)
