"""The parser's errors in the words that a person needs."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pydoc
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from vlsafe.errors import ConfigError, VlsafeError

REFUSALS = (MisconfigurationException, ValueError, TypeError, LookupError, ImportError, OSError)
"""What classes of others raise when their arguments will not do. Anything else is a defect and keeps its traceback."""

# What jsonargparse tells of its own search through union types
_NOISE = re.compile(
    r"\s*(-\s*)?"
    r"(Does not validate against any of the Union|Subtypes:|Errors:|Given value|Expected a <class 'NoneType'>)"
)
_UNKNOWN_KEY = re.compile(r"class_path '([\w.]+)':\s+(?:Option '(\w+)' is not accepted|.*?--[\d.]*init_args\.(\w+))")


def told_by_us(error: BaseException) -> VlsafeError | None:
    """The VlsafeError that a parser or a worker process has wrapped into errors of its own, if there is one."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, VlsafeError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def readable(message: str) -> str:
    """The parser's message without its search through union types, and with the nearest valid key."""
    lines = [line.rstrip() for line in message.splitlines() if line.strip() and not _NOISE.match(line)]
    return "\n".join([*lines[:12], *_nearest(message)])


def _nearest(message: str) -> list[str]:
    unknown = _UNKNOWN_KEY.search(message)
    if unknown:
        module, _, name = unknown[1].rpartition(".")
        valid = list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
        return _did_you_mean(unknown[2] or unknown[3], valid)
    option = re.search(r"--trainer\.(\w+)", message)
    return _did_you_mean(option[1], list(inspect.signature(Trainer).parameters)) if option else []


def _did_you_mean(key: str, valid: list[str]) -> list[str]:
    near = difflib.get_close_matches(key, valid, n=1)
    return [f"Did you mean {near[0]!r}?"] if near else [f"Valid keys: {', '.join(valid)}"]


def refused(error: Exception, made: type, arguments: Mapping[str, Any], config: Namespace) -> ConfigError:
    """The error of a class that ``config`` names, whose constructor did not take ``arguments``: key, class, words."""
    said = str(error) or "no reason given"
    named = [name for name in arguments if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said)]
    places = [key for key, init_args in _places(made, config) if _fits(init_args, arguments)] or [made.__name__]
    keys = [f"{place}.init_args.{named[0]}" if len(named) == 1 else place for place in places]
    return ConfigError(f"{' or '.join(keys)}: {made.__name__} refuses its arguments ({type(error).__name__}): {said}")


def _places(made: type, value: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted key and arguments of every place in a config that names the class ``made``."""
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from _places(made, each, f"{key}[{number}]")
    elif isinstance(value, Namespace):
        held = vars(value)
        if isinstance(held.get("class_path"), str) and pydoc.locate(held["class_path"]) is made:
            yield key, vars(held.get("init_args") or Namespace())
        for name, each in held.items():
            yield from _places(made, each, f"{key}.{name}" if key else name)


def _fits(init_args: Mapping[str, Any], arguments: Mapping[str, Any]) -> bool:
    """Whether an object made with ``arguments`` can come from ``init_args``, where other objects are not built yet."""
    plain = {name: value for name, value in init_args.items() if value is None or isinstance(value, str | int | float)}
    return all(name in arguments and arguments[name] == value for name, value in plain.items())
