"""`servestorm compare`: is NEW worse than OLD, by more than a margin and by more than chance?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from servestorm.cli.exit_codes import INVALID, OBJECTIVE_MISSED, OK
from servestorm.cli.option_types import RUN_FORMS, RUNS, AddVerb, finite, name, path

if TYPE_CHECKING:
    from servestorm.compare.comparison import Comparison


def _percent(text: str) -> float:
    value = finite(text, "a percentage such as 5")
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage such as 5")
    return value


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "compare",
        "check whether one run is worse than another; exit code 1 on a regression",
        "servestorm compare 20261128-101500-quickstart latest",
        "servestorm compare baseline/results.json latest --margin 10 --metric steady.p99 --junit compare.xml",
    )
    parser.add_argument("old", type=name, metavar="OLD", help=f"what to compare with: {RUN_FORMS} or results.json")
    parser.add_argument("new", type=name, metavar="NEW", help="what is judged, named likewise")
    parser.add_argument(
        "--margin", type=_percent, metavar="PERCENT", help="tolerated loss (default: the margin of OLD's plan, or 5)"
    )
    parser.add_argument(
        "--metric",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY",
        help="metrics such as steady.p99 (default: latencies, throughput, failures, capacity, CPU, cold start)",
    )
    parser.add_argument("--junit", type=path, metavar="FILE", help="write JUnit XML for continuous integration")
    parser.add_argument("--markdown", type=path, metavar="FILE", help="write Markdown for a pull request")
    parser.add_argument(
        "--force", action="store_true", help="compare even if model, payload, budget or load differ, and say so"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare, write what is asked for, print the table."""
    from servestorm.analysis.row_keys import refuse_unknown_metrics
    from servestorm.compare.comparison import compare
    from servestorm.compare.junit import junit
    from servestorm.compare.text import markdown, print_comparison
    from servestorm.rundir.run_names import find_run

    refuse_unknown_metrics(arguments.metric)
    old, new = (find_run(name, RUNS) for name in (arguments.old, arguments.new))
    comparison = compare(old, new, margin_percent=arguments.margin, keys=arguments.metric, force=arguments.force)
    if arguments.junit:
        _write(arguments.junit, junit(comparison), "--junit")
    if arguments.markdown:
        _write(arguments.markdown, markdown(comparison), "--markdown")
    print_comparison(comparison)
    return exit_code(comparison)


def exit_code(comparison: Comparison) -> int:
    """1: a regression. 4: a number that NEW lost, or nothing that could be judged. 0 otherwise."""
    if comparison.with_finding("regression"):
        return OBJECTIVE_MISSED
    return INVALID if comparison.with_finding("lost") or not comparison.judged else OK


def _write(path: Path, text: str, option: str) -> None:
    from servestorm.errors import StudyEnvironmentError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StudyEnvironmentError(
            f"{path} cannot be written ({reason}): choose another place with {option}."
        ) from error
