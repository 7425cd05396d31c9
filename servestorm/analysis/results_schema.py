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
from dataclasses import fields, is_dataclass
from typing import Any

from pydantic import TypeAdapter

from servestorm.analysis.results import Results
from servestorm.rundir.files import RESULTS_VERSION, JsonObject

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> JsonObject:
    """JSON Schema (2020-12) of results.json."""
    made = TypeAdapter(Results).json_schema()
    for name in ("StoredJson", "JsonValue"):
        made["$defs"].pop(name)
    made["properties"].pop("stored")
    made["required"].remove("stored")
    definitions = made.pop("$defs")
    made["properties"] = {
        "schema_version": {"const": RESULTS_VERSION, "description": "Of this layout."},
        **made["properties"],
    }
    made["required"] = ["schema_version", *made["required"]]
    texts = _texts(Results)
    for name, part in {**definitions, "Results": made}.items():
        _tidy(part, texts.get(name, {}))
    head = {"$schema": _DIALECT, "title": "servestorm results.json", "description": _DESCRIPTION}
    return {**head, **{key: value for key, value in made.items() if key not in head}, "$defs": definitions}


_DESCRIPTION = (
    "Every number of a run of a study. Missing is null, never 0. Names carry their units: _s, _ms, _bytes, _percent. "
    "A figure is the `value` of its row and engine: reports, verdicts and comparisons read that one."
)


def _tidy(part: dict[str, Any], texts: dict[str, str]) -> None:
    """Closed objects whose fields say what they are; a title that repeats the name says nothing.

    `part` has the type that pydantic gives a schema.
    """
    if "properties" not in part:
        return
    part["additionalProperties"] = False
    # asdict() writes every field, also those that have a default
    part["required"] = list(part["properties"])
    for name, field in part["properties"].items():
        field.pop("title", None)
        field.pop("default", None)
        if name in texts:
            field["description"] = texts[name]


def _texts(root: type) -> dict[str, dict[str, str]]:
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
