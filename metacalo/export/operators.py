"""PyTorch's operators that ONNX has not, or only in recent versions of it, written in those that it has long had."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["REPLACED", "Portable", "PortableOperators", "erfinv"]

# M. Giles, "Approximating the erfinv function", GPU Computing Gems 2 (2011), table of the single-precision version:
# coefficients of w - 2.5 where w < 5 and of sqrt(w) - 3 beyond, w = -ln(1 - x^2), the highest power first
_CENTRE = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503,
           -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
_TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
         0.00943887047, 1.00167406, 2.83297682)  # fmt: skip
_FAR = -1e9  # as good as -inf in a softmax


def erfinv(x: Tensor) -> Tensor:
    """Inverse of the error function, to 4e-7 of its value in single precision."""
    w = -torch.log((1 - x) * (1 + x))
    centre, tail = w - 2.5, torch.sqrt(w) - 3
    inside, outside = centre * _CENTRE[0] + _CENTRE[1], tail * _TAIL[0] + _TAIL[1]
    for of_centre, of_tail in zip(_CENTRE[2:], _TAIL[2:], strict=True):
        inside, outside = inside * centre + of_centre, outside * tail + of_tail
    return torch.where(w < 5, inside, outside) * x


def _ndtr(x: Tensor) -> Tensor:
    return 0.5 * torch.erf(x * 2**-0.5) + 0.5


def _bucketize(value: Tensor, boundaries: Tensor, *, right: bool = False) -> Tensor:
    at = value[..., None]
    return _count(boundaries <= at if right else boundaries < at)


def _searchsorted(sequence: Tensor, value: Tensor, *, right: bool = False) -> Tensor:
    return _bucketize(value, sequence[..., None, :], right=right)


def _count(mask: Tensor) -> Tensor:
    return mask.float().sum(-1).long()


def _cummax(x: Tensor, dim: int) -> torch.return_types.cummax:
    """The largest so far along the last axis, by doubling; nobody asks where it was."""
    assert dim % x.dim() == x.dim() - 1
    reach = 1
    while reach < x.shape[-1]:
        x = torch.cat([x[..., :reach], torch.maximum(x[..., reach:], x[..., :-reach])], dim=-1)
        reach *= 2
    return torch.return_types.cummax((x, x))


def _sort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> torch.return_types.sort:
    """ONNX's TopK is stable by its definition."""
    return torch.return_types.sort(torch.topk(x, x.shape[dim], dim, largest=descending, sorted=True))


def _argsort(x: Tensor, dim: int = -1) -> Tensor:
    return _sort(x, dim).indices


def _isfinite(x: Tensor) -> Tensor:
    return x.abs() < torch.inf


def _lerp(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    return start + weight * (end - start)


def _rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    scaled = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps))
    return scaled if weight is None else scaled * weight


def _attention(
    query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    assert not is_causal
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if attn_mask is not None:
        scores = torch.where(attn_mask, scores, _FAR)
    mixed: Tensor = scores.softmax(-1) @ value
    return mixed


class _Bitwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, name: str) -> Tensor:
        return torch.bitwise_and(a, b) if name == "BitwiseAnd" else torch.bitwise_xor(a, b)

    @staticmethod
    def symbolic(graph: Any, a: Any, b: Any, name: str) -> Any:
        """The operator of ONNX, which PyTorch's exporter does not know of whole numbers."""
        return graph.op(name, a, b)


def _and(a: Tensor, b: Tensor | int) -> Tensor:
    if a.dtype == torch.bool:
        return torch.logical_and(a, torch.as_tensor(b))
    return _Bitwise.apply(a, torch.as_tensor(b), "BitwiseAnd")  # type: ignore[no-any-return, no-untyped-call]


def _xor(a: Tensor, b: Tensor) -> Tensor:
    return _Bitwise.apply(a, b, "BitwiseXor")  # type: ignore[no-any-return, no-untyped-call]


def _flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """With known sizes, wherever the number of showers is not among the sizes that are joined."""
    sizes, end = list(x.shape), end_dim % x.dim()
    if start_dim == 0:
        return x.reshape(-1, *sizes[end + 1 :])
    joined = 1
    for size in sizes[start_dim : end + 1]:
        joined *= size
    return x.reshape(-1, *sizes[1:start_dim], joined, *sizes[end + 1 :])


def _chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    return torch.split(x, x.shape[dim] // chunks, dim)


REPLACED: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.erfinv: erfinv,
    torch.special.ndtr: _ndtr,
    torch.bucketize: _bucketize,
    torch.searchsorted: _searchsorted,
    torch.cummax: _cummax,
    torch.Tensor.sort: _sort,
    torch.Tensor.argsort: _argsort,
    torch.isfinite: _isfinite,
    torch.lerp: _lerp,
    F.rms_norm: _rms_norm,
    F.scaled_dot_product_attention: _attention,
    torch.Tensor.__and__: _and,
    torch.Tensor.__xor__: _xor,
    torch.Tensor.flatten: _flatten,
    torch.Tensor.chunk: _chunk,
}
"""Operator to the function that stands for it."""


class PortableOperators(TorchFunctionMode):
    """Within this context each of `REPLACED` is what stands for it, and sizes are numbers.

    While a module is traced, PyTorch keeps every size as a value of the graph. Only the first, the number of showers,
    is one: where it is asked for in a shape, the shape leaves it open.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """One call of an operator."""
        if func == _SHAPE:
            shape = func(*args)
            return (*shape[:1], *map(int, shape[1:]))
        if func in _RESHAPING:
            sizes = args[1] if isinstance(args[1], tuple | list) else args[1:]
            return func(args[0], _open_first(args[0], sizes))
        if func not in REPLACED:
            return func(*args, **(kwargs or {}))
        with self:
            return REPLACED[func](*args, **(kwargs or {}))


def _open_first(x: Tensor, sizes: Sequence[Any]) -> list[int]:
    """Sizes of a shape with -1 in the place of the number of showers, and a number where -1 was."""
    numbers = [size for size in sizes if not isinstance(size, Tensor) and size != -1]
    if not any(isinstance(size, Tensor) for size in sizes):
        return list(sizes)
    rest = math.prod(map(int, x.shape[1:])) // math.prod(numbers)
    return [-1 if isinstance(size, Tensor) else rest if size == -1 else size for size in sizes]


class Portable(nn.Module):
    """A module whose operators are portable ones."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Tensor) -> Any:
        """What the module makes of them."""
        with PortableOperators():
            return self.module(*inputs)


_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]
_RESHAPING = (torch.Tensor.reshape, torch.reshape, torch.Tensor.view)
