"""`servestorm report`: table, report.html and results.json again, from a run directory."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from servestorm.cli.exit_codes import work_begins
from servestorm.cli.option_types import RUN_FORMS, RUNS, AddVerb, name

if TYPE_CHECKING:
    from servestorm.analysis.results import Results


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "report",
        "write report.html and results.json again from a run directory",
        "servestorm report latest",
        "servestorm report 20261128-101500-quickstart --paper",
        "servestorm report baseline/results.json",
    )
    parser.add_argument("run", type=name, metavar="RUN", help=f"{RUN_FORMS}, or a results.json alone")
    parser.add_argument("--paper", action="store_true", help="also a simple table: 3 runs, mean, SD, t, p")


def run(arguments: argparse.Namespace) -> int:
    """Draw, print the table and the report's path."""
    from servestorm.rundir.run_names import find_run

    results = show(find_run(arguments.run, RUNS))
    if arguments.paper:
        from servestorm.report.paper_table import print_paper

        print_paper(results)
    return 0


def show(path: Path) -> Results:
    """Write the report of a run directory and print the table and where the report lies."""
    from servestorm.report.terminal import print_results
    from servestorm.report.write import write_report

    work_begins()
    results, report = write_report(path)
    print_results(results)
    print(f"report: {report}")
    return results
