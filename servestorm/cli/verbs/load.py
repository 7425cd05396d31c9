"""`servestorm load`: Locust with one of our locustfiles or a person's own, bound to loopback."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import loadtests
from servestorm.cli.option_types import AddVerb
from servestorm.errors import StudyError

OURS = ("steady", "bursty")


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "load",
        "generate load with Locust: steady, bursty, or your own locustfile",
        "servestorm load steady --headless --host http://127.0.0.1:8501 --rate 100 --duration 30",
        "servestorm load mine.py --headless -u 10 -t 1m --host http://127.0.0.1:8501",
    )
    parser.add_argument("locustfile", help="steady, bursty, or a path")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="Locust's options and ours; see `load steady --help`")


def run(arguments: argparse.Namespace) -> int:
    """Become Locust; what it exits with is the answer."""
    path = locustfile(arguments.locustfile)
    # Ours, run as programs, are Locust with themselves; and they explain their own options too, which Locust, who
    # answers --help before it reads a locustfile, cannot.
    ours = arguments.locustfile in OURS
    command = [sys.executable, str(path)] if ours else [sys.executable, "-m", "locust", "-f", str(path)]
    # Its web UI and master would listen on every interface, unauthenticated; its own options override these.
    loopback = {"LOCUST_WEB_HOST": "127.0.0.1", "LOCUST_MASTER_BIND_HOST": "127.0.0.1"}
    os.execve(sys.executable, [*command, *arguments.options], {**loopback, **os.environ})


def locustfile(name: str) -> Path:
    """Path of `steady`, `bursty` or a file. Raises StudyError where there is none."""
    path = Path(loadtests.__path__[0]) / f"{name}.py" if name in OURS else Path(name)
    if not path.is_file():
        raise StudyError(f"locustfile {name} does not exist: give {', '.join(OURS)} or the path of a Locust file.")
    return path
