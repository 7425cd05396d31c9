"""Every figure of the results with its definition, as the table of docs/explanation/statistics.md.

    python -m servestorm.analysis.definitions

A test holds the table of the page against this one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from servestorm.analysis.cost import FLEET_COST
from servestorm.analysis.metric import Row
from servestorm.analysis.rows import LOAD_ROWS, PERCENTILE_ROWS
from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES


def table() -> str:
    """The Markdown table: key, what one run's value is, unit, and the module that computes it."""
    head = ["| figure | one run's value | unit | computed in |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *_lines()]) + "\n"


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


def _module(row: Row, scenarios: list[str]) -> str:
    if row in PERCENTILE_ROWS or row in LOAD_ROWS:
        return "analysis/load_numbers.py"
    if row is FLEET_COST:
        return "analysis/cost.py"
    return next(analysis.computed_in for name, analysis in SCENARIO_ANALYSES.items() if name == scenarios[0])


if __name__ == "__main__":
    sys.stdout.write(table())
