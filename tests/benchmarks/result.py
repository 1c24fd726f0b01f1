"""What every benchmark leaves behind, so that ``vlsafe compare OLD.json NEW.json`` can show it over time."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

from vlsafe.environment import git_revision  # noqa: E402


def write(path: Path, benchmark: str, work: dict[str, Any], figures: dict[str, float], **more: Any) -> None:
    """``work``: what must be the same for ``figures`` to be compared; ``more``: every single measurement."""
    made = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "git": git_revision(), "cores": os.cpu_count()}
    told = {"benchmark": benchmark, "work": work, **made, "figures": figures, **more}
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
