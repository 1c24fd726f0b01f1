"""The tiny run's config, as tests/runs has it."""

from __future__ import annotations

from tests.runs.conftest import config

__all__ = ["config"]
