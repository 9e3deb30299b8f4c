"""matplotlib on metacalo's own terms: own backend, own settings, and a picture that fails costs nothing else.

matplotlib reads `MPLBACKEND` when it is imported, and refuses to be imported where that names a backend that is not
installed, as in a process that a notebook started. Importing this module imports matplotlib without that variable, and
then sets the backend that it names as matplotlib itself would, if there is one. Packages that draw import it first.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from metacalo.storage.checkpoint import atomic_file
from metacalo.typing import PathLike

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PictureWarning", "drawing", "own_settings", "rendered", "save_picture"]

_DPI: Final = 200
_STYLE: Final = {
    "font.size": 11,
    "font.sans-serif": ["TeX Gyre Heros", "DejaVu Sans"],  # mplhep's own, and matplotlib's own
    "axes.labelsize": 12,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 11,
    "xtick.major.size": 5,
    "xtick.minor.size": 2.5,
    "ytick.major.size": 5,
    "ytick.minor.size": 2.5,
    "xtick.minor.visible": False,  # half of the time of a figure
    "ytick.minor.visible": False,
    "axes.linewidth": 1.0,
    "axes.unicode_minus": True,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "metacalo",  # the same figure, the same file
}


class PictureWarning(UserWarning):
    """A picture could not be drawn; the result that it belongs to is complete without it."""


@contextmanager
def own_settings() -> Iterator[None]:
    """Within it, figures have matplotlib's defaults, the style of CMS (mplhep) and letters for several panels.

    The user's `matplotlibrc` and `rcParams` are ignored, and restored afterwards.
    """
    from matplotlib.style import context
    from mplhep import style

    with context([style.CMS, _STYLE], after_reset=True):
        yield


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """`own_settings` in which an error is a `PictureWarning` that names the picture and the reason, and no error.

    Args:
        name: of the picture, as the warning calls it: `profiles.png`.
    """
    try:
        with own_settings():
            yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"{name} was not drawn ({type(error).__name__}: {reason}); all else is complete"
        warnings.warn(message, PictureWarning, stacklevel=3)


def rendered(figure: Figure, suffix: str, dpi: float = _DPI) -> bytes:
    """The content of a file of `figure`; equal figures have equal files.

    Args:
        figure: to render, within `own_settings`.
        suffix: `png`, `pdf` or `svg`.
        dpi: dots per inch of what is made of dots.
    """
    content = BytesIO()
    dates: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.savefig(content, format=suffix, dpi=dpi, metadata=dates.get(suffix))
    return content.getvalue()


def save_picture(figure: Figure, *paths: PathLike) -> None:
    """Writes `figure` in the format that the name of each path ends in; nothing is written where one fails.

    Raises:
        OutputError: a file cannot be written.
    """
    contents = [rendered(figure, Path(path).suffix.removeprefix(".")) for path in paths]
    for path, content in zip(paths, contents, strict=True):
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)


def _import_matplotlib() -> None:
    if "matplotlib" in sys.modules:
        return
    asked = os.environ.pop("MPLBACKEND", None)
    try:
        matplotlib = importlib.import_module("matplotlib")
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked
    if asked:
        with suppress(ValueError):  # not installed: pyplot says so when the user draws
            matplotlib.rcParams["backend"] = asked


_import_matplotlib()
