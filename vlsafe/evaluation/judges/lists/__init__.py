"""Phrase lists as data: one TOML file each, read by :mod:`vlsafe.evaluation.judges.keyword`."""
