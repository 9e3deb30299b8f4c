"""Few-shot adaptation of meta-trained transformer generators of calorimeter showers.

`from metacalo import adapt, generate, evaluate, load_model` is all that a notebook needs. The first three are modules
that can be called (`runtime.callable_module`), so that `from metacalo.adapt import AdaptSettings` works beside them.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metacalo.adapt import adapt
    from metacalo.evaluate import evaluate_files as evaluate
    from metacalo.generate import generate
    from metacalo.model_folders.adapted import load_model

try:
    __version__ = version("metacalo")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0.1.0"

__all__ = ["__version__", "adapt", "evaluate", "generate", "load_model"]


def __getattr__(name: str) -> Any:
    """Loads what is asked for when it is asked for: torch takes seconds, and `metacalo --help` does without."""
    if name in {"adapt", "evaluate", "generate"}:
        return import_module(f"metacalo.{name}")
    if name == "load_model":
        return import_module("metacalo.model_folders.adapted").load_model
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
