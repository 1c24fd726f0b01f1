"""Guard models as data: one TOML file each, read by :mod:`vlsafe.evaluation.judges.guard_template`."""
