"""Damage done to what is well formed: to bytes, and to values of JSON and TOML."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np

__all__ = ["HOSTILE_NAMES", "HOSTILE_TEXTS", "mutate_bytes", "mutate_value"]

HOSTILE_NAMES: Final = (
    "../../etc",
    "../../../../../../etc/passwd",
    "/dev/zero",
    "..",
    ".",
    "",
    "a\0b",
    "x" * 5000,
    "\x1b[2J\x1b]0;title\x07",
    "two\nlines",
    "ar/../../x",
    "-rf",
    "\udcff",
    "${HOME}",
    "[bold]x[/bold][/]",
    "\u202e\u0000",
)
"""Texts where a name is expected: of a task, a base, a generator, a group, a material."""

_NUMBERS: Final = (
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    10**30,
    -(10**12),
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    1e-320,
    0.5,
)
_OTHERS: Final[tuple[Any, ...]] = (None, True, False, [], {}, "", [[]], {"a": 1}, ["x"] * 50, "64", "NaN", [1, "a"])

HOSTILE_TEXTS: Final[tuple[Callable[[str], bytes], ...]] = (
    lambda _: b"[" * 100_000,
    lambda _: b'{"a":' * 100_000,
    lambda _: b"a = " + b"[" * 50_000,
    lambda _: b"a = " + b"{a=" * 3_000,
    lambda _: b".".join([b"a"] * 20_000) + b" = 1",
    lambda _: b'{"kind": "adapted", "format": 3, "version": ' + b"9" * 100_000 + b"}",
    lambda _: b"steps = " + b"9" * 100_000,
    lambda _: b"steps = 1_" * 3,
    lambda _: b"\xef\xbb\xbf{}",
    lambda _: b"",
    lambda _: b"null",
    lambda _: b"[1, 2]",
    lambda _: b'"text"',
    lambda _: b"NaN",
    lambda text: b"\xef\xbb\xbf" + text.encode(),
    lambda text: text.encode("utf-16"),
    lambda text: b"\xff\xfe" + text.encode(),
    lambda text: text.encode() + b"\xc3\x28",
    lambda text: text.encode() * 2,
    lambda text: text.encode().replace(b'"', b"'", 1),
    lambda text: text.encode().replace(b"1", b"1e999999"),
    lambda text: text.encode().replace(b"{", b'{"kind": "base", "kind": "adapted",', 1),
    lambda _: b"\0" * 1000,
    lambda text: text.encode() + b"\n" * 20_000_000,
)
"""Texts in the place of a JSON or TOML file, some of them made of the right one."""


def mutate_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Content with a few bytes flipped, overwritten, cut, repeated or inserted."""
    data = bytearray(content)
    for _ in range(int(rng.geometric(0.4))):
        if not data:
            break
        kind, at = int(rng.integers(8)), int(rng.integers(len(data)))
        length = min(int(rng.geometric(0.1)), len(data) - at)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at : at + length] = rng.bytes(length)
        elif kind == 2:
            data[at : at + length] = bytes([int(rng.choice([0, 0xFF, 0x7F, 0x80]))]) * length
        elif kind == 3 and rng.random() < 0.3:
            del data[at:]
        elif kind == 4:
            del data[at : at + length]
        elif kind == 5:
            data[at:at] = data[at : at + length]
        elif kind == 6:  # sizes and offsets of eight bytes
            at -= at % 8
            data[at : at + 8] = int(rng.choice([0, 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1])).to_bytes(8, "little")
        else:  # another place of the file
            other = int(rng.integers(len(data)))
            data[at : at + length] = data[other : other + length]
    return bytes(data)


def mutate_value(value: Any, rng: np.random.Generator) -> Any:
    """A JSON value with one of its parts replaced, removed, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = list(value)[int(rng.integers(len(value)))]
        changed = dict(value)
        kind = rng.random()
        if kind < 0.7:
            changed[key] = mutate_value(value[key], rng)
        elif kind < 0.85:
            del changed[key]
        else:
            changed[_any_name(rng)] = changed.pop(key)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = int(rng.integers(len(value)))
        kind = rng.random()
        if kind < 0.6:
            return [*value[:place], mutate_value(value[place], rng), *value[place + 1 :]]
        return value[:place] + value[place + 1 :] if kind < 0.8 else value * int(rng.choice([2, 3, 1000]))
    kind = rng.random()
    if kind < 0.4:
        return _NUMBERS[int(rng.integers(len(_NUMBERS)))]
    if kind < 0.7:
        return _any_name(rng)
    if kind < 0.8 and isinstance(value, int | float):
        return json.loads(json.dumps(value * float(rng.choice([2, 1000, -1, 0.1]))))
    return _OTHERS[int(rng.integers(len(_OTHERS)))]


def _any_name(rng: np.random.Generator) -> str:
    return HOSTILE_NAMES[int(rng.integers(len(HOSTILE_NAMES)))]
