"""docs/reference/cli.md: every verb and option, from the parser that reads them.

python -m servestorm.cli.reference > docs/reference/cli.md
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable

from loadtests.options import options_for
from servestorm.cli.main import EXIT_CODES, parser

INTRODUCTION = """\
# The command line

`servestorm VERB --help` prints the same. Options in bold must be given. This page is generated from the code:
`python -m servestorm.cli.reference > docs/reference/cli.md`.
"""
LOCUST = """\
## Options of `steady` and `bursty`

`servestorm load steady` and `servestorm load bursty` accept these beside Locust's own options (`--host`, `--headless`,
`--run-time`, ...). `steady` sends evenly (`--arrivals constant`), `bursty` in bursts (`--arrivals on-off`).
"""
_HEAD = "| option | value | default | meaning |\n| --- | --- | --- | --- |"
_DEFAULT = re.compile(r" ?\(default: ([^()]*)\)$")

_KINDS = {"count": "whole number from 1", "version": "whole number from 1", "seed": "whole number", "port": "port"}


def page() -> str:
    """The whole page, Markdown."""
    codes = re.split(r", (?=\d)", " ".join(EXIT_CODES.split()).removeprefix("exit codes: "))
    rows = [f"| {code} | {meaning} |" for code, meaning in (text.split(" ", 1) for text in codes)]
    exits = "\n".join(["## Exit codes\n\n| code | meaning |\n| --- | --- |", *rows, ""])
    sections = [_verb(name, verb) for name, verb in verbs().items()]
    return "\n".join([INTRODUCTION, exits, *sections, f"{LOCUST}\n{_table(_locust_options())}"])


def verbs() -> dict[str, argparse.ArgumentParser]:
    """Each verb's parser by its name."""
    (chosen,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(chosen.choices)


def _verb(name: str, verb: argparse.ArgumentParser) -> str:
    examples = (verb.epilog or "").removeprefix("examples:").removesuffix(EXIT_CODES).strip().splitlines()
    block = "\n".join(["```console", *(f"$ {line.strip()}" for line in examples), "```", ""])
    options = [action for action in verb._actions if not isinstance(action, argparse._HelpAction)]
    table = [_table(options)] if options else []
    return "\n".join([f"## servestorm {name}\n\n{verb.description}\n", block, *table])


def _locust_options() -> list[argparse.Action]:
    group = argparse.ArgumentParser()
    return [option.add_to(group) for option in options_for("constant")]


def _table(actions: Iterable[argparse.Action]) -> str:
    return "\n".join([_HEAD, *map(_row, actions), ""])


def _row(action: argparse.Action) -> str:
    """An option's row; its default is what its help names, or else the number that it is."""
    name = f"`{', '.join(action.option_strings) or action.metavar or action.dest}`"
    given = action.required and action.nargs != argparse.REMAINDER
    meaning = (action.help or "").replace("|", "\\|")
    default = _DEFAULT.search(meaning)
    number = f"{action.default:g}" if type(action.default) in (int, float) else ""
    shown = default[1] if default else number
    cells = (f"**{name}**" if given else name, _value(action), shown, _DEFAULT.sub("", meaning))
    return f"| {' | '.join(cells)} |"


def _value(action: argparse.Action) -> str:
    if action.choices:
        return " or ".join(f"`{choice}`" for choice in action.choices)
    if action.nargs == 0 or not action.option_strings:
        return ""
    several = " ..." if action.nargs == "+" else ""
    return f"{action.metavar or _kind(action.type)}{several}"


def _kind(kind: object) -> str:
    """What a value without a name of its own is."""
    if kind in (int, float):
        return "whole number" if kind is int else "number"
    return _KINDS.get(getattr(kind, "__name__", ""), "text")


if __name__ == "__main__":
    print(page(), end="")
