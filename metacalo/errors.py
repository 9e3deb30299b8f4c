"""Every error that a user can cause, each with a message of one sentence.

The command line prints the sentence and exits with code 2; a library user catches `MetacaloError`.
A message says what is wrong, the value received, what is allowed and how to mend it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Self

__all__ = [
    "MALFORMED",
    "UNREADABLE",
    "BaseMismatchError",
    "ConfigError",
    "DataSetError",
    "DetectorError",
    "HubError",
    "MetacaloError",
    "MissingExtraError",
    "ModelFolderError",
    "OutputError",
    "RankError",
    "ShowerFileError",
    "SimulationError",
    "UnknownNameError",
]

_FULL: Final = {
    errno.ENOSPC: "no space left on the device; free some",
    errno.EDQUOT: "your quota on the disk is used up; free some",
    errno.EFBIG: "the file would be larger than files may be here; raise the limit (ulimit -f)",
}


MALFORMED: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RuntimeError)
"""What Python, numpy and torch raise where data that were read do not have the form that the code expects."""

UNREADABLE: Final = (OSError, *MALFORMED)
"""What the libraries of file formats raise where a file is damaged or the disk refuses."""


class MetacaloError(Exception):
    """Base of all errors that metacalo raises for bad input."""


class ConfigError(MetacaloError):
    """A setting is unknown, out of range or contradicts another one.

    Attributes:
        key: of the setting whose value is wrong, `table.key` within tables; empty where it is not one of those that
            the caller gave beside a file.
        problem: what is wrong, after the key.
    """

    def __init__(self, message: str = "", *, key: str = "", problem: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.problem = problem


class ShowerFileError(MetacaloError):
    """A shower file cannot be read, or holds showers that cannot be right."""


class DetectorError(MetacaloError):
    """A detector description is incomplete or names an unknown material."""


class ModelFolderError(MetacaloError):
    """A model folder is missing, incomplete or of another format version."""


class BaseMismatchError(ModelFolderError):
    """An adapted model was made from another base than the one found."""


class MissingExtraError(MetacaloError):
    """Something optional was asked for that is not installed; the sentence has the line that installs it."""


class HubError(MetacaloError):
    """A repository of models cannot be reached, read or written."""


class OutputError(MetacaloError):
    """A result cannot be written where it was asked for."""

    @classmethod
    def refused(cls, path: Path, error: OSError) -> Self:
        """The sentence for a result that the system did not let be written."""
        found = next((number for number in _FULL if number == error.errno or f"errno = {number}," in str(error)), None)
        if found is not None:  # HDF5 gives the number only within its message
            return cls(f"{path}: {_FULL[found]} and run again (nothing was changed)")
        reason = error.strerror or error
        return cls(f"{path}: cannot be written ({reason}); choose a place with --out that you may write to")


class RankError(MetacaloError):
    """One of several processes that train together has failed, or has lost the others.

    Attributes:
        reported: whether another process reports it.
    """

    def __init__(self, message: str, *, reported: bool = False) -> None:
        super().__init__(message)
        self.reported = reported


class DataSetError(MetacaloError):
    """Geant4's data are not on this machine, or have nothing on an element; the sentence says where to get them."""


class SimulationError(MetacaloError):
    """Geant4 stopped within a simulation."""


class UnknownNameError(MetacaloError):
    """A task, base, generator or other name is not known."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        listed = ", ".join(known) if known else "none"
        super().__init__(f"unknown {kind} '{name}' (known: {listed}){hint}")
        self.kind, self.name, self.known = kind, name, known
