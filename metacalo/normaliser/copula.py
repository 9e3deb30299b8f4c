"""How latents depend on one another, to second order: what is left after it is for the networks to learn.

Most correlations are alike in all detectors, shifts in depth and in width, and are kept once for all as a Gaussian
copula (those of layers are not alike: `longitudinal`): common principal components (Flury 1984) whose variances depend
on the energy. The structure of a shower has one set of them; its cells have one for each Fourier mode in phi, since a
turn of the shower changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metacalo.normaliser.energy_dependence import hat_weights
from metacalo.normaliser.latents import Latents, structure_layers
from metacalo.normaliser.marginals import Interval, draw_within, held_inside
from metacalo.typing import ShowerTensor

__all__ = [
    "COMPONENT_KNOTS",
    "Components",
    "Copula",
    "fit_components",
    "fit_modes",
    "fit_structure",
]

COMPONENT_KNOTS = np.linspace(np.log(1e3), np.log(1e5), 9)
"""Knots in ln(E_inc / MeV) of the variances of the components."""

STRUCTURE_COMPONENTS = 360
CELL_COMPONENTS = 48
CELL_MODES = 4

_KINDS = ("vectors", "log_variance", "scale")
_SWEEPS = 3
_SMALLEST_VARIANCE = 0.02


@dataclass(frozen=True)
class Components:
    """Common principal components of correlated values, with the width of each value.

    White w becomes x = scale * D^-1/2 (r w + U (s - r) U^T w) with the deviations s of the components and r of all
    that is orthogonal to them; D makes the variances what `scale` says at every energy.

    Attributes:
        vectors: U, orthonormal columns, shape (d, k); k may be 0.
        log_variance: ln s^2, shape (K, k), interpolated between `COMPONENT_KNOTS` in ln(E_inc).
        scale: standard deviations of the values, shape (d,).
    """

    vectors: Float[Tensor, "d k"]
    log_variance: Float[Tensor, "K k"]
    scale: Float[Tensor, "d"]

    def inverse(self, white: Float[Tensor, "n *m d"], log_energy: Float[Tensor, "n"]) -> Float[Tensor, "n *m d"]:
        """Correlated values of white ones, of which a shower may have several rows."""
        if not self.vectors.shape[1]:
            return white * self.scale
        deviation, rest, width = _beside(white, *self._deviations(log_energy))
        return self._stretch(white, deviation, rest) * width

    def forward(self, values: Float[Tensor, "n *m d"], log_energy: Float[Tensor, "n"]) -> Float[Tensor, "n *m d"]:
        """Inverse of `inverse`."""
        if not self.vectors.shape[1]:
            return values / self.scale
        deviation, rest, width = _beside(values, *self._deviations(log_energy))
        return self._stretch(values / width, 1 / deviation, 1 / rest)

    def gibbs_resample(
        self,
        values: Float[Tensor, "n d"],
        within: Interval,
        log_energy: Float[Tensor, "n"],
        groups: Int[Tensor, "d"],
        generator: torch.Generator,
    ) -> Float[Tensor, "n d"]:
        """Draws values anew within their intervals, each given all the others.

        Gibbs sampling of a copula of which intervals are known (Hoff 2007, the extended rank likelihood): drawn without
        regard for one another, values would drown the correlations.

        Args:
            values: to start from, within the intervals.
            within: what is known of the values; those that are known exactly stay.
            log_energy: ln(E_inc / MeV).
            groups: values of one group are drawn at once; those of a group should depend little on one another.
            generator: of the draws.
        """
        deviation, rest, width = self._deviations(log_energy)
        excess = 1 / deviation**2 - 1 / rest**2
        precision = (1 / rest**2 + excess @ (self.vectors**2).T) / width**2
        spread = 1 / torch.sqrt(precision)
        free = within.lower < within.upper
        for _ in range(_SWEEPS):
            for group in range(int(groups.max()) + 1):
                at = torch.nonzero(groups == group)[:, 0]
                scaled = values / width
                pull = scaled[:, at] / rest**2 + ((scaled @ self.vectors) * excess) @ self.vectors[at].T
                centre = values[:, at] - pull / width[:, at] / precision[:, at]
                known = Interval(*(side[:, at] for side in within))
                standard = Interval(*((side - centre) / spread[:, at] for side in known))
                drawn = held_inside(centre + spread[:, at] * draw_within(standard, generator), known)
                values = values.index_copy(1, at, torch.where(free[:, at], drawn, values[:, at]))
        return values

    def covariance(self, log_energy: Float[Tensor, "n"], size: int) -> Float[Tensor, "n size size"]:
        """Of the first `size` values at ln(E_inc / MeV)."""
        deviation, rest, width = self._deviations(log_energy)
        few = self.vectors[:size]
        excess = torch.einsum("ik,nk,jk->nij", few, deviation**2 - rest**2, few)
        plain = excess + rest[:, :, None] ** 2 * torch.eye(size, device=few.device)
        return plain * width[:, :size, None] * width[:, None, :size]

    def to(self, device: torch.device | str) -> Components:
        """The same components on another device."""
        return Components(*(getattr(self, kind).to(device) for kind in _KINDS))

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """All parts by name, for a safetensors file."""
        return {f"{prefix}.{kind}": getattr(self, kind) for kind in _KINDS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> Components:
        """Inverse of `tensors`."""
        return cls(*(tensors[f"{prefix}.{kind}"].float() for kind in _KINDS))

    def _deviations(
        self, log_energy: Float[Tensor, "n"]
    ) -> tuple[Float[Tensor, "n k"], Float[Tensor, "n 1"], Float[Tensor, "n d"]]:
        """Deviations of the components and of the rest, and the widths that go with them."""
        d, k = self.vectors.shape
        variance = torch.exp(hat_weights(log_energy, COMPONENT_KNOTS) @ self.log_variance)
        rest = ((d - variance.sum(1, keepdim=True)) / max(d - k, 1)).clamp_min(_SMALLEST_VARIANCE)
        diagonal = rest + (variance - rest) @ (self.vectors**2).T
        return torch.sqrt(variance), torch.sqrt(rest), self.scale / torch.sqrt(diagonal)

    def _stretch(self, x: Tensor, along: Tensor, across: Tensor) -> Tensor:
        return across * x + ((x @ self.vectors) * (along - across)) @ self.vectors.T


def _beside(values: Float[Tensor, "n *m d"], *factors: Float[Tensor, "n _"]) -> tuple[Tensor, ...]:
    """Factors of each shower, to be multiplied with all of its rows of `values`."""
    return tuple(factor.reshape(-1, *[1] * (values.dim() - 2), factor.shape[1]) for factor in factors)


def fit_components(
    values: Float[Tensor, "n d"], log_energy: Float[Tensor, "n"], weight: Float[Tensor, "n"], number: int
) -> Components:
    """The `number` components whose variances differ most from 1, in ratio.

    Args:
        values: with mean 0, of more showers than d (or the components are those that no shower has).
        log_energy: ln(E_inc / MeV).
        weight: of each row.
        number: at most d; 0 keeps the widths alone.
    """
    share = (weight / weight.sum())[:, None]
    scale = torch.sqrt((share * values**2).sum(0)).clamp_min(_SMALLEST_VARIANCE**0.5)
    standard = values / scale
    correlation = (standard * share).T @ standard
    variances, vectors = torch.linalg.eigh(correlation.double())
    chosen = variances.clamp_min(1e-9).log().abs().argsort(descending=True)[:number]
    vectors = vectors[:, chosen].float()
    hat = hat_weights(log_energy, COMPONENT_KNOTS) * weight[:, None]
    at_knots = hat.T @ (standard @ vectors) ** 2
    # ten showers' worth of the pooled variance for knots with few
    pooled, worth = variances[chosen].float(), 10 * weight.mean()
    variance = (at_knots + worth * pooled) / (hat.sum(0)[:, None] + worth)
    return Components(vectors.contiguous(), variance.clamp_min(_SMALLEST_VARIANCE).log(), scale)


@dataclass(frozen=True)
class Copula:
    """Correlations that detectors share.

    Attributes:
        structure: of `Latents.structure()`.
        modes: of the cells' Fourier modes 0, 1, ... in phi, each over (r, z); what is beyond them is left as it is.
    """

    structure: Components
    modes: tuple[Components, ...]

    def forward(self, latents: Latents, log_energy: Float[Tensor, "n"]) -> Latents:
        """Latents without their common correlations (the structure has unit mean and width already)."""
        return self._apply(latents, log_energy, Components.forward)

    def inverse(self, latents: Latents, log_energy: Float[Tensor, "n"]) -> Latents:
        """Inverse of `forward`."""
        return self._apply(latents, log_energy, Components.inverse)

    def gibbs_resample(
        self,
        structure: Float[Tensor, "n d"],
        within: Interval,
        log_energy: Float[Tensor, "n"],
        grid: tuple[int, int, int],
        generator: torch.Generator,
    ) -> Float[Tensor, "n d"]:
        """`Components.gibbs_resample` of the structure: every third layer at once, rings and hits in turn."""
        layer, n_r, n_z = structure_layers(grid), grid[0], grid[2]
        is_hit = torch.arange(len(layer)) >= 1 + n_z + n_r * n_z
        groups = torch.where(layer < 0, 0, layer % 3 + 3 * is_hit)
        return self.structure.gibbs_resample(structure, within, log_energy, groups.to(structure.device), generator)

    def _apply(
        self, latents: Latents, log_energy: Tensor, map_of: Callable[[Components, Tensor, Tensor], Tensor]
    ) -> Latents:
        structure = map_of(self.structure, latents.structure(), log_energy)
        n, n_r, n_phi, n_z = latents.cells.shape
        waves, sizes = _waves(n_phi).to(latents.cells), _wave_sizes(n_phi)
        amplitudes = (waves.T @ latents.cells).permute(0, 2, 1, 3).flatten(2)
        parts = list(torch.split(amplitudes, sizes, dim=1))
        for mode, components in enumerate(self.modes):
            parts[mode] = map_of(components, parts[mode], log_energy)
        cells = waves @ torch.cat(parts, dim=1).reshape(n, n_phi, n_r, n_z).permute(0, 2, 1, 3)
        changed = Latents(latents.total, latents.layers, latents.rings, latents.hits, cells)
        return changed.with_structure(structure)

    def to(self, device: torch.device | str) -> Copula:
        """The same copula on another device."""
        return Copula(self.structure.to(device), tuple(mode.to(device) for mode in self.modes))

    def tensors(self) -> dict[str, Tensor]:
        """All parts by name, for a safetensors file."""
        parts = {"structure": self.structure, **{f"mode{k}": mode for k, mode in enumerate(self.modes)}}
        return {k: v for name, part in parts.items() for k, v in part.tensors(f"copula.{name}").items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Copula:
        """Inverse of `tensors`."""
        n_modes = sum(name.startswith("copula.mode") and name.endswith("vectors") for name in tensors)
        modes = (Components.from_tensors(tensors, f"copula.mode{k}") for k in range(n_modes))
        return cls(Components.from_tensors(tensors, "copula.structure"), tuple(modes))


def _wave_sizes(n_phi: int) -> list[int]:
    """Waves of each Fourier mode 0, 1, ...: cosine and sine, but for the mean and the alternating one."""
    return [1 if 2 * mode in (0, n_phi) else 2 for mode in range(n_phi // 2 + 1)]


def _waves(n_phi: int) -> Float[Tensor, "phi wave"]:
    """Orthonormal waves on a circle of `n_phi` cells, mode by mode: the real form of the discrete Fourier transform."""
    angle = 2 * torch.pi * torch.arange(n_phi, dtype=torch.float64) / n_phi
    columns = []
    for mode, size in enumerate(_wave_sizes(n_phi)):
        columns += [torch.cos(mode * angle), torch.sin(mode * angle)][:size]
    waves = torch.stack(columns, dim=1)
    normal: Tensor = waves / waves.norm(dim=0)
    return normal.float()


def fit_structure(samples: Sequence[tuple[Float[Tensor, "n d"], Float[Tensor, "n"]]]) -> Components:
    """Components over detectors; one with many showers counts by the square root of their number.

    Args:
        samples: for each detector, structure at unit mean and width and ln(E_inc / MeV).
    """
    structure, log_energy = (torch.cat(column) for column in zip(*samples, strict=True))
    return fit_components(structure, log_energy, _weights(samples), min(STRUCTURE_COMPONENTS, structure.shape[1]))


def _weights(samples: Sequence[tuple[Tensor, Tensor]]) -> Float[Tensor, "n"]:
    return torch.cat([torch.full((len(x),), len(x) ** -0.5) for _, x in samples])


def fit_modes(samples: Sequence[tuple[ShowerTensor, Float[Tensor, "n"]]]) -> tuple[Components, ...]:
    """Components of the cells' Fourier modes in phi over detectors, weighted as in `fit_structure`.

    Args:
        samples: for each detector, latents of cells and ln(E_inc / MeV).
    """
    weight, log_energy = _weights(samples), torch.cat([x for _, x in samples])
    n_phi = samples[0][0].shape[2]
    modes = []
    for mode in range(n_phi // 2 + 1):
        parts = [torch.fft.rfft(cells, dim=2, norm="ortho")[:, :, mode].flatten(1) for cells, _ in samples]
        wave = torch.cat(parts)
        # a white cell's mode has variance 1: half in each part, or all in the real one at the two ends
        both = wave.real if 2 * mode in (0, n_phi) else torch.cat([wave.real, wave.imag]) * 2**0.5
        repeats = len(both) // len(wave)
        number = min(CELL_COMPONENTS if mode <= CELL_MODES else 0, both.shape[1])
        modes.append(fit_components(both, log_energy.repeat(repeats), weight.repeat(repeats), number))
    return tuple(modes)
