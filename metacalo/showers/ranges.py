"""Numbers and ranges as people write them: `10`, or `1:100`."""

from __future__ import annotations

import math

__all__ = ["parse_range"]


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
