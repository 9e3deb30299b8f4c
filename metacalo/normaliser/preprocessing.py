"""The ways from showers to latents that a base may carry: how normalisers are fitted, predicted and read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.normaliser.copula import Copula, fit_modes, fit_structure
from metacalo.normaliser.encoded import draw_structure
from metacalo.normaliser.energy_dependence import EnergyDependence, fit_energy_dependence
from metacalo.normaliser.fitting import fit_normaliser, with_spectrum
from metacalo.normaliser.hyperprior import Hyperprior, fit_hyperprior
from metacalo.normaliser.latents import Latents
from metacalo.normaliser.log_normaliser import LogNormaliser, LogPrior, fit_log_normaliser, fit_log_prior
from metacalo.normaliser.longitudinal import Longitudinal, fit_longitudinal
from metacalo.normaliser.marginals import Interval
from metacalo.normaliser.normaliser import Normaliser
from metacalo.showers.shower_file import Showers
from metacalo.typing import ShowerTensor

__all__ = ["PREPROCESSING", "AnyNormaliser", "DetectorPrior", "Encoded", "Preprocessing", "PreprocessingName"]

PreprocessingName = Literal["tables", "log"]

_COPULA_SHOWERS = 1500  # of a task that the common correlations are fitted on
_COPULA_ROUNDS = 4
_LONGITUDINAL_STRENGTH = 100.0  # showers that the prediction counts for in training, at each energy
_SPECTRUM_SHOWERS = 300  # of a task, for the spectrum of its cells


class Encoded(Protocol):
    """Showers that a normaliser has read, from which latents are drawn."""

    @property
    def log_energy(self) -> Float[Tensor, "n"]:
        """Logarithm of the incident energy in MeV."""
        ...

    @property
    def with_cells(self) -> bool:
        """Whether the latents of cells are drawn."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor | slice) -> Self: ...

    def dequantise(self, generator: torch.Generator, copula: Copula | None = None) -> Latents:
        """Latents that stand for the showers, drawn anew with every call."""
        ...

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Encoded showers one after another."""
        ...


class AnyNormaliser(Protocol):
    """Invertible map between showers in MeV and latents; see `Normaliser`."""

    @property
    def scale(self) -> float:
        """Mean E_total / E_inc of the file's convention."""
        ...

    @property
    def threshold(self) -> float:
        """Smallest non-zero cell energy in MeV."""
        ...

    @property
    def copula(self) -> Copula | None:
        """Correlations that detectors share."""
        ...

    @property
    def longitudinal(self) -> Longitudinal | None:
        """Correlations of the layers, of which each detector has its own."""
        ...

    def encode(
        self, showers: ShowerTensor, energy: Float[Tensor, "n"], theta: Float[Tensor, "n"], *, cells: bool = True
    ) -> Encoded:
        """Showers (MeV) of incident energy (MeV) and angle (rad), ready to be drawn from.

        Without `cells` their latents may be left out, at zero, which saves a third of the time of each draw.
        """
        ...

    def inverse(self, latents: Latents, energy: Float[Tensor, "n"], theta: Float[Tensor, "n"]) -> ShowerTensor:
        """Showers in MeV."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """The same normaliser on another device."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Its parts by name, for a safetensors file."""
        ...


class DetectorPrior(Protocol):
    """What a base knows of the normaliser of a detector before it has seen any of its showers."""

    def predict(self, descriptors: Float[Tensor, "d"], *, scale: float = 1.0) -> Any:
        """The normaliser of a detector by its descriptors, for a convention of that mean E_total / E_inc."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Its parts by name, for a safetensors file."""
        ...


class Preprocessing(Protocol):
    """One way from showers to latents."""

    def fit(self, shots: Showers, prior: Any = None) -> AnyNormaliser:
        """The normaliser of a detector, from its shots and what was known before."""
        ...

    def fit_detectors(
        self, detectors: Iterable[tuple[Showers, Float[np.ndarray, "d"]]]
    ) -> tuple[list[AnyNormaliser], DetectorPrior]:
        """The normalisers of several detectors, of showers and descriptors each, and the prior over them.

        The detectors may come one by one: the showers of each are needed only until the next one comes.
        """
        ...

    def load(self, tensors: Mapping[str, Tensor], prior: Any) -> AnyNormaliser:
        """Inverse of `AnyNormaliser.tensors`; what detectors share is the prior's.

        Raises:
            KeyError, ValueError: a tensor is missing or does not fit.
        """
        ...

    def load_prior(self, tensors: Mapping[str, Tensor]) -> DetectorPrior:
        """Inverse of `DetectorPrior.tensors`.

        Raises:
            KeyError: a tensor is missing.
        """
        ...


class _Tables:
    """Tables of conditional quantiles, fitted to the detector and shrunk towards its hyperprior (`normalise`)."""

    def fit(self, shots: Showers, prior: Normaliser | None = None) -> Normaliser:
        return fit_normaliser(shots.showers, shots.energy, shots.theta, prior=prior)

    def fit_detectors(
        self, detectors: Iterable[tuple[Showers, Float[np.ndarray, "d"]]]
    ) -> tuple[list[AnyNormaliser], Hyperprior]:
        fitted, samples, described = [], [], []
        for showers, descriptors in detectors:
            fitted.append(self.fit(showers))
            samples.append(_CopulaSample.of(fitted[-1], showers.select(slice(0, _COPULA_SHOWERS))))
            described.append(torch.from_numpy(descriptors))
        fitted, copula = _fit_correlations(samples, fitted)
        hyperprior = fit_hyperprior(fitted, torch.stack(described), copula)
        pairs = zip(fitted, described, strict=True)
        return [_for_training(normaliser, hyperprior.predict(about)) for normaliser, about in pairs], hyperprior

    def load(self, tensors: Mapping[str, Tensor], prior: Hyperprior) -> Normaliser:
        return Normaliser.from_tensors(tensors, prior.copula)

    def load_prior(self, tensors: Mapping[str, Tensor]) -> Hyperprior:
        return Hyperprior.from_tensors(tensors)


def _for_training(normaliser: Normaliser, predicted: Normaliser) -> AnyNormaliser:
    """What networks are trained with: tables of the showers alone.

    Tables shrunk towards a prediction leave its errors in the latents. Networks would tie them to the descriptors and
    repeat them on the next detector, whose errors are others. Only correlations of layers cannot do without.
    """
    longitudinal = normaliser.longitudinal.shrunk_towards(predicted.longitudinal, _LONGITUDINAL_STRENGTH)
    return replace(normaliser, longitudinal=longitudinal)


class _Log:
    """Logits of cell energy over incident energy with one standardisation for all (`plain`)."""

    def fit(self, shots: Showers, prior: LogNormaliser | None = None) -> LogNormaliser:
        return fit_log_normaliser(shots.showers, shots.energy, prior)

    def fit_detectors(
        self, detectors: Iterable[tuple[Showers, Float[np.ndarray, "d"]]]
    ) -> tuple[list[AnyNormaliser], LogPrior]:
        fitted, counts = [], []
        for showers, _ in detectors:
            fitted.append(self.fit(showers))
            counts.append(len(showers))
        prior = fit_log_prior(fitted, counts)
        return [normaliser.shrunk_towards(prior.normaliser) for normaliser in fitted], prior

    def load(self, tensors: Mapping[str, Tensor], prior: LogPrior) -> LogNormaliser:
        return LogNormaliser.from_tensors(tensors)

    def load_prior(self, tensors: Mapping[str, Tensor]) -> LogPrior:
        return LogPrior.from_tensors(tensors)


@dataclass(frozen=True)
class _CopulaSample:
    """Showers of a detector.

    Attributes:
        structure: intervals of structural latents with their energy dependence.
        cells: latents of cells.
        log_energy: ln(E_inc / MeV).
        scaled: a few of the showers in MeV over the scale of the file.
    """

    structure: Interval
    cells: ShowerTensor
    log_energy: Float[Tensor, "n"]
    scaled: ShowerTensor

    @classmethod
    def of(cls, normaliser: Normaliser, showers: Showers) -> _CopulaSample:
        energy, theta = (torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in (showers.energy, showers.theta))
        varying = replace(
            normaliser, energy_dependence=EnergyDependence.none(normaliser.energy_dependence.mean.shape[1])
        )
        encoded = varying.encode(torch.from_numpy(showers.showers), energy, theta)
        # seeded by the showers: the same numbers for all detectors would look like correlations
        generator = torch.Generator().manual_seed(int(showers.hashes()[0]) % 2**63)
        placed = encoded.place_cells(generator)
        scaled = torch.from_numpy(showers.showers[:_SPECTRUM_SHOWERS]) / normaliser.scale
        return cls(encoded.structure, placed, encoded.log_energy, scaled)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Cells of the mesh, (r, phi, z)."""
        _, n_r, n_phi, n_z = self.cells.shape
        return n_r, n_phi, n_z


def _fit_correlations(samples: list[_CopulaSample], normalisers: list[Normaliser]) -> tuple[list[Normaliser], Copula]:
    """The copula, and with it energy dependence, correlations of layers and spectrum of each detector.

    In rounds: where latents lie within their intervals depends on the copula.
    """
    modes = fit_modes([(sample.cells, sample.log_energy) for sample in samples])
    generator, copula = torch.Generator().manual_seed(0), None
    dependences = [fit_energy_dependence(sample.structure, sample.log_energy) for sample in samples]
    steady: list[tuple[Tensor, Tensor]] = []
    for _ in range(_COPULA_ROUNDS):
        steady = []
        for sample, dependence in zip(samples, dependences, strict=True):
            drawn = draw_structure(sample.structure, dependence, sample.log_energy, sample.grid, copula, generator)
            steady.append((dependence.forward(drawn, sample.log_energy), sample.log_energy))
        copula = Copula(fit_structure(steady), modes)
    assert copula is not None
    made = []
    for normaliser, sample, dependence, (structure, log_energy) in zip(
        normalisers, samples, dependences, steady, strict=True
    ):
        longitudinal = fit_longitudinal(structure, log_energy, 1 + sample.grid[2])
        correlated = replace(normaliser, energy_dependence=dependence, longitudinal=longitudinal, copula=copula)
        made.append(with_spectrum(correlated, sample.scaled, log_energy[: len(sample.scaled)]))
    return made, copula


PREPROCESSING: dict[PreprocessingName, Preprocessing] = {"tables": _Tables(), "log": _Log()}
"""By the name that `BaseConfig.preprocessing` has for it."""
