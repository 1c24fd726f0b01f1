"""The parser's errors in the words that a person needs."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re

from lightning.pytorch import Trainer

from vlsafe.errors import VlsafeError

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
