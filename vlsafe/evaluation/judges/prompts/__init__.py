"""What an endpoint is told to judge, as data: one TOML file each, read by :mod:`vlsafe.evaluation.judges.api`."""
