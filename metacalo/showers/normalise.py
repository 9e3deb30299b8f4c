"""The normaliser: takes the detector, the energy and the mean shower out of the showers before any network sees them.

Energy comes before shape, in three stages, each a `ConditionalMarginals` map to standard normal latents:

    total   E_total / E_inc            given ln E_inc
    layer   E_layer / E_total          given ln E_inc
    voxel   E_voxel / E_layer          given ln E_layer, one site per (r, z) ring

so that an *untrained* generator (independent normal latents) already has every single-cell spectrum, occupancy and
layer-energy distribution right; what is left to learn are correlations. It is fitted on the shots, shrunk towards what
the detector descriptors predict (`hyperprior`), and maps back with exact zeros and the sampled total conserved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.errors import ShowerFileError
from metacalo.showers.marginals import ConditionalMarginals, dequantise, fit_marginals
from metacalo.typing import ShowerArray, ShowerTensor

__all__ = [
    "LOG_ENERGY_KNOTS",
    "LOG_LAYER_KNOTS",
    "PRIOR_SHOWERS",
    "EncodedShowers",
    "Latents",
    "Normaliser",
    "fit_normaliser",
]

LOG_ENERGY_KNOTS = np.linspace(np.log(1e3), np.log(1e5), 5)
"""Knots in ln(E_inc / MeV): 1 to 100 GeV, continued linearly outside."""
LOG_LAYER_KNOTS = np.linspace(np.log(0.1), np.log(8e3), 9)
"""Knots in ln(E_layer / MeV), 0.1 MeV to 8 GeV."""

PRIOR_SHOWERS = {"total": 10.0, "layer": 5.0, "voxel": 2.0}
"""Showers that the prior counts for in each row: found on held-out detectors at 50 to 400 shots."""

_ROUNDING = 1e-3  # the smallest cell of the sample must not fall below its own threshold on the way back
_TINY = 1e-9  # MeV: keeps the shares of empty showers and layers at zero


@dataclass(frozen=True)
class Latents:
    """Normalised showers.

    Attributes:
        total: shape (n,).
        layers: shape (n, z).
        voxels: shape (n, r, phi, z).
    """

    total: Float[Tensor, "n"]
    layers: Float[Tensor, "n z"]
    voxels: ShowerTensor

    def __len__(self) -> int:
        return len(self.total)

    def to(self, device: torch.device | str) -> Latents:
        """The same latents on another device."""
        return Latents(self.total.to(device), self.layers.to(device), self.voxels.to(device))

    def __getitem__(self, rows: Tensor | slice) -> Latents:
        return Latents(self.total[rows], self.layers[rows], self.voxels[rows])


@dataclass(frozen=True)
class EncodedShowers:
    """Normalised showers with their zeros still marked (NaN), so that every epoch can dequantise them anew.

    Attributes:
        latents: NaN where the energy is exactly zero.
        t0_total, t0_layers, t0_voxels: latents below which zeros lie; shapes (n,), (n, z), (n, r, 1, z).
    """

    latents: Latents
    t0_total: Float[Tensor, "n"]
    t0_layers: Float[Tensor, "n z"]
    t0_voxels: Float[Tensor, "n r 1 z"]

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, rows: Tensor | slice) -> EncodedShowers:
        return EncodedShowers(self.latents[rows], self.t0_total[rows], self.t0_layers[rows], self.t0_voxels[rows])

    def dequantise(self, generator: torch.Generator) -> Latents:
        """Latents with the zeros drawn at random below their thresholds."""
        return Latents(
            dequantise(self.latents.total, self.t0_total, generator),
            dequantise(self.latents.layers, self.t0_layers, generator),
            dequantise(self.latents.voxels, self.t0_voxels, generator),
        )


@dataclass(frozen=True)
class Normaliser:
    """Invertible map between showers (MeV) and `Latents`.

    Attributes:
        total, layer, voxel: the three stages.
        scale: mean E_total / E_inc of the file's convention (near 1 or near the sampling fraction); energies are
            divided by it before the layer and voxel tables, which so serve both conventions.
        threshold: smallest non-zero cell energy of the file in MeV; smaller generated ones become zero.
    """

    total: ConditionalMarginals
    layer: ConditionalMarginals
    voxel: ConditionalMarginals
    scale: float
    threshold: float

    def encode(self, showers: ShowerTensor, energy: Float[Tensor, "n"]) -> EncodedShowers:
        """Showers (MeV) of incident energy `energy` (MeV) as latents whose zeros are still to be dequantised."""
        n, n_r, n_phi, n_z = showers.shape
        layers = showers.sum((1, 2))
        total = layers.sum(1)
        x = torch.log(energy)[:, None]
        response = (total / (self.scale * energy))[:, None, None]
        t_total, t0_total = self.total.to_latent(response, x)
        fractions = layers / total.clamp_min(_TINY)[:, None]
        t_layer, t0_layer = self.layer.to_latent(fractions[..., None], x.expand(n, n_z))
        shares = showers / layers.clamp_min(_TINY)[:, None, None]
        cells = shares.permute(0, 1, 3, 2).reshape(n, n_r * n_z, n_phi)
        t_voxel, t0_voxel = self.voxel.to_latent(cells, self._voxel_context(layers, n_r))
        return EncodedShowers(
            Latents(
                t_total[:, 0, 0],
                t_layer[..., 0],
                t_voxel.reshape(n, n_r, n_z, n_phi).permute(0, 1, 3, 2).contiguous(),
            ),
            t0_total[:, 0],
            t0_layer,
            t0_voxel.reshape(n, n_r, 1, n_z),
        )

    def forward(self, showers: ShowerTensor, energy: Float[Tensor, "n"], generator: torch.Generator) -> Latents:
        """Latents of showers (MeV) of incident energy `energy` (MeV); `generator` dequantises the zeros."""
        return self.encode(showers, energy).dequantise(generator)

    def inverse(self, latents: Latents, energy: Float[Tensor, "n"]) -> ShowerTensor:
        """Showers in MeV; the sum of each is the energy that its `total` latent stands for (0 if nothing is hit)."""
        n, n_r, n_phi, n_z = latents.voxels.shape
        x = torch.log(energy)[:, None]
        total = self.total.to_energy(latents.total[:, None, None], x)[:, 0, 0] * energy * self.scale
        fractions = self.layer.to_energy(latents.layers[..., None], x.expand(n, n_z))[..., 0]
        layers = total[:, None] * fractions / fractions.sum(1, keepdim=True).clamp_min(_TINY)
        context = self._voxel_context(layers, n_r)
        t_voxel = latents.voxels.permute(0, 1, 3, 2).reshape(n, n_r * n_z, n_phi)
        shares = self.voxel.to_energy(t_voxel, context).reshape(n, n_r, n_z, n_phi)
        excess = self.voxel.excess(t_voxel, context).reshape(n, n_r, n_z, n_phi)
        shares = _with_a_hit(shares, excess)
        shares = shares / shares.sum((1, 3), keepdim=True).clamp_min(_TINY)
        showers = (shares * layers[:, None, :, None]).permute(0, 1, 3, 2)
        showers = torch.where(showers < self.threshold * (1 - _ROUNDING), torch.zeros_like(showers), showers)
        kept = showers.sum((1, 2, 3), keepdim=True)
        return showers * torch.where(kept > 0, total[:, None, None, None] / kept.clamp_min(_TINY), 0.0)

    def _voxel_context(self, layers: Float[Tensor, "n z"], n_r: int) -> Float[Tensor, "n site"]:
        log_layer = torch.log((layers / self.scale).clamp_min(1e-6))
        return log_layer.repeat(1, n_r)

    def shrunk_towards(self, prior: Normaliser) -> Normaliser:
        """The normaliser with its tables averaged with `prior`'s, each stage at its `PRIOR_SHOWERS`."""
        return Normaliser(
            self.total.shrunk_towards(prior.total, PRIOR_SHOWERS["total"]),
            self.layer.shrunk_towards(prior.layer, PRIOR_SHOWERS["layer"]),
            self.voxel.shrunk_towards(prior.voxel, PRIOR_SHOWERS["voxel"]),
            self.scale,
            self.threshold,
        )

    def to(self, device: torch.device | str) -> Normaliser:
        """The same normaliser on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return Normaliser.from_tensors(moved)

    def tensors(self) -> dict[str, Tensor]:
        """All tables and scalars by name, for a safetensors file."""
        return {
            **self.total.tensors("total"),
            **self.layer.tensors("layer"),
            **self.voxel.tensors("voxel"),
            "scalars": torch.tensor([self.scale, self.threshold], dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Normaliser:
        """Inverse of `tensors`."""
        plain = dict(tensors)
        scale, threshold = plain["scalars"].tolist()
        return cls(
            ConditionalMarginals.from_tensors(plain, "total", extrapolate=True),
            ConditionalMarginals.from_tensors(plain, "layer", extrapolate=True),
            ConditionalMarginals.from_tensors(plain, "voxel", extrapolate=False),
            scale,
            threshold,
        )


def _with_a_hit(shares: Tensor, excess: Tensor) -> Tensor:
    """Gives a layer in which no cell was hit its likeliest cell, so that its energy is not lost."""
    n, n_r, n_z, n_phi = shares.shape
    best = excess.permute(0, 2, 1, 3).reshape(n, n_z, n_r * n_phi).argmax(-1)
    one_hot = torch.nn.functional.one_hot(best, n_r * n_phi).reshape(n, n_z, n_r, n_phi).permute(0, 2, 1, 3)
    empty = (shares.sum((1, 3), keepdim=True) <= 0).to(shares)
    return shares + empty * one_hot.to(shares)


def fit_normaliser(showers: ShowerArray, energy: Float[np.ndarray, "n"]) -> Normaliser:
    """Tables fitted on showers (MeV) alone.

    Rings are pooled with those of the neighbouring layers (half weight): the lateral profile changes slowly with depth.

    Raises:
        ShowerFileError: no shower holds any energy.
    """
    n, n_r, n_phi, n_z = showers.shape
    layers = showers.sum((1, 2), dtype=np.float64)
    total = layers.sum(1)
    if not (total > 0).any():
        raise ShowerFileError("every shower given to fit the normaliser is empty; choose showers with energy deposits")
    response = total / energy
    scale = float(np.mean(response))
    log_energy = np.log(energy)[:, None]
    alone = [[(0, 1.0)]]
    layer_pool = [[(z, 1.0)] for z in range(n_z)]
    voxel_pool = [
        [(ring * n_z + other, 1.0 if other == z else 0.5) for other in (z - 1, z, z + 1) if 0 <= other < n_z]
        for ring in range(n_r)
        for z in range(n_z)
    ]
    fractions = layers / np.maximum(total, _TINY)[:, None]
    shares = showers / np.maximum(layers, _TINY)[:, None, None]
    cells = shares.transpose(0, 1, 3, 2).reshape(n, n_r * n_z, n_phi)
    context = np.tile(np.log(np.maximum(layers / scale, 1e-6)), (1, n_r))
    return Normaliser(
        fit_marginals((response / scale)[:, None, None], log_energy, LOG_ENERGY_KNOTS, alone, extrapolate=True),
        fit_marginals(
            fractions[..., None], np.repeat(log_energy, n_z, 1), LOG_ENERGY_KNOTS, layer_pool, extrapolate=True
        ),
        fit_marginals(cells, context, LOG_LAYER_KNOTS, voxel_pool),
        scale,
        float(showers[showers > 0].min()),
    )
