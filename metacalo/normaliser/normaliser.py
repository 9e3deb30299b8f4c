"""The normaliser: takes the detector, the energy and the mean shower out of the showers before any network sees them.

From the coarse to the fine, each stage given the one before and exactly conserving its energy:

    total   E_total / E_inc                         given E_inc and theta        `response`
    layers  E_layer / E_total                       given E_inc                  `marginals`
    rings   E_ring / what the inner rings left      given what they left, E_inc  `rings`
    hits    number of hit cells of a ring           given E_ring and E_inc       `hits`
    cells   which are hit, and their shares         given E_ring and the hits    `cells`

Marginal tables make each of these standard normal, `EnergyDependence` makes it so at each energy, and a `Copula` that
detectors share takes out their correlations, but for those of the layers, of which each detector has its own
(`Longitudinal`);
`Spectrum` keeps the features of the cell energies. So an *untrained* generator (independent normal latents) already has
every single-cell spectrum, the multiplicities, profiles and their linear correlations; what is left to learn is the
rest. It is fitted on the shots (`fitting`), shrunk towards what the detector descriptors predict (`hyperprior`), and
maps back with exact zeros and the sampled total conserved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metacalo.normaliser import rings
from metacalo.normaliser.cells import encode_shares, share_out, surroundings
from metacalo.normaliser.copula import Copula
from metacalo.normaliser.encoded import EncodedCells, EncodedShowers, without_correlations
from metacalo.normaliser.energy_dependence import EnergyDependence
from metacalo.normaliser.hits import count_hits, draw_hits, encode_hits
from metacalo.normaliser.latents import Latents
from metacalo.normaliser.longitudinal import Longitudinal
from metacalo.normaliser.marginals import ConditionalMarginals, Interval
from metacalo.normaliser.parts import PARTS, Part
from metacalo.normaliser.response import Response
from metacalo.normaliser.spectrum import Spectrum
from metacalo.normaliser.threshold import excess, least_hit
from metacalo.typing import ShowerTensor

__all__ = ["PRIOR_STRENGTH", "STAGES", "Normaliser"]

STAGES = ("layers", "rings", "hits", "shares")
"""The parts that are `ConditionalMarginals`."""

PRIOR_STRENGTH = {kind.name: kind.prior_strength for kind in PARTS}
"""Values that the prior counts for in each row of a usual detector; `prior_weight` finds how usual it is."""

_TINY = 1e-9  # MeV


@dataclass(frozen=True, repr=False)
class Normaliser:
    """Invertible map between showers (MeV) and `Latents`.

    Attributes:
        total: the response.
        layers, rings, hits, shares: tables of the later stages.
        spectrum: what is left of the absolute energy in the cells.
        energy_dependence: what is left of the energy in the structural latents.
        longitudinal: correlations of total and layers.
        scale: mean E_total / E_inc of the file's convention (near 1 or near the sampling fraction); energies are
            divided by it before the tables, which so serve both conventions.
        threshold: smallest non-zero cell energy of the file in MeV; no generated hit is smaller.
        copula: correlations that detectors share; None leaves the latents as they are.
    """

    total: Response
    layers: ConditionalMarginals
    rings: ConditionalMarginals
    hits: ConditionalMarginals
    shares: ConditionalMarginals
    spectrum: Spectrum
    energy_dependence: EnergyDependence
    longitudinal: Longitudinal
    scale: float
    threshold: float
    copula: Copula | None = None

    def __repr__(self) -> str:
        return f"Normaliser(scale={self.scale:.4g}, threshold={self.threshold:.4g} MeV)"

    def encode(
        self, showers: ShowerTensor, energy: Float[Tensor, "n"], theta: Float[Tensor, "n"], *, cells: bool = True
    ) -> EncodedShowers:
        """Showers (MeV) of incident energy (MeV) and angle (rad) as intervals of latents, with or without `cells`."""
        scaled = showers / self.scale
        in_rings, hits = scaled.sum(2), count_hits(scaled)
        structure = self.encode_structure(in_rings, hits, energy, theta, showers.shape[2])
        x = torch.log(energy)
        steady = Interval(*(self.energy_dependence.forward(side, x) for side in structure))
        shares = None
        if cells:
            above = excess(scaled, self.least)
            scores = encode_shares(self.shares, self.spectrum.forward(above), hits, above.sum(2))
            shares = EncodedCells(scores, surroundings(scaled).half())
        _, n_r, n_phi, n_z = showers.shape
        return EncodedShowers(steady, shares, x, (n_r, n_phi, n_z))

    def encode_structure(
        self,
        in_rings: Float[Tensor, "n r z"],
        hits: Int[Tensor, "n r z"],
        energy: Float[Tensor, "n"],
        theta: Float[Tensor, "n"],
        n_phi: int,
    ) -> Interval:
        """Intervals (n, d) of the structural latents, with their energy dependence, of ring energies over the scale."""
        in_layers = in_rings.sum(1)
        total = in_layers.sum(1)
        fractions = torch.log(in_layers) - torch.log(total)[:, None]
        fractions = torch.where(in_layers > 0, fractions, torch.full_like(fractions, -torch.inf))
        layers = self.layers.forward(fractions[..., None], torch.log(energy)[:, None].expand_as(fractions))
        stages = [
            self.total.forward(total / energy, energy, theta),
            layers,
            rings.encode_rings(self.rings, in_rings, energy, self.least),
            encode_hits(self.hits, hits, in_rings, energy, n_phi),
        ]
        lower, upper = (torch.cat([stage[side].reshape(len(total), -1) for stage in stages], dim=1) for side in (0, 1))
        return Interval(lower, upper)

    def draw(self, encoded: EncodedShowers, generator: torch.Generator) -> Latents:
        """Latents of encoded showers: dequantised, without correlations."""
        latents = encoded.dequantise(generator, self.copula)
        return without_correlations(latents, encoded.log_energy, self.copula, [self.longitudinal], [len(encoded)])

    def forward(
        self,
        showers: ShowerTensor,
        energy: Float[Tensor, "n"],
        theta: Float[Tensor, "n"],
        generator: torch.Generator,
    ) -> Latents:
        """Latents of showers (MeV) of incident energy (MeV) and angle (rad); `generator` dequantises."""
        return self.draw(self.encode(showers, energy, theta), generator)

    def inverse(self, latents: Latents, energy: Float[Tensor, "n"], theta: Float[Tensor, "n"]) -> ShowerTensor:
        """Showers in MeV; the sum of each is the energy that its `total` latent stands for (0 if nothing is hit)."""
        x = torch.log(energy)
        if self.copula is not None:
            latents = self.copula.inverse(latents, x)
            latents = latents.with_structure(self.longitudinal.inverse(latents.structure(), x, self.copula))
        latents = latents.with_structure(self.energy_dependence.inverse(latents.structure(), x))
        total = self.total.inverse(latents.total, energy, theta) * energy
        fractions = self.layers.inverse(latents.layers[..., None], x[:, None].expand_as(latents.layers))[..., 0]
        in_layers = _share_total(total, torch.exp(fractions), self.least)
        in_rings = rings.break_rings(self.rings, latents.rings, in_layers, energy, self.least)
        hits = draw_hits(self.hits, latents.hits, in_rings, energy, latents.grid[1], self.least)
        return self.scale * self.share_out(latents.cells, hits, in_rings)

    def share_out(
        self, latent: ShowerTensor, hits: Int[Tensor, "n r z"], in_rings: Float[Tensor, "n r z"]
    ) -> ShowerTensor:
        """Cells that add up to ring energies, both over the scale, of coloured latents; see `cells.share_out`."""
        return share_out(self.shares, latent, hits, in_rings, self.least, self.spectrum)

    @property
    def least(self) -> float:
        """Energy over the scale, in MeV, that every hit is above: the threshold, but for rounding."""
        return least_hit(self.threshold, self.scale)

    def shrunk_towards(self, prior: Normaliser, strengths: Mapping[str, float]) -> Normaliser:
        """The normaliser with all tables averaged with `prior`'s, and with its copula.

        Args:
            prior: what is known without showers.
            strengths: values that it counts for in each row, by the keys of `PRIOR_STRENGTH`.
        """
        n_z, known = len(self.layers.t0), prior.parts
        shrunk = {
            kind.name: kind.shrink(self.parts[kind.name], known[kind.name], strengths[kind.name], n_z) for kind in PARTS
        }
        return replace(self, **shrunk, copula=prior.copula)

    @property
    def parts(self) -> dict[str, Part]:
        """All parts by their names, in the order of `PARTS`."""
        return {kind.name: getattr(self, kind.name) for kind in PARTS}

    def to(self, device: torch.device | str) -> Normaliser:
        """The same normaliser on another device."""
        moved = Normaliser.from_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})
        return replace(moved, copula=None if self.copula is None else self.copula.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """All tables and scalars by name, for a safetensors file; the copula is the base's."""
        kept = {f"{name}.{key}": tensor for name, part in self.parts.items() for key, tensor in part.tensors().items()}
        return {**kept, "scalars": torch.tensor([self.scale, self.threshold], dtype=torch.float64)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], copula: Copula | None = None) -> Normaliser:
        """Inverse of `tensors`."""
        scale, threshold = tensors["scalars"].tolist()
        parts = {kind.name: kind.from_tensors(kind.own(tensors)) for kind in PARTS}
        return cls(**parts, scale=scale, threshold=threshold, copula=copula)


def _share_total(total: Float[Tensor, "n"], fractions: Float[Tensor, "n z"], threshold: float) -> Float[Tensor, "n z"]:
    """Layer energies in the ratio of `fractions` that add up to `total`, none between zero and `threshold`."""
    largest = torch.nn.functional.one_hot(fractions.argmax(1), fractions.shape[1]).to(fractions)
    share = fractions / fractions.sum(1, keepdim=True).clamp_min(_TINY)
    energy = total[:, None] * torch.where(fractions.sum(1, keepdim=True) > 0, share, largest)
    energy = torch.where(energy < threshold, largest * energy, energy)
    return energy * (total / energy.sum(1).clamp_min(_TINY))[:, None]
