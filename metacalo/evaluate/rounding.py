"""How a measured value is written with its error."""

from __future__ import annotations

from math import floor, isfinite, log10

__all__ = ["quoted"]


def quoted(value: float | None, error: float | None = None) -> str:
    """A value and its error, which has one digit, or two if they begin with 1.

    Example:
        >>> quoted(0.12345, 0.0042), quoted(12.3, 1.46), quoted(1234.5, 71.0), quoted(None), quoted(0.5, float("nan"))
        ('0.123(4)', '12.3(15)', '1230(70)', '-', '0.5')
    """
    if value is None:
        return "-"
    if not error or not isfinite(error):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    exponent = floor(log10(error))
    decimals = (1 if error < 1.95 * 10.0**exponent else 0) - exponent
    unit = 10.0**-decimals
    if decimals > 0:
        return f"{value:.{decimals}f}({round(error / unit)})"
    return f"{round(value / unit) * unit:.0f}({round(error / unit) * unit:.0f})"
