"""Benchmarks by name. In YAML they are given as ``class_path`` and ``init_args``."""

from __future__ import annotations

from vlsafe.table import Table

BENCHMARKS = Table(
    "benchmark",
    advbench="vlsafe.evaluation.benchmarks.advbench:AdvBench",
    easy_vqa="vlsafe.evaluation.benchmarks.easy_vqa:EasyVQA",
    vlguard="vlsafe.evaluation.benchmarks.vlguard:VLGuard",
    xstest="vlsafe.evaluation.benchmarks.xstest:XSTest",
)
"""Name -> a subclass of :class:`vlsafe.evaluation.benchmarks.base.Benchmark`."""
