"""docs/reference/plan.md: every key that a plan may hold, from the types that check it.

python -m servestorm.plan.reference > docs/reference/plan.md
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from servestorm.plan.study_plan import Plan

INTRODUCTION = """\
# The plan of a study

A plan is a YAML file; `servestorm init` writes one to begin with. A wrong key or value is refused with its line number
before anything starts. Keys in bold are required. Where a key takes "one or a list", a list makes one variant for each
of its values, and all combinations are studied. This page is generated:
`python -m servestorm.plan.reference > docs/reference/plan.md`.
"""


def page() -> str:
    """The whole page, Markdown."""
    sections = [INTRODUCTION, _section("The plan", Plan, Plan.__doc__ or "")]
    sections += [_section(f"`{key}`", model, model.__doc__ or "") for key, model in _inner(Plan, "")]
    return "\n".join(sections)


def _inner(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            yield f"{path}{name}", inner
            yield from _inner(inner, f"{path}{name}.")


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)


def _section(title: str, model: type[BaseModel], text: str) -> str:
    rows = [_row(name, field) for name, field in model.model_fields.items()]
    head = "| key | value | default | meaning |\n| --- | --- | --- | --- |"
    return "\n".join([f"## {title}\n\n{' '.join(text.split())}\n", head, *rows, ""])


def _row(name: str, field: FieldInfo) -> str:
    key = f"**{name}**" if field.is_required() else name
    kind = _listed(_kind(field.annotation, _bounds_in(field.metadata)), field.metadata)
    cells = (key, kind, _default(field), field.description or "")
    return f"| {' | '.join(cells)} |"


def _listed(kind: str, metadata: typing.Iterable[Any]) -> str:
    """'one or a list of', where a value that stands alone is taken as a list, and seconds that may have a unit."""
    if not any(isinstance(check, BeforeValidator) for check in metadata):
        return kind
    return f"one or {kind}" if kind.startswith("a list of") else f"{kind} of seconds, or a time such as `10 min`"


def _bounds_in(metadata: typing.Iterable[Any]) -> str:
    """'over 0, at most 50' from what pydantic checks."""
    names = {"gt": "over", "ge": "at least", "lt": "under", "le": "at most"}
    bounds = []
    for check in metadata:
        bounds += [f"{word} {getattr(check, name):g}" for name, word in names.items() if hasattr(check, name)]
        if isinstance(check, FieldInfo):
            bounds += [_bounds_in(check.metadata)]
    return ", ".join(filter(None, bounds))


def _kind(annotation: Any, bounds: str = "") -> str:
    """A type in a person's words."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _listed(_kind(parts[0], _bounds_in(parts[1:]) or bounds), parts[1:])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(part, bounds) for part in parts if part is not type(None))
    compound = {
        typing.Literal: lambda: " or ".join(f"`{part}`" for part in parts),
        list: lambda: f"a list of: {_kind(parts[0])}",
        dict: lambda: f"a mapping from {_kind(parts[0])} to {_kind(parts[1])}",
    }
    return compound[origin]() if origin in compound else _plain(annotation, bounds)


def _plain(annotation: Any, bounds: str) -> str:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a mapping, see below"
    names = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`"}
    return " ".join(filter(None, [names.get(annotation, "path"), f"({bounds})" if bounds else ""]))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, BaseModel) or (isinstance(value, list) and value and isinstance(value[0], BaseModel)):
        return "its defaults"
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return f"`{json.dumps(value, default=str)}`" if value not in ([], {}) else "none"


if __name__ == "__main__":
    print(page(), end="")
