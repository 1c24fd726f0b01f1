"""What a subclass of Backbone must and may override, checked when one is built."""

from __future__ import annotations

import inspect
from abc import ABCMeta
from typing import Any

from vlsafe.errors import ConfigError


class Contract(ABCMeta):
    """Metaclass of Backbone: says in plain words what a new architecture lacks, before anything is loaded.

    Raises ConfigError for a class that leaves a required method out, whose methods take other arguments than they are
    called with, or whose ``__init__`` does not call that of its base class.
    """

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        problems = [f"it must have {_described(cls, name)}" for name in sorted(cls.__abstractmethods__)]
        problems += [problem for name in _methods(cls) if (problem := _other_arguments(cls, name))]
        if problems:
            may = ", ".join(name for name in _methods(cls) if name not in _required(cls))
            listed = "\n".join(f"  - {problem}" for problem in problems)
            raise ConfigError(
                f"{cls.__name__} is not a whole Backbone:\n{listed}\n"
                f"It may override, but need not: {may}. docs/new_architecture.md builds one step by step."
            )
        made = super().__call__(*args, **kwargs)
        if "attention" not in vars(made):
            raise ConfigError(
                f"{cls.__name__}.__init__ does not call super().__init__(...), which keeps template, system_prompt, "
                "attention and dtype; call it first"
            )
        return made


def _base(cls: type) -> type:
    """Backbone itself: the last class of this kind among the bases."""
    return [each for each in cls.__mro__ if isinstance(each, Contract)][-1]


def _methods(cls: type) -> list[str]:
    """Names of the public methods of Backbone."""
    return [name for name, part in vars(_base(cls)).items() if inspect.isfunction(part) and not name.startswith("_")]


def _required(cls: type) -> frozenset[str]:
    return _base(cls).__abstractmethods__  # type: ignore[attr-defined]


def _described(cls: type, name: str) -> str:
    method = vars(_base(cls))[name]
    said = (inspect.getdoc(method) or "").split(". ")[0].replace("\n", " ").removesuffix(".")
    return f"{name}{inspect.signature(method)}: {said}".replace("'", "")


def _other_arguments(cls: type, name: str) -> str:
    """What is wrong with the arguments of a method, or an empty string."""
    asked, given = inspect.signature(vars(_base(cls))[name]), inspect.signature(getattr(cls, name))
    try:
        given.bind(*asked.parameters)
    except TypeError:
        return f"{name} takes {given}, but is called with ({', '.join(asked.parameters)})"
    return ""
