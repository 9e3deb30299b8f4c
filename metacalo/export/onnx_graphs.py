"""ONNX graphs of modules.

They are traced, not compiled (`torch.onnx.export(dynamo=True)`): with an open number of showers that takes minutes for
the thousands of operators of a generator, and a trace takes seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from metacalo.export.operators import Portable

__all__ = ["DOMAIN", "onnx_graph"]

DOMAIN = "metacalo"
"""Of operators that stand for something else until a file is written; a module has `own_operator` if it has one."""


def onnx_graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    *,
    opset: int,
    axis: Sequence[int] | None = None,
) -> ModelProto:
    """A module as ONNX, for any number of showers.

    Args:
        module: in evaluation mode.
        example: its inputs, of two showers.
        inputs: names of the inputs.
        outputs: names of the outputs.
        opset: version of ONNX's operators.
        axis: the one of the showers of each input and output; by default the first, -1 = none.
    """
    names = [*inputs, *outputs]
    axes = {name: {at: "n"} for name, at in zip(names, axis or [0] * len(names), strict=True) if at >= 0}
    own = {DOMAIN: 1} if any(getattr(part, "own_operator", False) for part in module.modules()) else None
    buffer = BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # sizes become constants, as they are but for the number of showers; torch announces a newer exporter
        warnings.simplefilter("ignore", category=TracerWarning)
        warnings.simplefilter("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r".*operator 'dropout' is set to train=True")  # which draws noise
        torch.onnx.export(
            Portable(module).eval(),
            example,
            buffer,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=opset,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=axes,
            custom_opsets=own,
        )
    return onnx.load_from_string(buffer.getvalue())
