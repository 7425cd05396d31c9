"""Every figure of the results with its definition, as the table of docs/explanation/statistics.md.

    python -m servestorm.analysis.definitions

A test holds the table of the page against this one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

from servestorm.analysis.cost import FLEET_COST
from servestorm.analysis.metric import Row
from servestorm.analysis.rows import (
    FAILED,
    LOAD_ROWS,
    MEAN_LATENCY,
    P99_CLAIM_ROW,
    PERCENTILE_ROWS,
    REQUEST_ROWS,
    THROUGHPUT,
)
from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES

LEFT_OUT: Final = (
    "A figure of a run under load is of the slices of its load that count (whole cycles of a load with bursts, the "
    "slices of a load that took turns, and seconds of any other): left out of all figures are slices in which other "
    "programs or machines took more than the plan's limits and slices of turns that began before the ones before had "
    "drained, and out of a latency also slices in which the load generator's late sends moved that latency by more "
    "than its limit; CPU time is that of the same slices, with their lead-ins, where engines took turns."
)


def table() -> str:
    """The Markdown table: key, what one run's value is, unit, and the module that computes it; and what is left out."""
    head = ["| figure | one run's value | unit | computed in |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *_lines(), "", LEFT_OUT]) + "\n"


def _lines() -> Iterator[str]:
    for row, scenarios in _rows().items():
        keys = ", ".join(f"`{scenario}.{row.name}`" for scenario in scenarios)
        yield f"| {keys} | {row.definition} | {row.unit} | `{_module(row, scenarios)}` |"


def _rows() -> dict[Row, list[str]]:
    """Every row, with the scenarios that have it."""
    rows: dict[Row, list[str]] = {}
    for scenario, analysis in SCENARIO_ANALYSES.items():
        for row in analysis.defined_rows():
            rows.setdefault(row, []).append(scenario)
    return rows


_RUN_FIGURES: Final = (
    *(row.name for row in (*PERCENTILE_ROWS, *REQUEST_ROWS, MEAN_LATENCY, THROUGHPUT, FAILED)),
    "cpu_ms_per_image",
)


def _module(row: Row, scenarios: list[str]) -> str:
    if row in (*PERCENTILE_ROWS, *LOAD_ROWS, P99_CLAIM_ROW):
        return "methods/run_figures.py" if row.name in _RUN_FIGURES else "analysis/load_numbers.py"
    if row is FLEET_COST:
        return "analysis/cost.py"
    return next(analysis.computed_in for name, analysis in SCENARIO_ANALYSES.items() if name == scenarios[0])


if __name__ == "__main__":
    sys.stdout.write(table())
