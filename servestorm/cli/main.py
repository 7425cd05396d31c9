"""The command line: a table of verbs. Import-light: a verb imports what it works with when it runs."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import Protocol

from servestorm import __version__
from servestorm.cli.exit_codes import USAGE, guard
from servestorm.cli.option_types import AddVerb, Parser
from servestorm.cli.verbs import (
    claims,
    clean,
    compare,
    doctor,
    export,
    image,
    import_,
    init,
    load,
    report,
    run,
    schedule,
    serve,
    train,
    wait,
)

EXIT_CODES = """\
exit codes: 0 fine, 1 an objective missed or a regression, 2 usage,
3 environment (says what to install), 4 INVALID, DISTURBED or inconclusive,
70 a bug of ours, 130 interrupted"""

FIRST_STEPS = """\
servestorm: give a VERB. The first ones:

  servestorm doctor          list what is installed and what is missing
  servestorm run             the default study, in about 6 minutes: two servers, one model, a report
  servestorm init            write that study's plan, to change it
  servestorm report latest   the last study's table and report again

`servestorm --help` lists every verb, `servestorm VERB --help` its options with examples.
"""


class Verb(Protocol):
    """A module of `verbs/`."""

    def add_options(self, add: AddVerb) -> None:
        """Declare the verb and its options."""

    def run(self, arguments: argparse.Namespace, /) -> int:
        """Carry it out; returns the exit code."""


VERBS: dict[str, Verb] = {
    "init": init,
    "train": train,
    "export": export,
    "import": import_,
    "image": image,
    "serve": serve,
    "wait": wait,
    "run": run,
    "report": report,
    "compare": compare,
    "claims": claims,
    "load": load,
    "schedule": schedule,
    "doctor": doctor,
    "clean": clean,
}


def parser() -> argparse.ArgumentParser:
    """The whole command line, every option with its unit."""
    top = Parser(
        prog="servestorm",
        description="Which server serves your image model better, and is the difference real?",
        epilog=EXIT_CODES,
    )
    top.add_argument("--version", action="version", version=f"servestorm {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    def add(name: str, text: str, *examples: str) -> argparse.ArgumentParser:
        description = text[0].upper() + text[1:] + "."
        epilog = "\n  ".join(["examples:", *examples]) + f"\n\n{EXIT_CODES}"
        return verbs.add_parser(name, help=text, description=description, epilog=epilog)

    for verb in VERBS.values():
        verb.add_options(add)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code. argparse's own errors exit with 2."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # not every terminal has the characters of a plot
    if not (sys.argv[1:] if argv is None else argv):
        sys.stderr.write(FIRST_STEPS)
        return USAGE
    arguments = parser().parse_args(argv)
    return guard(lambda: _carry_out(arguments))


def _carry_out(arguments: argparse.Namespace) -> int:
    """The verb, after what an earlier, killed command left running was ended; `clean` tells what it ends itself."""
    from serving.orphans import reap_orphans

    if arguments.verb != "clean" and (ended := reap_orphans()):
        what = "process" if ended == 1 else "processes"
        sys.stderr.write(f"servestorm: ended {ended} {what} that an earlier, killed command had left.\n")
    return VERBS[arguments.verb].run(arguments)


if __name__ == "__main__":
    sys.exit(main())
