"""`metacalo export`: the whole generator in one ONNX or TorchScript file, for programs in C++."""

from __future__ import annotations

from metacalo.export.verb import ExportSettings, export

__all__ = ["ExportSettings", "export"]
