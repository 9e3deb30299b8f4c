"""The prior's loops in ONNX, put together from the graphs of their steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from torch import Tensor, nn

from metacalo.export.onnx_graphs import DOMAIN, onnx_graph
from metacalo.export.sequence import EnergyStep, PatchStep, SequenceSampler, Start

__all__ = ["MarkedSequence", "with_loops"]


class _Mark(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, uniform: Tensor, conditions: Tensor, sampler: SequenceSampler) -> Tensor:
        return torch.zeros_like(uniform, dtype=torch.long)

    @staticmethod
    def symbolic(graph: Any, uniform: Any, conditions: Any, sampler: SequenceSampler) -> Any:
        made = graph.op(f"{DOMAIN}::Sequence", uniform, conditions)
        made.setType(uniform.type().with_dtype(torch.long))
        return made


class MarkedSequence(nn.Module):
    """Stands for a `SequenceSampler` while its surroundings are written: one node, which `with_loops` replaces."""

    own_operator = True

    def __init__(self, sampler: SequenceSampler) -> None:
        super().__init__()
        self.sampler = sampler

    def forward(self, uniform: Tensor, conditions: Tensor) -> Tensor:
        """Codes of the right shape."""
        return _Mark.apply(uniform, conditions, self.sampler)  # type: ignore[no-any-return, no-untyped-call]


def with_loops(model: ModelProto, sampler: SequenceSampler, *, opset: int) -> ModelProto:
    """A model with the prior's loops in the place of the node that `MarkedSequence` left."""
    (mark,) = (node for node in model.graph.node if node.domain == DOMAIN)
    nodes, constants = _sequence(sampler, mark.input[0], mark.input[1], mark.output[0], opset=opset)
    place = list(model.graph.node).index(mark)
    kept = [*model.graph.node[:place], *nodes, *model.graph.node[place + 1 :]]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(constants)
    return model


def _sequence(
    sampler: SequenceSampler, uniform: str, conditions: str, codes: str, *, opset: int
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes that make `codes`, and their constants."""
    prior, start = sampler.prior, Start(sampler.prior)
    example, buffers = torch.rand(2, prior.condition_size), 2 * len(prior.blocks)
    x, buffer = start(example)
    given = (torch.tensor([1]), torch.rand(2, prior.length), x, *[buffer] * buffers)
    begin = onnx_graph(start, (example,), ["conditions"], ["x", "buffer"], opset=opset)
    nodes, constants = _inlined(begin.graph, "start/", {"conditions": conditions})
    carried, drawn = ["start/x", *["start/buffer"] * buffers], []
    for step, name, times in (EnergyStep, "energy", prior.n_energies), (PatchStep, "patch", prior.n_patches):
        kept = ["x", *(f"buffer{number}" for number in range(buffers))]
        body = onnx_graph(
            step(prior, sampler.sampling),
            given,
            ["number", "uniform", *kept],
            ["drawn", *(f"next_{part}" for part in kept)],
            opset=opset,
            axis=(-1, *[0] * (2 * len(kept) + 2)),
        )
        looped, more = _loop(body.graph, name, times, uniform, carried, kept)
        flat = helper.make_node("Transpose", [f"{name}/all"], [f"{name}/rows"], perm=[1, 0, 2])
        nodes += [*looped, flat, helper.make_node("Reshape", [f"{name}/rows", f"{name}/flat"], [f"{name}/sequence"])]
        constants += [*more, helper.make_tensor(f"{name}/flat", TensorProto.INT64, [2], [0, -1])]
        carried = [f"{name}/last_{part}" for part in kept]
        drawn.append(f"{name}/sequence")
    return [*nodes, helper.make_node("Concat", drawn, [codes], axis=1)], constants


def _loop(
    body: GraphProto, name: str, times: int, uniform: str, carried: Sequence[str], kept: Sequence[str]
) -> tuple[list[NodeProto], list[TensorProto]]:
    """A step `times` times, with its constants moved out of it; `carried` goes into its first turn for `kept`."""
    nodes, constants = _inlined(body, f"{name}/", {"uniform": uniform})
    constants += [
        helper.make_tensor(f"{name}/times", TensorProto.INT64, [], [times]),
        helper.make_tensor(f"{name}/go", TensorProto.BOOL, [], [True]),
        helper.make_tensor(f"{name}/axis", TensorProto.INT64, [1], [0]),
    ]
    count = helper.make_node("Unsqueeze", [f"{name}/iteration", f"{name}/axis"], [f"{name}/number"])
    goes_on = helper.make_node("Identity", [f"{name}/going"], [f"{name}/goes_on"])
    values = {value.name: value for value in (*body.input, *body.output)}
    graph = helper.make_graph(
        [count, goes_on, *nodes],
        f"{name} step",
        [
            helper.make_tensor_value_info(f"{name}/iteration", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"{name}/going", TensorProto.BOOL, []),
            *(_renamed(values[part], f"{name}/{part}") for part in kept),
        ],
        [
            helper.make_tensor_value_info(f"{name}/goes_on", TensorProto.BOOL, []),
            *(_renamed(values[f"next_{part}"], f"{name}/next_{part}") for part in kept),
            _renamed(values["drawn"], f"{name}/drawn"),
        ],
    )
    outputs = [*(f"{name}/last_{part}" for part in kept), f"{name}/all"]
    return [helper.make_node("Loop", [f"{name}/times", f"{name}/go", *carried], outputs, body=graph)], constants


def _renamed(value: ValueInfoProto, name: str) -> ValueInfoProto:
    copied = ValueInfoProto()
    copied.CopyFrom(value)
    copied.name = name
    return copied


def _inlined(graph: GraphProto, prefix: str, known: dict[str, str]) -> tuple[list[NodeProto], list[TensorProto]]:
    """Nodes and constants of a graph under names of their own; `known` are those of its inputs and outputs."""

    def named(name: str) -> str:
        return known.get(name, prefix + name) if name else name

    nodes, constants = [], []
    for node in graph.node:
        copied = NodeProto()
        copied.CopyFrom(node)
        copied.name = prefix + node.name
        copied.input[:] = [named(name) for name in node.input]
        copied.output[:] = [named(name) for name in node.output]
        nodes.append(copied)
    for constant in graph.initializer:
        kept = TensorProto()
        kept.CopyFrom(constant)
        kept.name = named(constant.name)
        constants.append(kept)
    return nodes, constants
