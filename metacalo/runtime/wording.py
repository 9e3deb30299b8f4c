"""Numbers and ranges in sentences, tables and figures."""

from __future__ import annotations

from math import isfinite

__all__ = ["counted", "ranged"]


def counted(number: int, noun: str) -> str:
    """The number and the noun, in the plural unless it is one.

    Example:
        >>> counted(1, "shower"), counted(1200, "shower")
        ('1 shower', '1,200 showers')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def ranged(low: float, high: float, unit: str = "", *, between: str = " to ", digits: int = 3) -> str:
    """A range with its unit; one number where both ends read the same.

    Args:
        low: least value.
        high: greatest value.
        unit: of both, written once.
        between: written between the ends.
        digits: that count of each.

    Example:
        >>> ranged(1.0, 99.96, "GeV"), ranged(10.0, 10.001, "GeV"), ranged(float("nan"), float("nan"), "rad")
        ('1 to 100 GeV', '10 GeV', 'no finite value')
    """
    if not (isfinite(low) and isfinite(high)):
        return "no finite value"
    first, last = (f"{float(f'{value:.{digits}g}'):g}" for value in (low, high))
    text = first if first == last else f"{first}{between}{last}"
    return f"{text} {unit}" if unit else text
