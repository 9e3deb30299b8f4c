"""From noise to showers in MeV as one module: condition encoding, sampler, decoder, denormalisation and threshold."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metacalo.export.correlations import TabulatedLongitudinal
from metacalo.export.dense_spectrum import DenseSpectrum
from metacalo.export.sequence import SequenceSampler
from metacalo.generators.autoregressive import Autoregressive
from metacalo.generators.base import ShowerGenerator
from metacalo.generators.diffusion import Diffusion
from metacalo.model_folders.adapted import ShowerModel
from metacalo.models.adapters import LowRankLinear
from metacalo.normaliser.condition_vector import POSSIBLE_MEV, condition_columns
from metacalo.normaliser.latents import Latents, structure_size
from metacalo.normaliser.normaliser import Normaliser
from metacalo.normaliser.preprocessing import AnyNormaliser
from metacalo.typing import ShowerTensor

__all__ = ["ShowerGraph", "merged"]


class ShowerGraph(nn.Module):
    """What `ShowerModel.sampler` does in single precision, with its noise as an input.

    Attributes:
        grid: cells of the mesh, (r, phi, z).
        n_normal, n_uniform: numbers of noise values of a shower.
        sequence: draws the codes of the autoregressive generator; None with the other one.
    """

    descriptors: Tensor

    def __init__(self, model: ShowerModel, name: str) -> None:
        super().__init__()
        self.generator = merged(model.generator(name)).eval().requires_grad_(False)
        self.normaliser = _tabulated(model.normaliser)
        self.grid = model.detector.grid.shape
        self.n_normal = structure_size(self.grid) + model.detector.grid.n_voxels
        self.n_uniform = 0
        self.sequence: nn.Module | None = None
        if isinstance(self.generator, Autoregressive):
            prior = self.generator.prior
            self.n_uniform = prior.length + prior.n_energies
            self.sequence = SequenceSampler(prior, self.generator.sampling)
        self.register_buffer("descriptors", torch.from_numpy(model.detector.descriptors()))

    def forward(
        self,
        energy: Float[Tensor, "n"],
        theta: Float[Tensor, "n"],
        phi: Float[Tensor, "n"],
        normal: Float[Tensor, "n value"],
        uniform: Float[Tensor, "n draw"] | None = None,
    ) -> ShowerTensor:
        """Showers in MeV; all cells are 0 where the energy is not above 0 (`POSSIBLE_MEV`), or a value is not finite.

        Args:
            energy: incident energies in MeV.
            theta: polar angles in rad.
            phi: azimuths in rad.
            normal: independent standard normal numbers, `n_normal` of them.
            uniform: independent uniform numbers in [0, 1), `n_uniform` of them; not read where that is 0.
        """
        # a look-up by what is not finite would end the program that asks
        known = (energy > POSSIBLE_MEV[0]) & (energy < POSSIBLE_MEV[1]) & _finite(theta) & _finite(phi)
        energy, theta, phi = (torch.where(known, x, usual) for x, usual in ((energy, 1e4), (theta, 1.5), (phi, 0.0)))
        conditions = condition_columns(energy, theta, phi, self.descriptors)
        noise = Latents.from_flat(normal, self.grid)
        showers = self.normaliser.inverse(self._latents(conditions, noise, uniform), energy, theta)
        return torch.where(known[:, None, None, None], showers, 0.0)

    def _latents(self, conditions: Tensor, noise: Latents, uniform: Tensor | None) -> Latents:
        if isinstance(self.generator, Diffusion):
            return self.generator.sample_from_noise(noise, conditions)
        assert isinstance(self.generator, Autoregressive)
        assert uniform is not None
        assert self.sequence is not None
        length = self.generator.prior.length
        codes = self.sequence(uniform[:, :length], conditions)
        return self.generator.placed(codes, uniform[:, length:], noise)


def _finite(x: Tensor) -> Tensor:
    return x.abs() < torch.inf


def merged(generator: ShowerGenerator) -> ShowerGenerator:
    """A copy whose adapters are part of the matrices that they stand beside."""
    copied = deepcopy(generator)
    for module in copied.modules():
        if isinstance(module, LowRankLinear) and module.rank:
            module.merge()
            del module.down, module.up
            module.rank = 0
    return copied


def _tabulated(normaliser: AnyNormaliser) -> AnyNormaliser:
    """The same map of parts whose shapes do not depend on the showers."""
    if not isinstance(normaliser, Normaliser):
        return normaliser
    longitudinal = normaliser.longitudinal
    if normaliser.copula is not None:
        longitudinal = TabulatedLongitudinal.of(longitudinal, normaliser.copula)
    return replace(normaliser, spectrum=DenseSpectrum.of(normaliser.spectrum), longitudinal=longitudinal)
