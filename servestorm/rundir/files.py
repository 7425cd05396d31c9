"""The files of a run directory: their names, and how each is written whole or not at all."""

from __future__ import annotations

import datetime
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import JsonValue

from models.atomic import try_place
from servestorm.errors import StudyEnvironmentError, StudyError

SCHEMA_VERSION = 2
"""Of study.json."""
RESULTS_VERSION = 4
"""Of results.json. 4: a figure is of the slices of its run that count, and INVALID or not for itself."""

PLAN = "plan.yaml"
"""As the person wrote it."""
STUDY = "study.json"
ENVIRONMENT = "environment.json"
PRICES = "prices.yaml"
"""The price file that the plan names, where it names one."""
CELLS = "cells"
"""The folder of the cells' folders."""
RESULTS = "results.json"
REPORT_PAGE = "report.html"
REPORT_MARKDOWN = "report.md"

CELL = "cell.json"
OUTCOME = "outcome.json"
EVENTS = "events.json"
USE = "use.json"
SETTINGS = "settings.json"
"""What the servers really ran with, and what the study set."""
SUMMARY = "summary.json"
"""Of the load generator, beside its samples."""
SAMPLES = "samples.parquet"
METRICS = "metrics.parquet"
"""The servers' own metrics over time."""
SERVER_LOG = "server.log"
GENERATOR_LOG = "generator.log"
GENERATOR_COMMAND = "generator.json"
"""How the load generator was started."""
AGENTS = "agents.json"
"""The pods of a load generator in a cluster."""
MACHINE = "machine.parquet"
"""What the machine did in each second of a load."""
START = "start-ns"
"""When the generators of a round begin, on the monotonic clock; for them."""
TURNS = "turns.json"
"""When a cell of a round is loaded, as its load generator was told."""
SLICES = "slices.json"
"""When a cell of a round was loaded, and what its servers' CPU did meanwhile."""
OF_A_LOAD = (SAMPLES, SUMMARY, GENERATOR_LOG, GENERATOR_COMMAND, AGENTS, USE, MACHINE, START, TURNS, SLICES)
"""The files that one load leaves."""
CAPACITY = "capacity.json"
"""The search for the largest rate: its probes and its result."""
SWEEP = "sweep.json"
"""A point for every client setting that was tried."""
TRAINING = "training.json"
"""What a training did: its record, and some of its answers."""
SETTLED = "settled.json"
"""Of a cold start: [t_ns, latency_ms] of the answers after the first."""

ESTIMATE_FOLDER = "estimate"
"""In a cell's folder: the short load that gives a search its first rate."""
ATTEMPT = "attempt-"
"""Folders beside a load's files with what its INVALID and DISTURBED attempts left."""
_LOAD_FOLDER = re.compile(r"(probe|load)-(\d+)")

MOST_NESTED = 50
"""Levels of a JSON file; ours have about ten."""


JsonObject = dict[str, JsonValue]
"""A JSON object that is copied or compared whole: what it holds beyond the typed fields must not be lost."""

State = Literal["running", "complete", "incomplete", "interrupted", "failed"]
"""Of a study. incomplete: it came to its end, and runs of it failed; interrupted and failed: it ended before."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing; raises StudyEnvironmentError naming the path where the disk refuses."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # two commands may draw one report
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # on a full disk its part would take the last bytes
            temporary.unlink()
        raise StudyEnvironmentError(
            f"{path} cannot be written ({(error.strerror or str(error)).lower()}): "
            "free some space or choose another place with --out."
        ) from error


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 file or nothing."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: object) -> None:
    """Write a whole JSON file or nothing; NaN is refused, for missing is null."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file; raises StudyError naming the file where it is missing or broken.

    Refused as well is what no file of ours holds and what would only break its reader: NaN and infinity, half a
    character, and values nested deeper than MOST_NESTED.
    """
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
        if "\\u" in text:  # only an escape can hold half a character, which no file and no terminal takes
            json.dumps(value, ensure_ascii=False).encode()
    except FileNotFoundError as error:
        raise StudyError(f"{path} does not exist: this is not a whole run directory; run the study again.") from error
    except UnicodeEncodeError as error:
        raise StudyError(f"{path} holds half a character: it was edited; run the study again.") from error
    except (NotADirectoryError, RecursionError, ValueError) as error:
        raise StudyError(f"{path} is not JSON ({error}): it was edited or cut short; run the study again.") from error
    if _nested_too_deep(value):
        raise StudyError(f"{path} is nested deeper than {MOST_NESTED} levels: it was edited; run the study again.")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    return value if math.isfinite(value := float(digits)) else _no_number(digits[:20])


def _nested_too_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MOST_NESTED):
        inside = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        if not (level := [part for parts in inside for part in parts]):
            return False
    return True


def now() -> str:
    """Wall clock in UTC, ISO 8601: a stamp, never used for durations."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def create_run(root: Path, name: str) -> Path:
    """A new directory under `root`, named by date, time and study; raises StudyEnvironmentError where none can be."""
    stem = f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-{name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 1000):
            path = root / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                path.mkdir()
            except FileExistsError:
                if not path.is_dir():
                    raise
                continue
            try:
                (path / CELLS).mkdir()
            except OSError:
                path.rmdir()
                raise
            return path.resolve()
    except OSError as error:
        raise _no_place(root, error.strerror or str(error)) from error
    raise StudyEnvironmentError(f"{root} is full of runs named {stem}: choose another place with --out.")


def require_place(root: Path) -> None:
    """Raise StudyEnvironmentError where `create_run` would, before anything else is made; leaves nothing behind."""
    try:
        try_place(root)
    except OSError as error:
        raise _no_place(root, error.strerror or str(error)) from error


def _no_place(root: Path, reason: str) -> StudyEnvironmentError:
    return StudyEnvironmentError(f"{root} cannot hold a run ({reason.lower()}): choose another place with --out.")


def manifest_name(place: int) -> str:
    """Where the manifest of the plan's model at that place lies in a run directory."""
    return "manifest.json" if place == 0 else f"manifest-{place + 1}.json"


def probe_folder(number: int) -> str:
    """In a cell's folder: where the probe of that number (from 1) of a search for the largest rate lies."""
    return f"probe-{number:02d}"


def load_folder(number: int) -> str:
    """In a cell's folder: where the load of that number (from 1) of a sweep lies."""
    return f"load-{number:02d}"


class LoadFolder(NamedTuple):
    """The folder of one probe of a search, or of one load of a sweep."""

    path: Path
    is_probe: bool
    number: int


def load_folders(cell: Path) -> Iterator[LoadFolder]:
    """The folders of the probes and loads in a cell's folder, by name."""
    for path in sorted(cell.iterdir()):
        if match := _LOAD_FOLDER.fullmatch(path.name):
            yield LoadFolder(path, match[1] == "probe", int(match[2]))
