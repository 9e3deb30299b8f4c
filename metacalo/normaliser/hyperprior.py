"""What a detector's normaliser should look like before a single shower was seen: regression on its descriptors.

Every entry of a `Normaliser`'s tables is a linear function of the detector descriptors, fitted over the detectors of
pretraining by ridge regression; for the layers it is the departure from the `gamma_profile`. At zero shots the
prediction is the normaliser; with shots it is the prior that the fitted tables are shrunk towards (empirical Bayes), so
that fifty showers already give smooth tables. Other correlations than those of the layers are not predicted: all
detectors share one `Copula`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.normaliser.copula import Copula
from metacalo.normaliser.energy_dependence import EnergyDependence
from metacalo.normaliser.gamma_profile import log_layer_fractions
from metacalo.normaliser.longitudinal import Longitudinal
from metacalo.normaliser.marginals import N_ATOMS, ConditionalMarginals
from metacalo.normaliser.normaliser import STAGES, Normaliser
from metacalo.normaliser.response import CALIBRATED, Response
from metacalo.normaliser.spectrum import Spectrum

__all__ = ["Hyperprior", "fit_hyperprior"]

_TARGETS = ("total", *STAGES, "spectrum", "energy_dependence", "longitudinal")
_ENOUGH = 30.0  # showers at which a table row counts half of its most
_RIDGE = {
    "total": 0.1,
    "layers": 10.0,
    "rings": 2.0,
    "hits": 1.0,
    "shares": 10.0,
    "spectrum": 10.0,
    "energy_dependence": 50.0,
    "longitudinal": 50.0,
}
"""Strength of the ridge, in detectors: least error on detectors left out (docs/experiments.md)."""


@dataclass(frozen=True, repr=False)
class Hyperprior:
    """Linear maps from descriptors to the tables of each stage.

    Attributes:
        coefficients: stage to (feature, S, K, column); feature 0 is the constant.
        knots, planes: stage of `STAGES` to the knots of its tables, (K,) and (P,).
        mean, spread: of the descriptors over the detectors of the fit, shape (d,).
        threshold: typical smallest cell energy over scale, in MeV.
        copula: correlations that all detectors share, or None.
    """

    coefficients: Mapping[str, Float[Tensor, "feature S K column"]]
    knots: Mapping[str, Float[Tensor, "K"]]
    planes: Mapping[str, Float[Tensor, "P"]]
    mean: Float[Tensor, "d"]
    spread: Float[Tensor, "d"]
    threshold: float
    copula: Copula | None = None

    def __repr__(self) -> str:
        return f"Hyperprior({', '.join(self.coefficients)}; of {len(self.mean)} descriptors)"

    def predict(self, descriptors: Float[Tensor, "d"], *, scale: float = 1.0) -> Normaliser:
        """The normaliser of a detector that was never seen.

        Args:
            descriptors: `Detector.descriptors()`.
            scale: mean E_total / E_inc of the wanted convention; 1 = deposits divided by the sampling fraction.
        """
        features = _features(descriptors[None], self.mean, self.spread)[0]
        columns = {stage: torch.einsum("f,fskc->skc", features, self.coefficients[stage].float()) for stage in _TARGETS}
        columns["layers"] = columns["layers"] + _expected_layers(descriptors, self.knots["layers"], columns["layers"])
        tables = {
            stage: ConditionalMarginals.from_columns(
                self.knots[stage],
                columns[stage],
                torch.zeros(columns[stage].shape[:2]),
                extrapolate=stage == "layers",
                planes=self.planes[stage],
            )
            for stage in STAGES
        }
        unseen = {stage: torch.zeros(columns[stage].shape[1]) for stage in ("energy_dependence", "longitudinal")}
        return Normaliser(
            total=Response.from_vector(columns["total"][0, 0], 0.0),
            **tables,
            spectrum=Spectrum.from_columns(columns["spectrum"], torch.zeros(len(columns["spectrum"]))),
            energy_dependence=EnergyDependence.from_columns(columns["energy_dependence"], unseen["energy_dependence"]),
            longitudinal=Longitudinal.from_columns(columns["longitudinal"], unseen["longitudinal"]),
            scale=scale,
            threshold=self.threshold * scale,
            copula=self.copula,
        )

    def tensors(self) -> dict[str, Tensor]:
        """All parts by name; coefficients and copula in half precision, which is finer than their errors."""
        parts: dict[str, Tensor] = {"mean": self.mean, "spread": self.spread}
        parts["threshold"] = torch.tensor([self.threshold], dtype=torch.float64)
        parts |= {f"{stage}.coefficients": self.coefficients[stage].half() for stage in _TARGETS}
        parts |= {f"{stage}.knots": knots for stage, knots in self.knots.items()}
        parts |= {f"{stage}.planes": planes for stage, planes in self.planes.items()}
        if self.copula is not None:
            parts |= {name: tensor.half() for name, tensor in self.copula.tensors().items()}
        return parts

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Hyperprior:
        """Inverse of `tensors`."""
        has_copula = any(name.startswith("copula.") for name in tensors)
        return cls(
            {stage: tensors[f"{stage}.coefficients"].float() for stage in _TARGETS},
            {stage: tensors[f"{stage}.knots"] for stage in STAGES},
            {stage: tensors[f"{stage}.planes"] for stage in STAGES},
            tensors["mean"],
            tensors["spread"],
            float(tensors["threshold"][0]),
            Copula.from_tensors(tensors) if has_copula else None,
        )


def _features(descriptors: Tensor, mean: Tensor, spread: Tensor) -> Float[Tensor, "n feature"]:
    # beyond three spreads a linear map is no longer to be trusted: hold it there
    standard = ((descriptors - mean) / spread).clamp(-3, 3)
    return torch.cat([torch.ones(len(standard), 1), standard], dim=1)


def _expected_layers(
    descriptors: Float[Tensor, "d"], knots: Float[Tensor, "K"], columns: Float[Tensor, "z K column"]
) -> Float[Tensor, "z K column"]:
    """What the quantiles in the columns of the stage 'layers' are compared with; 0 for its atoms."""
    expected = torch.zeros_like(columns)
    expected[..., N_ATOMS:] = log_layer_fractions(descriptors, knots, len(columns))[..., None].to(columns)
    return expected


def _target(normaliser: Normaliser, stage: str) -> tuple[Float[Tensor, "S K column"], Float[Tensor, "S K"]]:
    """Entries of a stage and the showers behind them."""
    if stage == "total":
        vector = normaliser.total.vector()[None, None].clone()
        if normaliser.scale > CALIBRATED:
            vector[..., 0] += math.log(normaliser.scale)  # what the sampling fraction left of the response
        return vector, torch.full(vector.shape[:2], normaliser.total.weight)
    if stage in ("energy_dependence", "longitudinal"):
        by_knot: EnergyDependence | Longitudinal = getattr(normaliser, stage)
        columns = by_knot.columns()
        return columns, by_knot.weight.expand(columns.shape[:2])
    if stage == "spectrum":
        columns = normaliser.spectrum.columns()
        return columns, normaliser.spectrum.weight[:, None].expand(columns.shape[:2])
    table: ConditionalMarginals = getattr(normaliser, stage)
    return table.columns(), table.weight


def fit_hyperprior(
    normalisers: Sequence[Normaliser], descriptors: Float[Tensor, "n d"], copula: Copula | None = None
) -> Hyperprior:
    """Weighted ridge regression over detectors, row by row; a row counts by the showers behind it, with saturation.

    Args:
        normalisers: fitted without a prior, all on one grid.
        descriptors: `Detector.descriptors()` of each.
        copula: correlations to hand on to every prediction.
    """
    mean, spread = descriptors.mean(0), descriptors.std(0, correction=0).clamp_min(1e-2)
    features = _features(descriptors, mean, spread).double()
    coefficients = {}
    for stage in _TARGETS:
        targets, weights = zip(*(_target(normaliser, stage) for normaliser in normalisers), strict=True)
        target, shots = torch.stack(targets).double(), torch.stack(weights).double()
        if stage == "layers":
            knots = normalisers[0].layers.knots
            pairs = zip(descriptors, target, strict=True)
            target = target - torch.stack([_expected_layers(about, knots, columns) for about, columns in pairs])
        weight = shots / (shots + _ENOUGH) + 1e-3
        gram = torch.einsum("nskf,ng->skfg", weight[..., None] * features[:, None, None], features)
        right = torch.einsum("nsk,nf,nskc->skfc", weight, features, target)
        ridge = torch.full((features.shape[1],), _RIDGE[stage], dtype=torch.float64)
        ridge[0] = 1e-6  # the mean is free
        solved = torch.linalg.solve(gram + torch.diag(ridge), right)  # (S, K, feature, column)
        coefficients[stage] = solved.permute(2, 0, 1, 3).float().contiguous()
    knots_of = {stage: getattr(normalisers[0], stage).knots for stage in STAGES}
    planes = {stage: getattr(normalisers[0], stage).planes for stage in STAGES}
    relative = torch.tensor([normaliser.threshold / normaliser.scale for normaliser in normalisers])
    return Hyperprior(coefficients, knots_of, planes, mean, spread, float(relative.median()), copula)
