"""Commands whose options are made from the fields of a settings class: name, type, choices, default, description.

A settings class imports torch, so it is looked up by name, and only when its command is used: `metacalo --help` stays
fast. `command` registers a function; `Commands` completes it when it is called, asked for help or completed by a shell.
"""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperGroup

from metacalo.cli.app import app, warn
from metacalo.cli.help_panels import PANELS
from metacalo.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

__all__ = ["Commands", "Given", "SettingsOptions", "command"]

Given = dict[str, Any]
"""Parameter of a command that receives the settings given on the command line, for `Settings.resolve`."""

_PANEL = "Settings (keys of a --config file as well)"
_OLD = "formerly_"


@dataclass(frozen=True)
class SettingsOptions:
    """Which options a command takes from a settings class.

    Every field of a plain type becomes one, unless the command has a parameter of that name: whole and real numbers,
    texts, choices, switches, and tuples of texts, which may be repeated. Fields of the class itself come before
    inherited ones.

    Attributes:
        source: `module:Class`.
        flags: field to its flags, where they are not `--field-name`.
        tables: table of the settings to those of its fields that are options, too.
    """

    source: str
    flags: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def parameters(self, taken: Sequence[str]) -> list[inspect.Parameter]:
        """The options as parameters of a function, without those whose names are taken."""
        module, name = self.source.split(":")
        settings: type[BaseModel] = getattr(importlib.import_module(module), name)
        make = partial(_parameter, flags=self.flags, in_file="config" in taken)
        found = {name: make(name, settings.model_fields[name]) for name in _own_first(settings)}
        for table, names in self.tables.items():
            fields = _kind(settings.model_fields[table].annotation).model_fields
            found |= {name: make(name, fields[name]) for name in names}
        return [parameter for name, parameter in found.items() if parameter is not None and name not in taken]

    def collected(self, values: Mapping[str, Any]) -> Given:
        """Values by option, sorted into the tables of the settings."""
        table_of = {name: table for table, names in self.tables.items() for name in names}
        given: Given = {}
        for name, value in values.items():
            where = given.setdefault(table_of[name], {}) if name in table_of else given
            where[name] = tuple(value) if isinstance(value, list) else value
        return given

    def keys(self, names: Iterable[str]) -> dict[str, str]:
        """Key of each option in the settings, `table.key` within tables, to its name."""
        prefix = {name: f"{table}." for table, names in self.tables.items() for name in names}
        return {f"{prefix.get(name, '')}{name}": name for name in names}


def command(
    options: SettingsOptions | None = None, *, formerly: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as the command of its name, in the panel that `PANELS` gives it.

    Args:
        options: made from a settings class; the function's parameter `given` receives those that were used.
        formerly: old spelling of an option (`--to`), or `ARGUMENT` that once was positional, to the parameter that it
            now is. Old spellings work, with a warning, and no help shows them.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        name = function.__name__
        panel = next(panel for panel, names in PANELS.items() if name in names)
        add = partial(_with_parameters, function, options, formerly or {})
        app.command(name, rich_help_panel=panel)(add(complete=False))
        _COMPLETE[name] = lambda: add(complete=True)
        return function

    return register


_COMPLETE: dict[str, Callable[[], Callable[..., None]]] = {}


class Commands(TyperGroup):
    """The commands in the order of `PANELS`; one that is used has its options made first."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, in the order of the help."""
        return [name for names in PANELS.values() for name in names if name in self.commands]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name, with all its options, and the arguments left for it."""
        name, found, rest = super().resolve_command(ctx, args)
        if name in _COMPLETE and found is not None:
            alone = typer.Typer(add_completion=False, rich_markup_mode="rich")
            alone.command(name)(_COMPLETE[name]())
            found = typer.main.get_command(alone)
        return name, found, rest


def _with_parameters(
    function: Callable[..., None], options: SettingsOptions | None, formerly: Mapping[str, str], *, complete: bool
) -> Callable[..., None]:
    """The function as typer shall see it: `given` replaced by the options of the settings, old spellings added."""
    hints = get_type_hints(function, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "given"
    ]
    made = options.parameters([parameter.name for parameter in own]) if complete and options else []
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    known = {parameter.name: parameter for parameter in (*own, *made)}
    required = {
        name: _flag(known[name])
        for name in set(formerly.values()) & set(known)
        if known[name].default is inspect.Parameter.empty
    }
    parameters = {
        name: parameter.replace(default=None, annotation=_optional(parameter.annotation, " (required)"))
        if name in required
        else parameter
        for name, parameter in known.items()
    }
    old = {f"{_OLD}{number}": pair for number, pair in enumerate(formerly.items()) if pair[1] in known}
    hidden = [_hidden(name, spelling, known[new]) for name, (spelling, new) in old.items()]

    @wraps(function)
    def run(*, context: typer.Context, **values: Any) -> None:
        from metacalo.runtime.progress import without_bars

        used = {name for name in values if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
        for name, (spelling, new) in old.items():
            if (value := values.pop(name)) is not None:
                warn(f"{spelling} is now {_flag(known[new])}; the old way works for now")
                values[new] = value
                used.add(new)
        for name, flag in required.items():
            if values[name] is None:
                raise ConfigError(f"{flag} is missing; give it")
        given = {parameter.name: values.pop(parameter.name) for parameter in made}
        if options is not None:
            values["given"] = options.collected({name: value for name, value in given.items() if name in used})
        keys = options.keys(given) if options is not None else {}
        flags = {key: _flag(known[name]) for key, name in keys.items() if name in used}
        with without_bars(values.get("quiet", False)), _errors_name_flags(flags):
            function(**values)

    seen = [context, *parameters.values(), *hidden]
    run.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in seen}
    return run


@contextmanager
def _errors_name_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """Names the option in the place of the key, where a value of the command line is wrong."""
    try:
        yield
    except ConfigError as error:
        if error.key not in flags:
            raise
        raise ConfigError(f"{flags[error.key]} {error.problem}", key=error.key, problem=error.problem) from None


def _own_first(settings: type[BaseModel]) -> list[str]:
    """Names of the fields, those of the class itself before those of its bases."""
    order = [name for cls in settings.__mro__ for name in inspect.get_annotations(cls)]
    return list(dict.fromkeys(name for name in order if name in settings.model_fields))


def _kind(annotation: Any) -> Any:
    """The type of a field, without `Annotated` and `None`."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        left = [kind for kind in get_args(annotation) if kind is not type(None)]
        return _kind(left[0]) if len(left) == 1 else None
    return annotation


def _parameter(name: str, info: FieldInfo, flags: Mapping[str, str], *, in_file: bool) -> inspect.Parameter | None:
    """The option of a field, which a --config file may have too; None where the command line cannot hold its type."""
    kind = _kind(info.annotation)
    several = get_origin(kind) is tuple and get_args(kind)[1:] == (...,)
    kind = _kind(get_args(kind)[0]) if several else kind
    choices = [str(choice) for choice in get_args(kind)] if get_origin(kind) is Literal else []
    if choices:
        kind = type(get_args(kind)[0])
    if kind not in {bool, int, float, str}:
        return None
    default = None if info.is_required() else info.get_default(call_default_factory=True)
    help_text = _sentence(info.description or "", choices, several=several)
    if in_file and name in flags and "/" not in flags[name]:
        help_text += f" Key in a --config file: {name}."
    declared = [flags.get(name, f"--{name.replace('_', '-')}")] if name in flags or kind is not bool else []
    option = typer.Option(
        *declared,
        help=help_text,
        metavar="CHOICE" if choices else None,
        autocompletion=_completion(choices) if choices else None,
        rich_help_panel=_PANEL if in_file else "Settings",
    )
    annotation: Any = Annotated[list[kind] if several else kind, option]  # type: ignore[valid-type]
    if several:
        default = list(default) if default else None
    parameter = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    if info.is_required():
        return parameter
    return parameter.replace(default=default, annotation=_optional(annotation) if default is None else annotation)


def _completion(choices: Sequence[str]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return complete


def _sentence(description: str, choices: Sequence[str], *, several: bool) -> str:
    generator_named = description.split(" ")[0].endswith(":")  # `ar: ...` stays small
    text = description if generator_named else f"{description[:1].upper()}{description[1:]}"
    said = [text, f"One of {', '.join(choices)}" if choices else "", "May be repeated" if several else ""]
    return " ".join(f"{part}." for part in said if part)


def _optional(annotation: Any, remark: str = "") -> Any:
    """The type or None, with a remark after the help."""
    kind, info = get_args(annotation)
    info = copy(info)
    if remark:
        info.help = f"{info.help}{remark}"
    return Annotated[kind | None, info]


def _flag(parameter: inspect.Parameter) -> str:
    """How an option or argument is written."""
    info = get_args(parameter.annotation)[1]
    declared = [info.default, *(info.param_decls or ())] if isinstance(info.default, str) else info.param_decls or ()
    return next(iter(declared), f"--{parameter.name.replace('_', '-')}")


def _hidden(name: str, spelling: str, new: inspect.Parameter) -> inspect.Parameter:
    """A parameter that takes what the new one takes, under its old spelling."""
    kind = _kind(new.annotation)
    shown = (
        typer.Option(spelling, hidden=True)
        if spelling.startswith("-")
        else typer.Argument(hidden=True, metavar=spelling)
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, shown]
    )
