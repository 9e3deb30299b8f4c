"""What a detector's normaliser should look like before a single shower was seen: regression on its descriptors.

Every entry of a `Normaliser`'s tables is a linear function of the detector descriptors, fitted over the detectors of
pretraining by ridge regression; for the layers it is the departure from the `gamma_profile`. At zero shots the
prediction is the normaliser; with shots it is the prior that the fitted tables are shrunk towards (empirical Bayes), so
that fifty showers already give smooth tables. Other correlations than those of the layers are not predicted: all
detectors share one `Copula`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metacalo.normaliser.copula import Copula
from metacalo.normaliser.normaliser import Normaliser
from metacalo.normaliser.parts import PARTS, Axes

__all__ = ["Hyperprior", "fit_hyperprior"]

_ENOUGH = 30.0  # showers at which a table row counts half of its most
_RIDGE = {kind.name: kind.ridge for kind in PARTS}


@dataclass(frozen=True, repr=False)
class Hyperprior:
    """Linear maps from descriptors to the tables of each stage.

    Attributes:
        coefficients: part to (feature, S, K, column); feature 0 is the constant.
        axes: part to what it has beside its columns, such as the knots of its tables.
        mean, spread: of the descriptors over the detectors of the fit, shape (d,).
        threshold: typical smallest cell energy over scale, in MeV.
        copula: correlations that all detectors share, or None.
    """

    coefficients: Mapping[str, Float[Tensor, "feature S K column"]]
    axes: Mapping[str, Axes]
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
        parts = {}
        for kind in PARTS:
            columns = torch.einsum("f,fskc->skc", features, self.coefficients[kind.name].float())
            axes = self.axes[kind.name]
            parts[kind.name] = kind.from_columns(columns + kind.expected(descriptors, axes, columns), axes)
        return Normaliser(**parts, scale=scale, threshold=self.threshold * scale, copula=self.copula)

    def tensors(self) -> dict[str, Tensor]:
        """All parts by name; coefficients and copula in half precision, which is finer than their errors."""
        parts: dict[str, Tensor] = {"mean": self.mean, "spread": self.spread}
        parts["threshold"] = torch.tensor([self.threshold], dtype=torch.float64)
        parts |= {f"{name}.coefficients": values.half() for name, values in self.coefficients.items()}
        parts |= {f"{name}.{axis}": values for name, axes in self.axes.items() for axis, values in axes.items()}
        if self.copula is not None:
            parts |= {name: tensor.half() for name, tensor in self.copula.tensors().items()}
        return parts

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Hyperprior:
        """Inverse of `tensors`."""
        has_copula = any(name.startswith("copula.") for name in tensors)
        own = {kind.name: kind.own(tensors) for kind in PARTS}
        return cls(
            {name: found.pop("coefficients").float() for name, found in own.items()},
            own,
            tensors["mean"],
            tensors["spread"],
            float(tensors["threshold"][0]),
            Copula.from_tensors(tensors) if has_copula else None,
        )


def _features(descriptors: Tensor, mean: Tensor, spread: Tensor) -> Float[Tensor, "n feature"]:
    # beyond three spreads a linear map is no longer to be trusted: hold it there
    standard = ((descriptors - mean) / spread).clamp(-3, 3)
    return torch.cat([torch.ones(len(standard), 1), standard], dim=1)


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
    coefficients: dict[str, Tensor] = {}
    axes = {kind.name: kind.axes(normalisers[0].parts[kind.name]) for kind in PARTS}
    for kind in PARTS:
        parts = [normaliser.parts[kind.name] for normaliser in normalisers]
        targets = [kind.target(part, each.scale) for part, each in zip(parts, normalisers, strict=True)]
        expected = [
            kind.expected(about, axes[kind.name], columns) for about, columns in zip(descriptors, targets, strict=True)
        ]
        target = torch.stack(targets).double() - torch.stack(expected).double()
        shots = torch.stack([part.row_weight() for part in parts]).double()
        weight = shots / (shots + _ENOUGH) + 1e-3
        gram = torch.einsum("nskf,ng->skfg", weight[..., None] * features[:, None, None], features)
        right = torch.einsum("nsk,nf,nskc->skfc", weight, features, target)
        ridge = torch.full((features.shape[1],), _RIDGE[kind.name], dtype=torch.float64)
        ridge[0] = 1e-6  # the mean is free
        solved = torch.linalg.solve(gram + torch.diag(ridge), right)  # (S, K, feature, column)
        coefficients[kind.name] = solved.permute(2, 0, 1, 3).float().contiguous()
    relative = torch.tensor([normaliser.threshold / normaliser.scale for normaliser in normalisers])
    return Hyperprior(coefficients, axes, mean, spread, float(relative.median()), copula)
