"""Published checkpoints of other layouts, rewritten as Hugging Face directories.

:mod:`~vlsafe.models.conversion.llava` and :mod:`~vlsafe.models.conversion.minigpt` say where each tensor comes from;
:mod:`~vlsafe.models.conversion.plan` checks that key by key before anything is written;
:mod:`~vlsafe.models.conversion.shards` reads and writes, one file at a time.
"""
