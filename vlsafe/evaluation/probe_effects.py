"""What each probe changed: the same items as they are and under the probe, paired."""

from __future__ import annotations

from typing import Any

from vlsafe.evaluation.benchmarks.base import rate
from vlsafe.evaluation.compare import paired
from vlsafe.evaluation.folder import Folder, metric_row
from vlsafe.evaluation.probes import PROBE, PROBE_OF
from vlsafe.evaluation.scoring import outcomes, tallies
from vlsafe.evaluation.tallies import estimate, paired_tally


def probe_effects(folder: Folder) -> list[dict[str, Any]]:
    """``[{probe, metric, plain, probed, difference}]``, by probe: ``metric`` is the full name without the probe,
    ``difference`` the probed value minus the plain one on the same items, in points (the image-blind gap, for
    ``image=none`` and ``image=blank``)."""
    records = (folder.items, folder.responses, folder.verdicts, folder.benchmarks)
    happened, soft = outcomes(*records), tallies(*records)
    by_id = {item.id: item for item in folder.items}
    origin = {item.id: item.meta[PROBE_OF] for item in folder.items if PROBE in item.meta}
    scopes = {by_id[new].scope: (by_id[new].meta[PROBE], by_id[old].scope) for new, old in origin.items()}
    rows = []
    for name in sorted(happened.keys() | soft.keys()):
        scope, _, metric = name.rpartition("/")
        if scope not in scopes:
            continue
        probe, plain_scope = scopes[scope]
        plain = f"{plain_scope}/{metric}"
        row: dict[str, Any] = {"probe": probe, "metric": plain}
        if name in soft:
            row |= {
                "plain": metric_row(estimate(soft[plain])),
                "probed": metric_row(estimate(soft[name])),
                "difference": paired_tally(soft[plain], soft[name]),
            }
        elif happened[name].keys() <= origin.keys():  # a metric over groups of items has no pairs of them
            before = {new: happened[plain][origin[new]] for new in happened[name]}
            row |= {
                "plain": metric_row(rate(before.values())),
                "probed": metric_row(rate(happened[name].values())),
                "difference": paired(before, happened[name]),
            }
        else:
            continue
        rows.append(row)
    return sorted(rows, key=lambda row: (row["probe"], row["metric"]))
