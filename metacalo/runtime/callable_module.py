"""Modules that can be called: `metacalo.adapt` is a module, and `metacalo.adapt(...)` calls its function."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["CallableModule", "make_callable"]


class CallableModule(ModuleType):
    """A module named like its main function, which it stands for when it is called.

    A package and a function cannot have the same name beside each other: after `import metacalo.adapt`, the attribute
    `adapt` of `metacalo` is the module, whatever it was before. So the module does what the function does, and it
    makes no difference which of them was imported first.
    """

    __wrapped__: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the function of the module does."""
        return self.__wrapped__(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """Pickled by name, as functions are."""
        return importlib.import_module, (self.__name__,)


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Lets the module of that name be called as `function`, with its signature.

    Example:
        >>> from metacalo import generate
        >>> list(inspect.signature(generate).parameters)[:3]
        ['model', 'out', 'settings']
    """
    module = sys.modules[name]
    module.__class__ = CallableModule
    vars(module).update(__wrapped__=function, __signature__=inspect.signature(function))
