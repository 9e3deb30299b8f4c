"""A detector as JSON can hold it, with the result that was made for it."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from metacalo.detectors.detector import Detector
from metacalo.detectors.grid import Grid
from metacalo.errors import MALFORMED, DetectorError

__all__ = ["detector_of", "record_of"]


def record_of(detector: Detector | None) -> dict[str, Any] | None:
    """Attributes and mesh of a detector, without the cell sizes that were not stated; None of None."""
    if detector is None:
        return None
    left_out = [axis for axis in ("dr_mm", "dz_mm") if isnan(getattr(detector.stated, axis))]
    attributes = {key: value for key, value in detector.to_attributes().items() if key not in left_out}
    return {**attributes, "grid": list(detector.grid.shape)}


def detector_of(record: Mapping[str, Any]) -> Detector:
    """Inverse of `record_of`.

    Raises:
        DetectorError: it describes no detector.
    """
    try:
        n_r, n_phi, n_z = (int(cells) for cells in record["grid"])
    except MALFORMED:
        message = "a detector's record has no 'grid' of three numbers of cells"
        raise DetectorError(message) from None
    found = Detector.from_attributes(record, Grid(n_r, n_phi, n_z), "detector")
    if found is None:
        message = "a detector's record names no active material"
        raise DetectorError(message)
    return found
