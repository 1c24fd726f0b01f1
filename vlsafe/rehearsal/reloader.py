"""The other side of :mod:`vlsafe.rehearsal.reloading`: starts that process, and asks it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vlsafe.errors import VlsafeError

_PATIENCE = 180.0
"""Seconds for its imports, on a busy machine."""


class Reloader:
    """A process with plain transformers and PEFT; a context in which it runs. ``folder`` gets its socket and log."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "reload"
        self.log = folder / "reload.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Reloader:
        script = Path(__file__).with_name("reloading.py")
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script), str(self.address)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def note(self, **job: Any) -> str:
        """What was shown of an export. Raises VlsafeError in its words where it did not come back whole.

        It may be asked by processes that were forked since.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self.address.exists():
            if time.monotonic() > deadline:
                raise VlsafeError(f"the process that reloads models has not started:\n{self._last_words()}")
            time.sleep(0.05)
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(_PATIENCE)
            line.connect(str(self.address))
            with line.makefile("rw", encoding="utf-8") as file:
                file.write(json.dumps(job) + "\n")
                file.flush()
                answer = file.readline()
        if not answer:
            raise VlsafeError(f"the process that reloads models has ended:\n{self._last_words()}")
        told = json.loads(answer)
        if told["error"]:
            raise VlsafeError(told["error"])
        return str(told["note"])

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
