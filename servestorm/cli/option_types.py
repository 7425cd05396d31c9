"""Types of command-line options, and options that several verbs have."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

ENGINE_NAMES = ("savedmodel", "torchserve", "tfserving")
DATASET_NAMES = ("digits", "cifar10", "folder", "imagenet-folder", "medmnist", "xray", "synthetic")
NETWORK_NAMES = ("cnn", "resnet50-keras", "resnet50-torchvision", "vgg16", "googlenet", "efficientnet-lite0")

RUNS = Path("runs")
"""Where `servestorm run` puts its runs, and where the ID of a run is looked for."""
RUN_FORMS = "ID of a run in runs/, `latest`, or a run directory"
"""What `servestorm.rundir.run_names.find_run` takes."""

LARGEST_COUNT = 1_000_000
LARGEST_SIDE = 8192
"""Pixels; a square of them is the largest image that is decoded."""
MOST_CORES = 4096
LAST_PORT = 65535

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


def _plain(text: str, what: str) -> str:
    """The text of a number, without what Python's own conversion allows beyond it: other scripts' digits, blanks, _."""
    if not text.isascii() or "_" in text or text.strip() != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return text


def _whole(text: str, what: str) -> int:
    try:
        return int(_plain(text, what))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None


def _between(least: int, most: int, text: str, what: str) -> int:
    value = _whole(text, what)
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def finite(text: str, what: str = "a number") -> float:
    """A number that is neither infinite nor NaN."""
    try:
        value = float(_plain(text, what))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def count(text: str) -> int:
    """A whole number from 1 to a million."""
    what = f"a whole number from 1 to {LARGEST_COUNT:,}"
    return _between(1, LARGEST_COUNT, text, what)


def version(text: str) -> int:
    """A SavedModel's version: TensorFlow Serving reads an int64."""
    what = "a version, a whole number from 1 to 2**63 - 1"
    return _between(1, (1 << 63) - 1, text, what)


def seed(text: str) -> int:
    """A random seed, 0 to 2**31 - 1."""
    what = "a seed, a whole number from 0 to 2147483647"
    return _between(0, (1 << 31) - 1, text, what)


def port(text: str) -> int:
    """A TCP port, 1 to 65535."""
    return _between(1, LAST_PORT, text, f"a port (1 to {LAST_PORT})")


def seconds(text: str) -> float:
    """A time of more than 0 seconds."""
    value = finite(text, "a number of seconds over 0")
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds over 0")
    return value


def tolerance(text: str) -> float:
    """A number between 0 and 1, neither included."""
    what = "a tolerance between 0 and 1, such as 1e-5"
    value = finite(text, what)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def path(text: str) -> Path:
    """A path. An empty one, of a variable that is not set, would be the working directory."""
    if not text.strip() or "\0" in text or not _is_text(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no path")
    return Path(text)


def name(text: str) -> str:
    """A name that is not empty."""
    if not text.strip() or not _is_text(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name")
    return text


def _is_text(text: str) -> bool:
    """Whether it can be written into a file: not the bytes of another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def cpus(text: str) -> tuple[int, ...]:
    """'0,2-3' as (0, 2, 3)."""
    what = "a list of cores such as 0 or 0,2-3"
    cores: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        try:
            begin, end = _whole(first, what), _whole(last or first, what)
        except argparse.ArgumentTypeError:
            begin, end = 1, 0
        if end < begin or end >= MOST_CORES:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        cores.update(range(begin, end + 1))
    return tuple(sorted(cores))


def size(text: str) -> tuple[int, int]:
    """'224x224' as (224, 224): height, width."""
    height, _, width = text.lower().partition("x")
    try:
        sides = count(height), count(width)
    except argparse.ArgumentTypeError:
        sides = (0, 0)
    if not 1 <= min(sides) <= max(sides) <= LARGEST_SIDE:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HEIGHTxWIDTH in pixels, such as 224x224, each from 1 to {LARGEST_SIDE:,}"
        )
    return sides


def numbers(text: str) -> tuple[float, ...]:
    """'0.5,0.5,0.5' as (0.5, 0.5, 0.5)."""
    return tuple(finite(part, "a number of a list such as 0.5,0.5,0.5") for part in text.split(","))


def data_options(parser: argparse.ArgumentParser, of_training: bool = True) -> None:
    """Options that name a data set; with `of_training` False, those of the training stand where they are left out."""
    default = "digits" if of_training else None
    otherwise = "default: digits" if of_training else "default: that of the training"
    parser.add_argument("--dataset", choices=DATASET_NAMES, default=default, help=f"images ({otherwise})")
    parser.add_argument(
        "--data-dir",
        type=path,
        metavar="PATH",
        help="cifar10: folder of its archive; folder, imagenet-folder: a directory with one folder of images a class; "
        "medmnist: an .npz file; xray: a directory with PATIENT/STUDY_positive and PATIENT/STUDY_negative",
    )
    otherwise = "default: 0" if of_training else "default: that of the training"
    parser.add_argument("--seed", type=seed, default=0 if of_training else None, help=f"random seed ({otherwise})")


def models_dir(parser: argparse.ArgumentParser) -> None:
    """The option --out of verbs that make a model directory."""
    parser.add_argument(
        "--out",
        type=path,
        default=Path("build/models"),
        metavar="DIR",
        help="the model directory becomes DIR/NAME (default: build/models)",
    )
