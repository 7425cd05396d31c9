"""`servestorm report`: table, report.html and results.json again, from a run directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from servestorm.analysis.results import Results


def run(arguments: argparse.Namespace) -> int:
    """Draw, print the table and the report's path."""
    results = show(arguments.run)
    if arguments.paper:
        from servestorm.report.paper_table import print_paper

        print_paper(results)
    return 0


def show(path: Path) -> Results:
    """Write the report of a run directory and print the table and where the report lies."""
    from servestorm.report.terminal import print_results
    from servestorm.report.write import write_report

    results, report = write_report(path)
    print_results(results)
    print(f"report: {report}")
    return results
