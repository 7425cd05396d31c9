"""What a million images cost at the capacity that was found, for the report's figure and results.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from servestorm.cost import costs, load_prices
from servestorm.limits import limits_of
from servestorm.rows import Metric

PRICES = "prices.yaml"
"""In a run directory: the price file that its plan names."""


def cost_figures(metrics: Iterable[Metric], study: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """{group: {engine: [servestorm.cost.Cost as a dict, ...]}} of every group that asks for a capacity.

    An engine whose capacity may not be quoted has no cost. Raises StudyError for a broken price file.
    """
    rows = [metric for metric in metrics if metric.scenario == "capacity" and metric.key.endswith(".images_per_s")]
    if not rows:
        return {}
    own = run / PRICES
    prices = load_prices(own if own.is_file() else None)
    # a replica with a limit needs no more of a machine than that
    limit, _ = limits_of(study.get("plan", {}))
    cores = limit or len(study["cores"]["engine"])
    return {
        metric.group: {
            engine: [asdict(cost) for cost in costs(value.value if value.valid else None, cores, prices)]
            for engine, value in metric.values.items()
        }
        for metric in rows
    }
