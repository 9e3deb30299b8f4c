"""Classifier tests: can a machine distinguish generated showers from Geant4's? An AUC of 0.5 says no, 1 says always.

The protocol is fixed, so that figures can be compared: as many showers of either kind, cut into five folds; three
train, one stops the training, one is tested, and the folds change places until every shower has been tested
once. Two showers with the same energy and angles always share a fold: a classifier that remembers "this energy was
Geant4" would otherwise score below 0.5 against a sample generated at Geant4's own energies.

Scores become probabilities by a logistic curve through those of the fold that stopped the training (Platt 1999), which
leaves the AUC as it is. Then the logarithmic loss measures how much the classifier knows: the Jensen-Shannon divergence
of the two samples is no less than (ln 2 - loss) / ln 2 bits (CaloChallenge, arXiv:2410.21611, section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import nn
from torch.nn import functional

from metacalo.evaluate.metrics import Estimate
from metacalo.showers.shower_file import Showers
from metacalo.typing import FloatArray

__all__ = ["ClassifierTest", "auc_error", "classify_observables", "classify_voxels"]

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Inputs = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Scorer = Callable[[Rows, Rows, Rows], tuple[Array, Array]]

_FOLDS: Final = 5
_FEWEST = 2 * _FOLDS  # showers of either kind
_WIDTH, _BATCH, _RATE, _DECAY = 128, 64, 1e-3, 1e-2
_EPOCHS, _PATIENCE = 40, 8
_TREES, _LEAVES, _TREE_RATE = 150, 15, 0.1
_SMALLEST = 1e-5  # of the mean response: where the logarithm of a voxel begins
_LOG_SCALE = 4.0
_SEEN = 0.2  # of the voxels, in each batch
_LARGEST = 40.0  # of the logits; trees may be certain
_LEAST = 1e-6  # of a probability whose logarithm is taken
_BINS = 10  # of probability, in which predictions are held against what came true


class ClassifierTest(NamedTuple):
    """What a classifier makes of two samples.

    Attributes:
        auc: mean over the folds of the area under the ROC curve, and its standard error.
        jsd: Jensen-Shannon divergence that the calibrated probabilities prove, in bits: 0 for equal samples (or below
            by as much as the classifier is wrong), 1 for disjoint ones.
        calibration: mean difference of the calibrated probabilities from what came true, in ten bins of equal numbers
            of showers, with what chance alone brings as error.
    """

    auc: Estimate
    jsd: Estimate
    calibration: Estimate


_UNKNOWN = ClassifierTest(*[Estimate(float("nan"), float("nan"))] * 3)


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """Standard error of an AUC (Hanley & McNeil 1982, eq. 1).

    Example:
        >>> round(auc_error(0.5, 200, 200), 4)
        0.0289
    """
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positives - 1) * (first - auc**2) + (negatives - 1) * (second - auc**2)
    return float(np.sqrt(max(variance, 0.0) / (positives * negatives)))


def classify_observables(
    reference: Showers,
    reference_features: FloatArray,
    generated: Showers,
    generated_features: FloatArray,
    *,
    seed: int = 0,
    rotations: int = _FOLDS,
) -> ClassifierTest:
    """Boosted trees on the observables, ln E and cos theta.

    Args:
        reference: Geant4 showers, of which only energy and angles are used here.
        reference_features: their observables (N, F), from `Observables.features`.
        generated: generated showers.
        generated_features: their observables (M, F).
        seed: of the cut into folds and of the trees.
        rotations: how many of the five folds are tested; 5 tests every shower.

    Returns:
        NaN with fewer than 10 showers of either kind.
    """
    rows = _balanced(len(reference), len(generated), seed)
    features = np.concatenate([reference_features[rows[0]], generated_features[rows[1]]])
    both = [reference.select(rows[0]), generated.select(rows[1])]
    inputs = np.concatenate([features, _conditions(both)[:, :2]], axis=1)
    label = _labels(both)

    def score(train: Rows, validation: Rows, test: Rows) -> tuple[Array, Array]:
        trees = HistGradientBoostingClassifier(
            learning_rate=_TREE_RATE,
            max_iter=_TREES,
            max_leaf_nodes=_LEAVES,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=seed,
        )
        trees.fit(inputs[train], label[train])
        stages = [p[:, 1] for p in trees.staged_predict_proba(inputs[validation])]
        best = int(np.argmin([log_loss(label[validation], p, labels=[0, 1]) for p in stages]))
        tested = next(islice(trees.staged_predict_proba(inputs[test]), best, None))
        return logit(stages[best]), logit(tested[:, 1])

    return _tested(both, score, seed, rotations)


def classify_voxels(
    reference: Showers, generated: Showers, *, seed: int = 0, rotations: int = _FOLDS
) -> ClassifierTest:
    """A small neural network on all voxels, ln E and cos theta.

    A voxel v enters as log(1 + v / (1e-5 s E)), with the incident energy E and the mean response s, so that the
    scale of a file does not matter. Sums over voxels (response, layers, rings) enter beside them in a branch of their
    own: a thousand showers do not suffice to learn how to add 6,480 voxels up. Arguments and result as for
    `classify_observables`.
    """
    rows = _balanced(len(reference), len(generated), seed)
    both = [reference.select(rows[0]), generated.select(rows[1])]
    label = torch.from_numpy(_labels(both).astype(np.float32))
    showers = np.concatenate([sample.showers for sample in both])
    energy = np.concatenate([sample.energy for sample in both]).astype(np.float64)
    sums, unit = _sums(showers, energy)
    sums = torch.cat([torch.from_numpy(_conditions(both)[:, :2]), sums], dim=1)
    sums = ((sums - sums.mean(dim=0)) / (sums.std(dim=0) + 1e-6)).float()
    voxels = torch.from_numpy(showers.reshape(len(energy), -1))  # a copy of the samples', so it may be changed
    voxels.div_(unit[:, None]).log1p_().div_(_LOG_SCALE)

    def inputs(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return voxels[rows], sums[rows]

    def score(train: Rows, validation: Rows, test: Rows) -> tuple[Array, Array]:
        network = _VoxelNetwork(voxels.shape[1], sums.shape[1])
        _train(network, inputs, label, torch.from_numpy(train), torch.from_numpy(validation))
        found = [_predict(network, inputs, torch.from_numpy(part)).double().numpy() for part in (validation, test)]
        return found[0], found[1]

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _tested(both, score, seed, rotations)


class _VoxelNetwork(nn.Module):
    """Two branches, voxels (n, V) through a narrow layer and sums (n, S), to a logit (n,).

    In training each batch sees a random fifth of the voxels, without which the network learns the showers by heart.
    """

    def __init__(self, n_voxels: int, n_sums: int) -> None:
        super().__init__()
        self.voxels = nn.Linear(n_voxels, 32)
        self.sums = nn.Sequential(nn.Linear(n_sums, _WIDTH), nn.GELU())
        self.head = nn.Sequential(
            nn.Linear(32 + _WIDTH, _WIDTH), nn.GELU(), nn.Dropout(0.2), nn.Linear(_WIDTH, 1), nn.Flatten(0)
        )

    def forward(self, voxels: torch.Tensor, sums: torch.Tensor) -> torch.Tensor:
        weight = self.voxels.weight
        if self.training:
            seen = torch.rand(weight.shape[1]) < _SEEN
            voxels, weight = voxels[:, seen], weight[:, seen] / _SEEN
        hidden = functional.dropout(
            functional.gelu(functional.linear(voxels, weight, self.voxels.bias)), 0.3, self.training
        )
        logit: torch.Tensor = self.head(torch.cat([hidden, self.sums(sums)], dim=1))
        return logit


def _sums(showers: NDArray[np.float32], energy: NDArray[np.float64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Response and logarithmic layer and ring energies, (N, 1 + Z + R), and the unit of the logarithms, (N,), MeV."""
    columns = showers.sum(axis=2, dtype=np.float64) / energy[:, None, None]  # (N, R, Z)
    layers, rings = columns.sum(axis=1), columns.sum(axis=2)
    response = layers.sum(axis=1, keepdims=True)
    smallest = _SMALLEST * (float(response.mean()) or 1.0)
    joined = np.concatenate([response, np.log1p(layers / smallest), np.log1p(rings / smallest)], axis=1)
    return torch.from_numpy(joined), torch.from_numpy((energy * smallest).astype(np.float32))


def _train(
    network: nn.Module, inputs: Inputs, label: torch.Tensor, train: torch.Tensor, validation: torch.Tensor
) -> None:
    """Trains until the validation loss has not fallen for some epochs, and goes back to its lowest."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    objective = nn.BCEWithLogitsLoss()
    best, waited, kept = float("inf"), 0, network.state_dict()
    for _ in range(_EPOCHS):
        network.train()
        for rows in torch.split(train[torch.randperm(len(train))], _BATCH):
            optimizer.zero_grad(set_to_none=True)
            loss = objective(network(*inputs(rows)), label[rows])
            loss.backward()
            optimizer.step()
        found = float(objective(_predict(network, inputs, validation), label[validation]))
        if found < best:
            best, waited, kept = found, 0, {key: value.clone() for key, value in network.state_dict().items()}
        else:
            waited += 1
            if waited == _PATIENCE:
                break
    network.load_state_dict(kept)


@torch.no_grad()
def _predict(network: nn.Module, inputs: Inputs, rows: torch.Tensor) -> torch.Tensor:
    network.eval()
    return torch.cat([network(*inputs(part)) for part in torch.split(rows, 1024)])


def _tested(both: list[Showers], score: Scorer, seed: int, rotations: int) -> ClassifierTest:
    label = _labels(both)
    if min(len(sample) for sample in both) < _FEWEST:
        return _UNKNOWN
    fold = _folds(_conditions(both), np.random.default_rng(seed))
    areas: list[float] = []
    truth: list[Rows] = []
    probability: list[Array] = []
    for turn in range(rotations):
        test, validation = fold == turn, fold == (turn + 1) % _FOLDS
        train = ~(test | validation)
        if min(len(np.unique(label[chosen])) for chosen in (train, validation, test)) < 2:
            continue
        with threadpool_limits(1):  # steps are short: threads mostly wait for each other, for minutes on a busy machine
            stopping, scores = score(np.flatnonzero(train), np.flatnonzero(validation), np.flatnonzero(test))
        areas.append(roc_auc_score(label[test], scores))
        truth.append(label[test])
        probability.append(_calibrated(stopping, label[validation], scores))
    if not areas:
        return _UNKNOWN
    labels, auc = np.concatenate(truth), float(np.mean(areas))
    error = auc_error(auc, len(labels) // 2, len(labels) - len(labels) // 2)
    predicted = np.concatenate(probability)
    return ClassifierTest(Estimate(auc, error), _divergence(predicted, labels), _calibration(predicted, labels))


def _calibrated(stopping: Array, label: Rows, scores: Array) -> Array:
    """Probabilities for the logits `scores`, by a logistic regression on the logits `stopping` of known labels."""
    curve = LogisticRegression(C=1e6).fit(np.clip(stopping, -_LARGEST, _LARGEST)[:, None], label)
    found = curve.predict_proba(np.clip(scores, -_LARGEST, _LARGEST)[:, None])
    return np.asarray(found[:, 1], dtype=np.float64)


def _divergence(probability: Array, truth: Rows) -> Estimate:
    right = np.where(truth == 1, probability, 1 - probability)
    bits = 1 + np.log2(np.maximum(right, _LEAST))
    return Estimate(float(bits.mean()), float(bits.std() / np.sqrt(len(bits))))


def _calibration(probability: Array, truth: Rows) -> Estimate:
    bins = np.array_split(np.argsort(probability, kind="stable"), min(_BINS, len(truth)))
    off = [abs(probability[rows].mean() - truth[rows].mean()) for rows in bins]
    chance = [np.sqrt(2 / np.pi * np.mean(probability[rows] * (1 - probability[rows])) / len(rows)) for rows in bins]
    return Estimate(float(np.mean(off)), float(np.mean(chance)))


def _folds(conditions: NDArray[np.float64], rng: np.random.Generator) -> Rows:
    """Part 0 to 4 of every shower; equal conditions share one, unless there are too few different ones."""
    _, group = np.unique(np.round(conditions, 5), axis=0, return_inverse=True)
    group = group.reshape(-1)
    if group.max() + 1 < len(group) / 4:
        group = np.arange(len(group))
    order = rng.permutation(group.max() + 1)
    return np.asarray(order[group] % _FOLDS, dtype=np.intp)


def _balanced(n_reference: int, n_generated: int, seed: int) -> tuple[Rows, Rows]:
    """As many rows of either sample."""
    rng, n = np.random.default_rng(seed), min(n_reference, n_generated)
    first, second = (np.sort(rng.permutation(m)[:n]) if m > n else np.arange(n) for m in (n_reference, n_generated))
    return first, second


def _conditions(both: list[Showers]) -> NDArray[np.float64]:
    """Ln E (MeV), cos theta and phi (rad), (N, 3)."""
    columns = [np.stack([np.log(s.energy), np.cos(s.theta), s.phi], axis=1) for s in both]
    return np.concatenate(columns).astype(np.float64)


def _labels(both: list[Showers]) -> Rows:
    """0 for the reference, 1 for the generated showers."""
    return np.repeat(np.arange(len(both)), [len(sample) for sample in both])
