"""The JSON Schema of results.json, made from the types that it is written from.

    python -m servestorm.analysis.results_schema > docs/reference/results.schema.json

A test holds the published file against this and real results against the file.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from servestorm.analysis.cost import Cost, FleetCost
from servestorm.analysis.latency_split import Part
from servestorm.analysis.results import Results
from servestorm.rundir.files import SCHEMA_VERSION

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Series:
    """One engine's answers over time: one value a bin, null where a bin has too few answers."""

    median_ms: list[float | None]
    """Milliseconds per image."""
    slowest_ms: list[float | None]


@dataclass(frozen=True)
class OverTime:
    """Latency over time, all counted runs of a group together."""

    bin_s: float
    """Width of a bin."""
    t_s: list[float]
    """Where each bin begins, from the first request after the warm-up."""
    offered_per_s: list[float]
    """Requests a second, mean over runs."""
    engines: dict[str, Series]


@dataclass(frozen=True)
class Law:
    """Throughput by replicas, and the Universal Scalability Law fitted to it where there are enough counts."""

    points: list[tuple[int, float]]
    """[replicas, images/s] of every run."""
    lambda_: Annotated[float | None, Field(alias="lambda")]
    """Images/s of one replica."""
    sigma: float | None
    """Contention."""
    kappa: float | None
    """Coherency."""
    r2: float | None
    """Share of the variance that the law explains."""
    peak_replicas: float | None
    """Where throughput is largest; null where it never falls."""
    curve: list[tuple[float, float]]
    """[replicas, images/s] of the law."""


@dataclass(frozen=True)
class Setting:
    """One setting of a sweep, medians of its VALID loads."""

    label: str
    images_per_s: float | None
    p99_ms: float | None
    """Of a request."""
    front: bool
    """No other setting of the engine is at least as good in both and better in one."""


@dataclass(frozen=True)
class Parts:
    """The parts of the mean latency of a request, means over runs."""

    parts: list[Part]
    notes: list[str]
    """What the server does not tell, and how its figures were read."""


@dataclass(frozen=True)
class Followed:
    """How one engine's replicas followed the load, all counted runs together."""

    tail_ms: list[float | None]
    """Of a request, the percentile that `tail` names, one value a bin; null where a bin has too few answers."""
    slowest_ms: list[float | None]
    ready: list[tuple[float, float]]
    """[second, ready replicas from then on, mean over runs]."""
    existing: list[tuple[float, float]]
    """[second, replicas that exist from then on, mean over runs]."""


@dataclass(frozen=True)
class OverScaling:
    """A group of runs under an autoscaler, over time."""

    bin_s: float
    """Width of a bin."""
    t_s: list[float]
    """Where each bin of the load begins, from the begin of the measured load."""
    offered_per_s: list[float]
    """Requests a second, mean over runs."""
    bursts: list[tuple[float, float]]
    """[onset, end] in seconds."""
    watched_s: float
    """Until when replicas were watched, the shortest of the runs."""
    tail: str
    """The largest percentile that most bins have answers enough for, such as p95."""
    engines: dict[str, Followed]


@dataclass(frozen=True)
class Figures:
    """What the figures show and no row holds, by group of runs and engine."""

    over_time: dict[str, OverTime]
    spectrum: dict[str, dict[str, list[tuple[float, float]]]]
    """[share of the answers, milliseconds per image that it took at most]."""
    scaling_law: dict[str, dict[str, Law]]
    sweep: dict[str, dict[str, list[Setting]]]
    cost: dict[str, dict[str, list[Cost]]]
    """Of a million images at the capacity found."""
    split: dict[str, dict[str, Parts]]
    """Where the time of a mean request goes."""
    autoscaling: dict[str, OverScaling]
    fleet_cost: dict[str, dict[str, list[FleetCost]]]
    """Of the replicas under an autoscaler, by machine."""


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of results.json."""
    made = TypeAdapter(Results).json_schema()
    for part in (made["properties"], made["$defs"]):
        part.pop("stored", None)
        part.pop("StoredJson", None)
    made["required"].remove("stored")
    figures = TypeAdapter(Figures).json_schema()
    definitions = made.pop("$defs") | figures.pop("$defs") | {"Figures": figures}
    made["properties"] = {
        "schema_version": {"const": SCHEMA_VERSION, "description": "Of this layout."},
        **made["properties"],
        "figures": {"$ref": "#/$defs/Figures"},
    }
    made["required"] = ["schema_version", *made["required"]]
    told = _told(Results) | _told(Figures)
    for name, part in {**definitions, "Results": made}.items():
        _tidy(part, told.get(name, {}))
    head = {"$schema": _DIALECT, "title": "servestorm results.json", "description": _DESCRIPTION}
    return {**head, **{key: value for key, value in made.items() if key not in head}, "$defs": definitions}


_DESCRIPTION = (
    "Every number of a run of a study. Missing is null, never 0. Names carry their units: _s, _ms, _bytes, _percent."
)


def _tidy(part: dict[str, Any], told: dict[str, str]) -> None:
    """Closed objects whose fields say what they are; a title that repeats the name says nothing."""
    if "properties" not in part:
        return
    part["additionalProperties"] = False
    # asdict() writes every field, also those that have a default
    part["required"] = list(part["properties"])
    for name, field in part["properties"].items():
        field.pop("title", None)
        field.pop("default", None)
        if name in told:
            field["description"] = told[name]


def _told(root: type) -> dict[str, dict[str, str]]:
    """What the strings under the fields of a class and of all classes within it say: {class: {field: text}}."""
    return {kind.__name__: dict(_field_texts(kind)) for kind in _classes(root, set())}


def _classes(kind: Any, seen: set[type]) -> set[type]:
    if isinstance(kind, type) and is_dataclass(kind) and kind not in seen:
        seen.add(kind)
        hints = typing.get_type_hints(kind)
        for field in fields(kind):
            _classes(hints[field.name], seen)
    for inner in typing.get_args(kind):
        _classes(inner, seen)
    return seen


def _field_texts(kind: type) -> Iterator[tuple[str, str]]:
    statements = getattr(ast.parse(inspect.getsource(kind)).body[0], "body", [])
    for field, text in itertools.pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            yield field.target.id.rstrip("_"), " ".join(str(ast.literal_eval(text.value)).split())


def text() -> str:
    """The published file's content."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
