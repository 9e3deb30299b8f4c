"""Which parameters of a generator move to a new detector: named subspaces of all that is not frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from metacalo.models.adapters import ADAPTER_SUFFIXES

__all__ = ["SUBSPACES", "SubspaceName", "in_subspace"]

SubspaceName = Literal[
    "context", "conditioning", "bias", "low-rank", "modulation", "conditioning+bias", "head", "adapters", "full"
]

_HEADS = ("energy_head", "code_heads", "write", "final_modulation")
_NORMS = ("attention_norm", "feedforward_norm", "norm")


def _module(name: str) -> str:
    """Name of the first part below the network: 'dit.write.bias' to 'write'."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _is_context(name: str) -> bool:
    return _last(name) == "embedding"


def _is_low_rank(name: str) -> bool:
    return name.endswith(ADAPTER_SUFFIXES)


def _is_bias(name: str) -> bool:
    return _last(name) == "bias"


def _is_modulation(name: str) -> bool:
    modulates = _last(name) == "offsets" or (_is_bias(name) and _module(name) in {"modulation", "final_modulation"})
    return modulates or name.split(".")[-2:-1] in [[norm] for norm in _NORMS]


def _is_condition(name: str) -> bool:
    return _is_context(name) or _module(name) == "condition"


def _is_shift(name: str) -> bool:
    return _is_context(name) or _is_bias(name) or _last(name) == "offsets"


SUBSPACES: dict[SubspaceName, Callable[[str], bool]] = {
    "context": _is_context,
    "conditioning": _is_condition,
    "bias": lambda name: _is_context(name) or _is_bias(name),
    "low-rank": lambda name: _is_context(name) or _is_low_rank(name),
    "modulation": lambda name: _is_context(name) or _is_modulation(name),
    "conditioning+bias": lambda name: _is_condition(name) or _is_shift(name),
    "head": lambda name: _module(name) in _HEADS,
    "adapters": lambda name: _is_low_rank(name) or _is_shift(name),
    "full": lambda name: True,
}
"""Name to whether a parameter, by its name in the generator, belongs.

context: the detector's embedding (CAVIA, arXiv:1810.03642).
conditioning: it and the network that reads it with energy, angles and descriptors.
bias: biases (BitFit, arXiv:2106.10199). low-rank: the matrices of `LowRankLinear` (LoRA, arXiv:2106.09685).
modulation: what scales and shifts activations: offsets and biases of adaLN, gains of the norms.
head: the layers that write the output (ANIL, arXiv:1909.09157).
conditioning+bias: both, and the offsets of adaLN.
adapters: embedding, low-rank matrices, biases and offsets. full: everything that is not frozen.
"""


def in_subspace(name: str, subspace: SubspaceName) -> bool:
    """Whether the parameter of that name belongs to the subspace."""
    return SUBSPACES[subspace](name)
