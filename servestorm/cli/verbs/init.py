"""`servestorm init`: writes a plan to change and to run."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from servestorm.cli.option_types import AddVerb, path
from servestorm.errors import StudyEnvironmentError, StudyError
from servestorm.plan.bundled_plans import BUNDLED_PLANS, plan_path


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "init",
        "write a plan that comes with servestorm, to change and to run",
        "servestorm init",
        "servestorm init my-study --plan full",
        "servestorm init --plan attach",
    )
    parser.add_argument(
        "folder",
        type=path,
        nargs="?",
        default=Path(),
        metavar="DIR",
        help="folder of the plan, made where it is missing (default: the current one)",
    )
    parser.add_argument(
        "--plan",
        choices=BUNDLED_PLANS,
        default=BUNDLED_PLANS[0],
        help=f"which one; attach is of endpoints that already run (default: {BUNDLED_PLANS[0]})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write DIR/PLAN.yaml and print what to type next; a file that exists is left alone."""
    target = arguments.folder / f"{arguments.plan}.yaml"
    content = plan_path(arguments.plan).read_bytes()
    try:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(content)
    except FileExistsError as error:
        if not target.exists():
            raise StudyError(f"{arguments.folder} is not a folder: give another DIR.") from error
        raise StudyError(f"{target} exists and is left as it is: give another DIR, or remove it first.") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StudyEnvironmentError(f"{target} cannot be written ({reason}): give another DIR.") from error
    path = shlex.quote(str(target))
    print(f"wrote {target}")
    print(f"next: servestorm run {path} --dry-run    # the runs and the expected time; starts nothing")
    print(f"then: servestorm run {path}")
    return 0
