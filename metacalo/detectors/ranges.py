"""Numbers and ranges as people write them: `10`, or `1:100`."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["parse_angles", "parse_range"]

_ROUNDING = 1e-3  # rad, of 3.14 or 6.283 in the place of pi and 2 pi


def parse_range(text: str) -> tuple[float, float]:
    """`'10'` to (10, 10) and `'1:100'` to (1, 100).

    Raises:
        ValueError: not one or two finite numbers, or in the wrong order.
    """
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in {1, 2} or not all(map(math.isfinite, numbers)) or numbers[0] > numbers[-1]:
        message = f"'{text}' is neither a number nor a range such as 1:100"
        raise ValueError(message)
    return numbers[0], numbers[-1]


def parse_angles(axis: Literal["theta", "phi"], text: str) -> tuple[float, float]:
    """A range of angles in rad, theta within [0, pi] and phi within [-2 pi, 2 pi]; rounded ends are held to these.

    Raises:
        ValueError: no range, or one that leaves the limits.

    Example:
        >>> parse_angles("theta", "0:3.1416")[1] == math.pi
        True
    """
    low, high = parse_range(text)
    least, most = (0.0, math.pi) if axis == "theta" else (-2 * math.pi, 2 * math.pi)
    if low < least - _ROUNDING or high > most + _ROUNDING:
        message = f"must lie between {least:.4g} and {most:.4g} rad (degrees?)"
        raise ValueError(message)
    return min(max(low, least), most), min(max(high, least), most)
