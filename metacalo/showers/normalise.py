"""The normaliser: takes the detector, the energy and the mean shower out of the showers before any network sees them.

From the coarse to the fine, each stage given the one before and exactly conserving its energy:

    total   E_total / E_inc                         given E_inc and theta        `response`
    layers  E_layer / E_total                       given E_inc                  `marginals`
    rings   E_ring / what the inner rings left      given what they left, E_inc  `rings`
    hits    number of hit cells of a ring           given E_ring and E_inc       `hits`
    cells   which are hit, and their shares         given E_ring and the hits    `cells`

Marginal tables make each of these standard normal, `Drift` makes it so at each energy, and a `Copula` that detectors
share takes out their correlations, but for those of the layers, of which each detector has its own (`Longitudinal`);
`Spectrum` keeps the features of the cell energies. So an *untrained* generator (independent normal latents) already has
every single-cell spectrum, the multiplicities, profiles and their linear correlations; what is left to learn is the
rest. It is fitted on the shots, shrunk towards what the detector descriptors predict (`hyperprior`), and maps back with
exact zeros and the sampled total conserved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metacalo.errors import ShowerFileError
from metacalo.showers import cells, rings
from metacalo.showers.copula import Copula
from metacalo.showers.drift import Drift, fit_drift
from metacalo.showers.encoded import EncodedShowers, settled, without_correlations
from metacalo.showers.hits import count_hits, draw_hits, encode_hits, fit_hits
from metacalo.showers.latents import Latents, structure_size
from metacalo.showers.longitudinal import Longitudinal, fit_longitudinal
from metacalo.showers.marginals import ConditionalMarginals, Interval
from metacalo.showers.response import Response, fit_response
from metacalo.showers.spectrum import Spectrum, fit_spectrum
from metacalo.showers.tabulate import fit_marginals
from metacalo.typing import ShowerArray, ShowerTensor

__all__ = ["LOG_ENERGY_KNOTS", "PRIOR_STRENGTH", "STAGES", "Normaliser", "fit_normaliser", "with_spectrum"]

LOG_ENERGY_KNOTS = np.linspace(np.log(1e3), np.log(1e5), 5)
"""Knots in ln(E_inc / MeV): 1 to 100 GeV, continued linearly outside."""

STAGES = ("layers", "rings", "hits", "shares")
"""The stages that are `ConditionalMarginals`."""

PRIOR_STRENGTH = {
    "total": 10.0,
    "layers": 80.0,
    "rings": 40.0,
    "hits": 40.0,
    "shares": 200.0,
    "drift": 60.0,
    "spectrum": 500.0,
    "longitudinal": 400.0,
}
"""Values that the prior counts for in each row: least error on a held-out detector at 50 and 400 shots."""

_TINY = 1e-9  # MeV
_ROUNDING = 1e-3  # a cell of the sample must not fall below its own threshold on the way back


@dataclass(frozen=True)
class Normaliser:
    """Invertible map between showers (MeV) and `Latents`.

    Attributes:
        total: the response.
        layers, rings, hits, shares: tables of the later stages.
        spectrum: what is left of the absolute energy in the cells.
        drift: what is left of the energy in the structural latents.
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
    drift: Drift
    longitudinal: Longitudinal
    scale: float
    threshold: float
    copula: Copula | None = None

    def encode(self, showers: ShowerTensor, energy: Float[Tensor, "n"], theta: Float[Tensor, "n"]) -> EncodedShowers:
        """Showers (MeV) of incident energy (MeV) and angle (rad) as intervals of latents."""
        scaled = showers / self.scale
        in_rings, hits = scaled.sum(2), count_hits(scaled)
        structure = self.encode_structure(in_rings, hits, energy, theta, showers.shape[2])
        scores = cells.encode_shares(self.shares, self.spectrum.blur(scaled), hits, in_rings)
        x = torch.log(energy)
        steady = Interval(*(self.drift.remove(side, x) for side in structure))
        return EncodedShowers(steady, scores, cells.surroundings(scaled).half(), x)

    def encode_structure(
        self,
        in_rings: Float[Tensor, "n r z"],
        hits: Int[Tensor, "n r z"],
        energy: Float[Tensor, "n"],
        theta: Float[Tensor, "n"],
        n_phi: int,
    ) -> Interval:
        """Intervals (n, d) of the structural latents, drift included, of ring energies over the scale and hits."""
        in_layers = in_rings.sum(1)
        total = in_layers.sum(1)
        fractions = torch.log(in_layers) - torch.log(total)[:, None]
        fractions = torch.where(in_layers > 0, fractions, torch.full_like(fractions, -torch.inf))
        layers = self.layers.to_latent(fractions[..., None], torch.log(energy)[:, None].expand_as(fractions))
        stages = [
            self.total.to_latent(total / energy, energy, theta),
            layers,
            rings.encode_rings(self.rings, in_rings, energy),
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
            latents = self.copula.colour(latents, x)
            latents = latents.with_structure(self.longitudinal.impose(latents.structure(), x, self.copula))
        latents = latents.with_structure(self.drift.add(latents.structure(), x))
        total = self.total.to_response(latents.total, energy, theta) * energy
        fractions = self.layers.to_value(latents.layers[..., None], x[:, None].expand_as(latents.layers))[..., 0]
        threshold = self.threshold / self.scale
        in_layers = _share_total(total, torch.exp(fractions), threshold)
        in_rings = rings.break_rings(self.rings, latents.rings, in_layers, energy, threshold)
        hits = draw_hits(self.hits, latents.hits, in_rings, energy, latents.grid[1], threshold)
        return self.scale * cells.share_out(
            self.shares, latents.cells, hits, in_rings, threshold * (1 - _ROUNDING), self.spectrum
        )

    def shrunk_towards(self, prior: Normaliser) -> Normaliser:
        """The normaliser with all tables averaged with `prior`'s, at `PRIOR_STRENGTH`, and with its copula."""
        tables = {
            stage: getattr(self, stage).shrunk_towards(getattr(prior, stage), PRIOR_STRENGTH[stage])
            for stage in ("total", "layers", "hits", "shares", "spectrum", "drift", "longitudinal")
        }
        alike = rings.ring_of_rows(len(self.rings.t0), len(self.layers.t0)).to(self.rings.t0.device)
        tables["rings"] = self.rings.shrunk_towards(prior.rings, PRIOR_STRENGTH["rings"], alike)
        return replace(self, **tables, copula=prior.copula)

    def to(self, device: torch.device | str) -> Normaliser:
        """The same normaliser on another device."""
        moved = Normaliser.from_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})
        return replace(moved, copula=None if self.copula is None else self.copula.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """All tables and scalars by name, for a safetensors file; the copula is the base's."""
        parts = self.total.tensors() | self.spectrum.tensors() | self.drift.tensors() | self.longitudinal.tensors()
        for stage in STAGES:
            parts |= getattr(self, stage).tensors(stage)
        return {**parts, "scalars": torch.tensor([self.scale, self.threshold], dtype=torch.float64)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], copula: Copula | None = None) -> Normaliser:
        """Inverse of `tensors`."""
        plain = dict(tensors)
        scale, threshold = plain["scalars"].tolist()
        tables = {
            stage: ConditionalMarginals.from_tensors(plain, stage, extrapolate=stage == "layers") for stage in STAGES
        }
        return cls(
            total=Response.from_tensors(plain),
            **tables,
            spectrum=Spectrum.from_tensors(plain),
            drift=Drift.from_tensors(plain),
            longitudinal=Longitudinal.from_tensors(plain),
            scale=scale,
            threshold=threshold,
            copula=copula,
        )


def _share_total(total: Float[Tensor, "n"], fractions: Float[Tensor, "n z"], threshold: float) -> Float[Tensor, "n z"]:
    """Layer energies in the ratio of `fractions` that add up to `total`, none between zero and `threshold`."""
    largest = torch.nn.functional.one_hot(fractions.argmax(1), fractions.shape[1]).to(fractions)
    share = fractions / fractions.sum(1, keepdim=True).clamp_min(_TINY)
    energy = total[:, None] * torch.where(fractions.sum(1, keepdim=True) > 0, share, largest)
    energy = torch.where(energy < threshold, largest * energy, energy)
    return energy * (total / energy.sum(1).clamp_min(_TINY))[:, None]


def fit_normaliser(
    showers: ShowerArray,
    energy: Float[np.ndarray, "n"],
    theta: Float[np.ndarray, "n"],
    prior: Normaliser | None = None,
) -> Normaliser:
    """Tables fitted on showers (MeV) of incident energies (MeV) and angles (rad).

    Args:
        showers: the shots.
        energy: their incident energies.
        theta: their polar angles.
        prior: what the tables are shrunk towards, see `shrunk_towards`.

    Raises:
        ShowerFileError: no shower holds any energy.
    """
    energy, theta = np.asarray(energy, dtype=np.float64), np.asarray(theta, dtype=np.float64)
    total = showers.sum((1, 2, 3), dtype=np.float64)
    if not (total > 0).any():
        raise ShowerFileError("every shower given to fit the normaliser is empty; choose showers with energy deposits")
    scale = float(np.mean(total / energy))
    threshold = float(showers[showers > 0].min())
    scaled = showers / np.float32(scale)
    in_rings = scaled.sum(2)
    in_layers = in_rings.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        fractions = np.log(in_layers) - np.log(total / scale)[:, None]
    fractions[in_layers <= 0] = -np.inf
    hits = (scaled > 0).sum(2)
    n_r, n_phi, n_z = showers.shape[1:]
    log_energy = np.log(energy)
    tables = Normaliser(
        total=fit_response(total / scale / energy, energy, theta),
        layers=fit_marginals([(fractions[:, z], log_energy) for z in range(n_z)], LOG_ENERGY_KNOTS, extrapolate=True),
        rings=rings.fit_rings(in_rings, energy),
        hits=fit_hits(hits, in_rings, energy, np.random.default_rng(0)),
        shares=cells.fit_shares(scaled, hits, in_rings, np.random.default_rng(1)),
        spectrum=Spectrum.none(n_r),
        drift=Drift.none(structure_size((n_r, 1, n_z))),
        longitudinal=Longitudinal.none(1 + n_z),
        scale=scale,
        threshold=threshold,
    )
    if prior is not None:
        tables = tables.shrunk_towards(replace(prior, drift=tables.drift))
    incident, angle = (torch.from_numpy(array.astype(np.float32)) for array in (energy, theta))
    structure = tables.encode_structure(torch.from_numpy(in_rings), torch.from_numpy(hits), incident, angle, n_phi)
    tables = _with_energy(tables, structure, torch.log(incident), (n_r, n_phi, n_z), prior)
    return tables if prior is None else with_spectrum(tables, torch.from_numpy(scaled), torch.log(incident))


def _with_energy(
    tables: Normaliser,
    structure: Interval,
    log_energy: Float[Tensor, "n"],
    grid: tuple[int, int, int],
    prior: Normaliser | None,
) -> Normaliser:
    """Drift and correlations of layers, of structural latents of which intervals are known.

    Twice, since where latents lie within their intervals depends on them.
    """
    generator = torch.Generator().manual_seed(0)
    copula = None if prior is None else prior.copula
    drift = tables.drift if prior is None else prior.drift
    for _ in range(2):
        drawn = settled(structure, drift, log_energy, grid, copula, generator)
        drift = fit_drift(drawn, log_energy)
        if prior is not None:
            drift = drift.shrunk_towards(prior.drift, PRIOR_STRENGTH["drift"])
    longitudinal = fit_longitudinal(drift.remove(drawn, log_energy), log_energy, 1 + grid[2])
    if prior is not None:
        longitudinal = longitudinal.shrunk_towards(prior.longitudinal, PRIOR_STRENGTH["longitudinal"])
    return replace(tables, drift=drift, longitudinal=longitudinal)


def with_spectrum(tables: Normaliser, scaled: ShowerTensor, log_energy: Float[Tensor, "n"]) -> Normaliser:
    """Tables with a spectrum fitted to showers, in MeV over the scale of the file, which moves that of `tables`."""
    in_rings, hits = scaled.sum(2), count_hits(scaled)
    n, *grid = scaled.shape
    latents = Latents.noise(n, (grid[0], grid[1], grid[2]), torch.Generator().manual_seed(2))
    if tables.copula is not None:
        latents = tables.copula.colour(latents, log_energy)
    threshold = tables.threshold / tables.scale * (1 - _ROUNDING)

    def decode(spectrum: Spectrum) -> ShowerTensor:
        return cells.share_out(tables.shares, latents.cells, hits, in_rings, threshold, spectrum)

    return replace(tables, spectrum=fit_spectrum(scaled, decode, tables.spectrum, PRIOR_STRENGTH["spectrum"]))
