"""Types of command-line options, and options that several verbs have."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

ENGINE_NAMES = ("savedmodel", "torchserve", "tfserving")
DATASET_NAMES = ("digits", "cifar10", "folder")

RUNS = Path("runs")
"""Where `servestorm run` puts its runs, and where the ID of a run is looked for."""
RUN_FORMS = "ID of a run in runs/, `latest`, or a run directory"
"""What `servestorm.rundir.run_names.find_run` takes."""

AddVerb = Callable[..., argparse.ArgumentParser]
"""Adds a verb to the command line: (name, what it does, *example commands) -> the parser for its options."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Wraps descriptions, and leaves the lines of an epilog (examples, exit codes) alone."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        raw = "\n" in text
        return (
            super()._fill_text(text, width, indent)
            if raw
            else argparse.HelpFormatter._fill_text(self, text, width, indent)
        )


class Parser(argparse.ArgumentParser):
    """Errors in one line with the remedy, no guessing of abbreviated options, and the epilog as it is written."""

    def __init__(self, **options: object) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)  # type: ignore[arg-type]

    def error(self, message: str) -> None:  # type: ignore[override]
        """One line, and where to read on; exit code 2."""
        self.exit(2, f"{self.prog}: {message}\nTry `{self.prog} --help`.\n")


def count(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value


def port(text: str) -> int:
    """A TCP port, 1 to 65535."""
    value = int(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port (1 to 65535)")
    return value


def seconds(text: str) -> float:
    """A time of more than 0 seconds."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds over 0")
    return value


def cpus(text: str) -> tuple[int, ...]:
    """'0,2-3' as (0, 2, 3)."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            cpus.update(range(int(first), int(last or first) + 1))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of cores such as 0 or 0,2-3") from None
    if not cpus:
        raise argparse.ArgumentTypeError(f"{text!r} names no core")
    return tuple(sorted(cpus))


def size(text: str) -> tuple[int, int]:
    """'224x224' as (224, 224): height, width."""
    height, _, width = text.lower().partition("x")
    try:
        return count(height), count(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH in pixels, such as 224x224") from None


def numbers(text: str) -> tuple[float, ...]:
    """'0.5,0.5,0.5' as (0.5, 0.5, 0.5)."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0.5,0.5,0.5") from None


def data_options(parser: argparse.ArgumentParser) -> None:
    """Options that name a data set."""
    parser.add_argument("--dataset", choices=DATASET_NAMES, default="digits", help="images (default: digits)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        metavar="DIR",
        help="cifar10: folder of its archive; folder: a directory with one folder of images a class",
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def models_dir(parser: argparse.ArgumentParser) -> None:
    """The option --out of verbs that make a model directory."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/models"),
        metavar="DIR",
        help="the model directory becomes DIR/NAME (default: build/models)",
    )
