"""Few-shot adaptation of meta-trained transformer generators of calorimeter showers."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("metacalo")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0.1.0"

__all__ = ["__version__"]
