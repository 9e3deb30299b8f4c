"""ONNX models without what can be done before they are run, for programs that run them as they are."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnx_ir
import onnxruntime
from onnx import ModelProto
from onnx_ir.passes import Sequential, common

__all__ = ["slimmed", "with_seed"]

_SEEDS: dict[str, type[float] | type[int]] = {"RandomNormal": float, "RandomNormalLike": float, "Dropout": int}
"""Type of the seed of each operator that draws."""
_ERRORS = 3  # the least that the run time reports
_LARGEST_TENSOR = 2**28  # bytes


def slimmed(model: ModelProto) -> ModelProto:
    """The same function: what does not depend on the inputs is computed, and equal constants are kept once.

    The run time's own basic optimisations do the former; they leave standard operators.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder, "basic.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.log_severity_level = _ERRORS
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        basic = onnx_ir.from_proto(onnx.load(path))
    passes = Sequential(
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateHashedInitializersPass(size_limit=_LARGEST_TENSOR),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
    )
    lean: ModelProto = onnx_ir.to_proto(passes(basic).model)
    return lean


def with_seed(model: ModelProto, seed: int) -> None:
    """Makes the noise that the run time draws the same in every session, in place."""
    drawing = [node for node in model.graph.node if node.op_type in _SEEDS]
    for number, node in enumerate(drawing):
        node.attribute.append(onnx.helper.make_attribute("seed", _SEEDS[node.op_type](seed + number)))
