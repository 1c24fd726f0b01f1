"""A callback for ``start.py``: says when the first optimizer step was done, and ends the run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L


class FirstStep(L.Callback):
    """Writes the time of day and the processor time used so far, in seconds, into ``path``."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_batch_end(self, *_: Any) -> None:
        if not self.path.exists():
            self.path.write_text(f"{time.time()} {time.process_time()}")
