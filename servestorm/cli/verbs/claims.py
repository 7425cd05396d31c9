"""`servestorm claims`: what published comparisons of TensorFlow and PyTorch say, against a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from servestorm.cli.exit_codes import work_begins
from servestorm.cli.option_types import RUN_FORMS, RUNS, AddVerb, name

if TYPE_CHECKING:
    from servestorm.analysis.claims import ClaimCheck
    from servestorm.analysis.results import Results

_NOT_MEASURED = "cannot tell here"


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "claims",
        "hold published claims about TensorFlow and PyTorch against a run",
        "servestorm claims latest",
        "servestorm claims docs/examples/process/results.json --all",
    )
    parser.add_argument("run", type=name, metavar="RUN", help=f"{RUN_FORMS}, or a results.json alone")
    parser.add_argument("--all", action="store_true", help="also list the claims that no question of the run speaks to")


def run(arguments: argparse.Namespace) -> int:
    """Print each claim with its outcome, our ratio and what differs."""
    from servestorm.analysis.claims import check_claims, read_claims
    from servestorm.rundir.run_names import find_run

    path = find_run(arguments.run, RUNS)
    work_begins()
    results, claims = _results(path), read_claims()
    checks = check_claims(results, claims)
    spoken_to = [check for check in checks if check.label]
    for check in spoken_to:
        print("\n".join(_lines(check)) + "\n")
    silent = [check for check in checks if not check.label]
    if arguments.all:
        for check in silent:
            print(f"{_claim(check)}\n  {check.outcome}: {check.reason}\n")
    used = {check.claim.document for check in (checks if arguments.all else spoken_to)}
    for document in (short for short in claims.documents if short in used):
        print(f"{document}: {claims.documents[document]}")
    rest = "" if arguments.all or not silent else f", {len(silent)} have no question here (--all lists them)"
    print(f"{len(checks)} claims: {_counts(spoken_to) or 'none is spoken to'}{rest}.")
    return 0


def _results(path: Path) -> Results:
    """Those of a run directory, computed anew, or of a results.json."""
    from servestorm.analysis.results import compute
    from servestorm.analysis.stored_results import read_results
    from servestorm.rundir.record import read_run

    return read_results(path) if path.is_file() else compute(read_run(path))


def _claim(check: ClaimCheck) -> str:
    claim = check.claim
    about = "about " if claim.approximate else ""
    figures = f"TensorFlow {about}{claim.tensorflow:g} {claim.unit}, PyTorch {about}{claim.pytorch:g} {claim.unit}"
    images = f", {claim.images}" if claim.images else ""
    return f"{claim.document}, {claim.place}: {claim.what}{images}: {figures} (ratio {claim.ratio:.2f})"


def _lines(check: ClaimCheck) -> list[str]:
    ours = "" if check.ratio is None else f", ratio {check.ratio:.2f}"
    if check.interval and check.outcome != _NOT_MEASURED:
        ours += f" ({check.interval[0]:.2f} to {check.interval[1]:.2f})"
    size = f", {check.size}" if check.size else ""
    lines = [_claim(check), f"  {check.outcome}: {check.label}{ours}{size}", f"  {check.reason}"]
    return [*lines, *(f"  differs: {sentence}" for sentence in check.differs)]


def _counts(checks: list[ClaimCheck]) -> str:
    outcomes = [check.outcome for check in checks]
    return ", ".join(f"{outcomes.count(one)} {one}" for one in dict.fromkeys(outcomes))
