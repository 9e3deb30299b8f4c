"""What a detector's normaliser should look like before a single shower was seen: regression on its descriptors.

Every table entry of a `Normaliser` is a linear function of the detector descriptors, fitted over the detectors of
pretraining by ridge regression. At zero shots the prediction is the normaliser; with shots it is the prior that the
fitted tables are shrunk towards (empirical Bayes), so that fifty showers already give smooth tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.showers.marginals import ConditionalMarginals
from metacalo.showers.normalise import Normaliser

__all__ = ["Hyperprior", "fit_hyperprior"]

_STAGES = ("total", "layer", "voxel")
_ENOUGH = 30.0  # showers at which a table row counts half of its most
_RIDGE = 0.1  # strength of the ridge, in detectors; more drew far detectors to the mean (docs/experiments.md)


@dataclass(frozen=True)
class Hyperprior:
    """Linear maps from descriptors to the tables of each stage.

    Attributes:
        coefficients: stage to (feature, S, K, 1 + J): first t0, then the quantiles; feature 0 is the constant.
        knots: stage to (K,).
        mean, spread: of the descriptors over the detectors of the fit, shape (d,).
        threshold: typical smallest cell energy over scale, in MeV.
    """

    coefficients: Mapping[str, Float[Tensor, "feature S K column"]]
    knots: Mapping[str, Float[Tensor, "K"]]
    mean: Float[Tensor, "d"]
    spread: Float[Tensor, "d"]
    threshold: float

    def predict(self, descriptors: Float[Tensor, "d"], *, scale: float = 1.0) -> Normaliser:
        """The normaliser of a detector that was never seen.

        Args:
            descriptors: `Detector.descriptors()`.
            scale: mean E_total / E_inc of the wanted convention; 1 = deposits divided by the sampling fraction.
        """
        features = _features(descriptors[None], self.mean, self.spread)[0]
        stages = {}
        for stage in _STAGES:
            table = torch.einsum("f,fskc->skc", features, self.coefficients[stage].float())
            stages[stage] = ConditionalMarginals(
                self.knots[stage],
                table[..., 0],
                torch.cummax(table[..., 1:], dim=-1).values,
                torch.zeros(table.shape[:2]),
                extrapolate=stage != "voxel",
            )
        return Normaliser(**stages, scale=scale, threshold=self.threshold * scale)

    def tensors(self) -> dict[str, Tensor]:
        """All parts by name; coefficients in half precision, which is finer than their errors."""
        parts: dict[str, Tensor] = {"mean": self.mean, "spread": self.spread}
        parts["threshold"] = torch.tensor([self.threshold], dtype=torch.float64)
        for stage in _STAGES:
            parts[f"{stage}.coefficients"] = self.coefficients[stage].half()
            parts[f"{stage}.knots"] = self.knots[stage]
        return parts

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Hyperprior:
        """Inverse of `tensors`."""
        return cls(
            {stage: tensors[f"{stage}.coefficients"].float() for stage in _STAGES},
            {stage: tensors[f"{stage}.knots"] for stage in _STAGES},
            tensors["mean"],
            tensors["spread"],
            float(tensors["threshold"][0]),
        )


def _features(descriptors: Tensor, mean: Tensor, spread: Tensor) -> Float[Tensor, "n feature"]:
    # beyond three spreads a linear map is no longer to be trusted: hold it there
    standard = ((descriptors - mean) / spread).clamp(-3, 3)
    return torch.cat([torch.ones(len(standard), 1), standard], dim=1)


def fit_hyperprior(normalisers: Sequence[Normaliser], descriptors: Float[Tensor, "n d"]) -> Hyperprior:
    """Weighted ridge regression over detectors, row by row; a row counts by the showers behind it, with saturation."""
    mean, spread = descriptors.mean(0), descriptors.std(0, correction=0).clamp_min(1e-2)
    features = _features(descriptors, mean, spread).double()
    ridge = torch.full((features.shape[1],), _RIDGE, dtype=torch.float64)
    ridge[0] = 1e-6
    coefficients = {}
    for stage in _STAGES:
        tables = [getattr(normaliser, stage) for normaliser in normalisers]
        target = torch.stack([torch.cat([t.t0[..., None], t.log_quantiles], -1) for t in tables]).double()
        shots = torch.stack([t.weight for t in tables]).double()
        weight = shots / (shots + _ENOUGH) + 1e-3
        gram = torch.einsum("nskf,ng->skfg", weight[..., None] * features[:, None, None], features)
        right = torch.einsum("nsk,nf,nskc->skfc", weight, features, target)
        solved = torch.linalg.solve(gram + torch.diag(ridge), right)  # (S, K, feature, column)
        coefficients[stage] = solved.permute(2, 0, 1, 3).float().contiguous()
    knots = {stage: getattr(normalisers[0], stage).knots for stage in _STAGES}
    relative = torch.tensor([normaliser.threshold / normaliser.scale for normaliser in normalisers])
    return Hyperprior(coefficients, knots, mean, spread, float(relative.median()))
