"""Settings: one validated, immutable object per command, loadable from TOML and saved with every result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from metacalo.errors import ConfigError
from metacalo.storage.documents import DocumentError, read_toml

__all__ = ["Device", "Seed", "Settings"]


def _existing_device(device: str) -> str:
    try:
        usable = torch.empty(0, device=device).device.type != "meta"
    except (RuntimeError, AssertionError):
        usable = False
    if not usable:
        message = "this machine has no such device; use 'cpu'"
        raise ValueError(message)
    return device


Device = Annotated[str, AfterValidator(_existing_device), Field(description="cpu, or cuda")]
"""Name of a torch device that this machine has."""

Seed = Annotated[int, Field(ge=0, lt=2**32, description="seed of everything random")]
"""Seed of everything random in a command."""


class Settings(BaseModel):
    """Base of every settings object: frozen, typed, and strict about names.

    Example:
        >>> class Example(Settings):
        ...     steps: int = 10
        >>> Example.build({"steps": 3}).steps
        3
        >>> Example.build({"stepz": 3})
        Traceback (most recent call last):
            ...
        metacalo.errors.ConfigError: settings: unknown key 'stepz'; did you mean 'steps'?
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def build(cls, values: dict[str, Any], source: str = "settings", given: Mapping[str, Any] | None = None) -> Self:
        """Validates `values`; `source` names the file in the error, whose `key` is set where it is one of `given`.

        Raises:
            ConfigError: an unknown key (with the near match), or a value that is out of range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            where, problem = _one_sentence(cls, error)
            message = f"'{where}' {problem}" if where else problem
            key = where if where.split(".")[0] in (given or {}) else ""
            raise ConfigError(f"{source}: {message}", key=key, problem=problem) from None
        except UnicodeEncodeError as error:  # of a command line that is not UTF-8
            raise ConfigError(
                f"{source}: {error.object!r} contains characters that are not valid Unicode; correct them"
            ) from None

    @classmethod
    def from_toml(cls, path: str | Path, *, onto: Mapping[str, Any] | None = None, **overrides: Any) -> Self:
        """Reads a TOML file; `overrides` that are not None win over the file, and the file over the values `onto`.

        Tables are laid over one another key by key.

        Raises:
            ConfigError: the file is missing, is no TOML, or holds a wrong key or value.
        """
        path = Path(path)
        try:
            values = read_toml(path)
        except FileNotFoundError:
            raise ConfigError(f"{path}: there is no such settings file") from None
        except DocumentError as error:
            raise ConfigError(f"{path}: not a readable TOML file ({error})") from None
        given = _given(overrides)
        return cls.build(_laid_over(_laid_over(onto or {}, values), given), source=str(path), given=given)

    @classmethod
    def resolve(cls, path: str | Path | None, *, onto: Mapping[str, Any] | None = None, **overrides: Any) -> Self:
        """Settings from an optional TOML file and command-line overrides (None = not given); see `from_toml`."""
        if path is not None:
            return cls.from_toml(path, onto=onto, **overrides)
        given = _given(overrides)
        return cls.build(_laid_over(onto or {}, given), given=given)


def _given(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides that are not None, in their tables as well."""
    given = {key: _given(value) if isinstance(value, Mapping) else value for key, value in overrides.items()}
    return {key: value for key, value in given.items() if value is not None}


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `above`, and of `below` where `above` has none, table by table."""
    both = {
        key: _laid_over(below[key], value) if isinstance(value, Mapping) and isinstance(below[key], Mapping) else value
        for key, value in above.items()
        if key in below
    }
    return {**below, **above, **both}


def _one_sentence(cls: type[BaseModel], error: ValidationError) -> tuple[str, str]:
    """Key of a known setting, or nothing, and what is wrong."""
    # a misspelt key is reported before the key that is missing because of it
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_keys(cls, first["loc"][:-1])
        near = get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.4)
        hint = f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(sorted(known))})"
        return "", f"unknown key '{where}'{hint}"
    if first["type"] == "missing":
        return where, "is missing; give it"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "literal_error":
        message += _near_literal(str(first["input"]), str(first["ctx"]["expected"]))
    return where, f"= {_short(first['input'])} is not valid: {message}" if where else message


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _near_literal(value: str, expected: str) -> str:
    near = get_close_matches(value, re.findall("'([^']*)'", expected), n=1, cutoff=0.4)
    return f"; did you mean '{near[0]}'?" if near else ""


def _known_keys(cls: type[BaseModel], parents: tuple[int | str, ...]) -> list[str]:
    for part in parents:
        field = cls.model_fields.get(str(part))
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))  # of `Table | None` as well
        tables = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not tables:
            return []
        cls = tables[0]
    return list(cls.model_fields)
