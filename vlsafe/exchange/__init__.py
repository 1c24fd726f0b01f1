"""Answers in the logs of other tools: ours written as theirs, theirs judged and compared as ours."""

from __future__ import annotations

from vlsafe.table import Table

LOG = "log"
"""Key in the ``meta`` of an Item that another tool asked: that tool's name."""

EXPORTS = Table(
    "log format",
    **{"inspect": "vlsafe.exchange.inspect_log:write", "lmms-eval": "vlsafe.exchange.lmms_eval:write"},
)
"""Name -> ``write(folder, out) -> files``: an evaluation as that tool's log."""

IMPORTS = Table("log format", **{"lmms-eval": "vlsafe.exchange.lmms_eval:read"})
"""Name -> ``read(file, benchmark, side) -> (items, responses)``."""
