"""Generators behind an interface as files: ONNX, lean enough to be run as it is, and TorchScript."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from metacalo.errors import MissingExtraError
from metacalo.export.interfaces import Interface
from metacalo.export.sequence import SequenceSampler, scripted

__all__ = ["require_onnx", "write_onnx", "write_torchscript"]


def require_onnx() -> None:
    """Raises `MissingExtraError` where a library that writes ONNX files is not installed."""
    try:
        import onnx  # noqa: F401
        import onnx_ir  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        message = f"ONNX files need {error.name}, which is not installed: pip install 'metacalo[onnx]'"
        raise MissingExtraError(message) from None


def write_onnx(interface: Interface, path: Path, *, opset: int, seed: int | None = None) -> None:
    """Writes an ONNX file that holds its weights.

    Args:
        interface: the generator behind it is made ready for that, and is of no use afterwards.
        path: where to.
        opset: version of ONNX's operators.
        seed: of noise that the run time draws; None = another in every session.
    """
    from metacalo.export.onnx_graphs import onnx_graph
    from metacalo.export.onnx_loops import MarkedSequence, with_loops
    from metacalo.export.onnx_slim import slimmed, with_seed

    sampler = interface.graph.sequence
    if isinstance(sampler, SequenceSampler):
        interface.graph.sequence = MarkedSequence(sampler)
    model = onnx_graph(interface, interface.example(2), interface.inputs, [interface.output], opset=opset)
    if isinstance(sampler, SequenceSampler):
        model = with_loops(model, sampler, opset=opset)
    if seed is not None:
        with_seed(model, seed)
    path.write_bytes(slimmed(model).SerializeToString())


def write_torchscript(interface: Interface, path: Path) -> None:
    """Writes a TorchScript file, for LibTorch; `interface` is of no use afterwards."""
    with torch.no_grad(), warnings.catch_warnings():
        # sizes become constants, which all but the number of showers are; TorchScript is said to be no longer developed
        warnings.simplefilter("ignore", category=TracerWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.\w+` is", category=DeprecationWarning)
        sampler = interface.graph.sequence
        if isinstance(sampler, SequenceSampler):
            interface.graph.sequence = scripted(sampler, _traced)
        module = torch.jit.freeze(_traced(interface.eval(), interface.example(2)))
        torch.jit.save(module, str(path))


def _traced(module: nn.Module, example: tuple[Tensor, ...]) -> nn.Module:
    return torch.jit.trace(module.eval(), example, check_trace=False)  # type: ignore[no-any-return, no-untyped-call]
