"""Data sets as Conversations. A new source is one file here and its kind in ``SOURCES``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from vlsafe.data.sources.base import Source
from vlsafe.errors import ConfigError
from vlsafe.fetch.paths import resolved
from vlsafe.table import Table

SOURCES = Table(
    "kind of source",
    alpaca="vlsafe.data.sources.alpaca:AlpacaSource",
    easy_vqa="vlsafe.data.sources.easy_vqa:EasyVQASource",
    hub="vlsafe.data.sources.hub:HubSource",
    llava="vlsafe.data.sources.llava:LLaVASource",
    messages="vlsafe.data.sources.messages:MessagesSource",
    vlguard="vlsafe.data.sources.vlguard:VLGuardSource",
)

__all__ = ["SOURCES", "Source", "open_source", "parse_spec"]


def open_source(spec: str | Mapping[str, Any]) -> Source:
    """Open a source named ``kind:path[#split]``, or described as ``{kind: ..., path: ..., **options}`` with the
    options of its class.

    A path may begin with ``cache:``, the name of a fetched asset, and a path inside of it:
    ``vlguard:cache:drawn-safety#train``, ``alpaca:cache:drawn-safety/instructions_train.json``.
    Raises ConfigError for an unknown kind, a missing path or an option that the kind does not take, DataError for data
    that cannot be used.
    """
    options = parse_spec(spec) if isinstance(spec, str) else dict(spec)
    if "kind" not in options:
        raise ConfigError(f"source {spec!r} has no kind; valid kinds: {', '.join(SOURCES)}")
    kind = str(options.pop("kind"))
    source = SOURCES[kind]
    checked = _checked_options(kind, source, options)
    paths = {key: Path(resolved(str(checked[key]))) for key in _paths_of(source) if checked.get(key) is not None}
    return source(**checked | paths)


def _paths_of(source: type[Source]) -> list[str]:
    """Options that take a path. The parser may leave text as it is, where they take text too."""
    hints = get_type_hints(source.__init__)
    return [key for key, hint in hints.items() if Path in (hint, *get_args(hint))]


def parse_spec(spec: str) -> dict[str, str]:
    """``kind:path[#split]`` as the options it stands for. Raises ConfigError when the kind or the path is missing."""
    kind, _, rest = spec.partition(":")
    path, mark, split = rest.rpartition("#")
    options = {"kind": kind, "path": path, "split": split} if mark else {"kind": kind, "path": rest}
    if not all(options.values()):
        raise ConfigError(
            f"source {spec!r} must be written kind:path or kind:path#split; valid kinds: {', '.join(SOURCES)}"
        )
    return options


def _checked_options(kind: str, source: type[Source], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by the names and types of the class's signature, the same rules as for the command line."""
    valid = inspect.signature(source).parameters
    problems = [
        f"source kind {kind!r} takes no {key!r}; its options: {', '.join(valid)}" for key in options if key not in valid
    ]
    if "path" not in options:
        problems.append(f"a source of kind {kind!r} needs a 'path'")
    if problems:
        raise ConfigError(problems)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(source)
    try:
        return parser.parse_object(dict(options)).as_dict()
    except ArgumentError as error:
        raise ConfigError(f"source of kind {kind!r}: {error}") from error
