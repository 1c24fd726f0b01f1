"""Lightning callbacks for runs of vlsafe, named in YAML as ``class_path: callbacks.SafetyProbe``."""

from __future__ import annotations

from callbacks.forgetting import ForgettingProbe
from callbacks.safety_probe import SafetyProbe
from callbacks.throughput import Throughput

__all__ = ["ForgettingProbe", "SafetyProbe", "Throughput"]
