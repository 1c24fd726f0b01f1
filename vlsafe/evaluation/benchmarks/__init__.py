"""Benchmarks by name. In YAML they are given as ``class_path`` and ``init_args``."""

from __future__ import annotations

from vlsafe.table import Table

_HERE = "vlsafe.evaluation.benchmarks"

BENCHMARKS = Table(
    "benchmark",
    advbench=f"{_HERE}.advbench:AdvBench",
    alpaca_eval=f"{_HERE}.open_ended:AlpacaEval",
    easy_vqa=f"{_HERE}.easy_vqa:EasyVQA",
    figstep=f"{_HERE}.figstep:FigStep",
    harmbench=f"{_HERE}.harmbench:HarmBench",
    harmbench_multimodal=f"{_HERE}.harmbench:HarmBenchMultimodal",
    jailbreakv_mini=f"{_HERE}.sets:JailBreakVMini",
    jbb_benign=f"{_HERE}.sets:JBBBenign",
    jbb_harmful=f"{_HERE}.sets:JBBHarmful",
    mm_safetybench=f"{_HERE}.mm_safetybench:MMSafetyBench",
    mm_vet=f"{_HERE}.open_ended:MMVet",
    mmbench=f"{_HERE}.choices:MMBench",
    mme=f"{_HERE}.mme:MME",
    mmlu=f"{_HERE}.choices:MMLU",
    mossbench=f"{_HERE}.sets:MOSSBench",
    mssbench=f"{_HERE}.mssbench:MSSBench",
    pope=f"{_HERE}.pope:POPE",
    scienceqa=f"{_HERE}.choices:ScienceQA",
    siuo=f"{_HERE}.sets:SIUO",
    strongreject=f"{_HERE}.sets:StrongREJECT",
    table=f"{_HERE}.table:TableBenchmark",
    textvqa=f"{_HERE}.vqa:TextVQA",
    vizwiz=f"{_HERE}.vqa:VizWiz",
    vlguard=f"{_HERE}.vlguard:VLGuard",
    vlsbench=f"{_HERE}.sets:VLSBench",
    vqav2=f"{_HERE}.vqa:VQAv2",
    xstest=f"{_HERE}.xstest:XSTest",
)
"""Name -> a subclass of :class:`vlsafe.evaluation.benchmarks.base.Benchmark`."""
