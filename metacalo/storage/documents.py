"""Small JSON and TOML files, read as untrusted input.

A document is a regular file of bounded size: a pipe that nobody writes to, a device without an end or a nesting without
a bottom must not stop the program or fill its memory.
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, Final

__all__ = ["LARGEST", "DocumentError", "parse_json", "read_json", "read_toml"]

LARGEST: Final = 16 * 2**20
"""Bytes that a document may have."""

_LARGEST_TOML: Final = 2**18
_MOST_DOTS: Final = 100  # of keys within keys, for which tomllib takes time that grows with the square


class DocumentError(ValueError):
    """A document cannot be read; the message is the reason, without the file's name."""


def _text(path: Path) -> str:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            message = "it is no regular file"
            raise DocumentError(message)
        if found.st_size > LARGEST:
            message = f"it has {found.st_size:,} bytes, at most {LARGEST:,} are read"
            raise DocumentError(message)
        with path.open("rb") as file:
            content = file.read(LARGEST)
        return content.decode("utf-8")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError as error:
        message = f"it is no UTF-8 text, from byte {error.start} on"
        raise DocumentError(message) from None
    except (OSError, ValueError) as error:
        raise DocumentError(str(error)) from None


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        DocumentError: it is no JSON, nested too deeply, or an object has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        message = "it is nested too deeply"
        raise DocumentError(message) from None
    except ValueError as error:
        raise DocumentError(str(error)) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        message = f"key {next(key for key in keys if keys.count(key) > 1)!r} comes twice"
        raise DocumentError(message)
    return found


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        DocumentError: it is no regular file, too large, no UTF-8, or see `parse_json`.
    """
    return parse_json(_text(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        FileNotFoundError: there is no such file.
        DocumentError: it is no regular file, too large, no UTF-8, no TOML, or nested too deeply.
    """
    text = _text(path)
    bare = re.sub(r""""[^"\n]*"|'[^'\n]*'""", "", text)
    if len(text) > _LARGEST_TOML or any(line.count(".") > _MOST_DOTS for line in bare.splitlines()):
        message = f"it has more than {_LARGEST_TOML:,} letters, or more than {_MOST_DOTS} dots in a line"
        raise DocumentError(message)
    try:
        return tomllib.loads(text)
    except RecursionError:
        message = "it is nested too deeply"
        raise DocumentError(message) from None
    except ValueError as error:
        raise DocumentError(str(error)) from None
