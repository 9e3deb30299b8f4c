"""What stands for an operator gives what the operator gives."""

from __future__ import annotations

import warnings

import pytest
import torch
from scipy.special import erfinv as exact_erfinv
from torch import nn
from torch.nn import functional as F

from metacalo.export.operators import REPLACED, Portable, PortableOperators, erfinv


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CALLS = {
    torch.erfinv: lambda: torch.erfinv(2 * torch.rand(50) - 1),
    torch.special.ndtr: lambda: torch.special.ndtr(3 * drawn(50)),
    torch.bucketize: lambda: torch.bucketize(drawn(3, 9), torch.tensor([-1.0, 0.0, 0.5])),
    torch.searchsorted: lambda: torch.searchsorted(drawn(4, 20).sort(1).values, drawn(4, 1, seed=1), right=True),
    torch.cummax: lambda: torch.cummax(drawn(4, 11), dim=-1).values,
    torch.Tensor.sort: lambda: torch.stack([*drawn(4, 16).sort(dim=-1, descending=True, stable=True)]),
    torch.Tensor.argsort: lambda: drawn(4, 16).argsort(1),
    torch.isfinite: lambda: torch.isfinite(torch.tensor([0.0, torch.inf, -torch.inf, torch.nan])),
    torch.lerp: lambda: torch.lerp(drawn(5, 3), drawn(5, 3, seed=1), torch.rand(5, 1)),
    F.rms_norm: lambda: F.rms_norm(drawn(4, 8), (8,), drawn(8, seed=1)),
    F.scaled_dot_product_attention: lambda: F.scaled_dot_product_attention(
        drawn(2, 2, 1, 4), drawn(2, 2, 7, 4, seed=1), drawn(2, 2, 7, 4, seed=2), attn_mask=(torch.arange(7) < 5)[None]
    ),
    torch.Tensor.__and__: lambda: drawn(50).gt(0) & drawn(50, seed=1).gt(0),
    torch.Tensor.__xor__: lambda: torch.arange(99) ^ 2654435769 * torch.arange(99),
    torch.Tensor.flatten: lambda: drawn(2, 3, 4, 5).flatten(1, 2),
    torch.Tensor.chunk: lambda: torch.stack(drawn(2, 12).chunk(3, dim=-1)),
}


def test_every_replacement_is_tried():
    assert set(CALLS) == set(REPLACED)


@pytest.mark.parametrize("operator", CALLS, ids=lambda operator: operator.__name__)
def test_a_replacement_is_as_good_as_the_operator(operator, monkeypatch):
    torch.manual_seed(3)
    expected = CALLS[operator]()
    called = []
    monkeypatch.setitem(
        REPLACED, operator, lambda *args, _of=REPLACED[operator], **kwargs: called.append(1) or _of(*args, **kwargs)
    )
    torch.manual_seed(3)
    with PortableOperators():
        found = CALLS[operator]()
    assert called
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-6)


def test_erfinv_up_to_the_last_probability_that_is_used():
    x = torch.linspace(-1 + 1.2e-7, 1 - 1.2e-7, 100_000)
    exact = torch.from_numpy(exact_erfinv(x.double().numpy()))
    assert float(((erfinv(x).double() - exact) / exact).abs().max()) < 4e-7


class _Shapes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, length, width = x.shape
        return x.reshape(n, length, 2, -1).flatten(1).reshape(n, width, length)


def test_the_number_of_showers_stays_open_and_no_other_size():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Portable(_Shapes()), (drawn(2, 3, 4),), check_trace=False)
    torch.testing.assert_close(traced(drawn(5, 3, 4)), _Shapes()(drawn(5, 3, 4)))
    graph = traced.inlined_graph  # lives as long as its nodes must
    shapes = [[*node.inputs()][1].node() for node in graph.nodes() if node.kind() == "aten::reshape"]
    sizes = [[size.toIValue() for size in shape.inputs()] for shape in shapes]
    assert sizes == [[-1, 3, 2, 2], [-1, 12], [-1, 4, 3]]
