"""From the text of a plan to its checked values, or to one sentence that says what is wrong, and in which line."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from servestorm.errors import StudyError
from servestorm.plan.values import HOLDS_SECRET

ADDRESSES = ("rest", "grpc", "metrics", "management")
"""Keys of an endpoint whose values may be repeated, unlike those of its headers."""
Checked = TypeVar("Checked", bound=BaseModel)


def text_of(path: Path) -> str:
    """What the file of a plan holds; StudyError where there is none to read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise StudyError(f"{path} does not exist: give a plan, such as `servestorm init` writes.") from error
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise StudyError(f"{path} cannot be read as a plan ({error}): give a YAML file.") from error


def checked(root: type[Checked], text: str, source: str) -> Checked:
    """`text` as a `root`; StudyError with the key, its line if known, and the nearest right key."""
    try:
        document = yaml.safe_load(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise StudyError(f"{source}{line}: this is not YAML: {problem}.") from error
    except (ValueError, OverflowError) as error:  # of values: a date such as 2024-13-45, a number of 5,000 digits
        reason = str(error).partition(";")[0]
        raise StudyError(f"{source}: a value cannot be read ({reason}): correct it, or write it in quotes.") from error
    except RecursionError as error:
        raise StudyError(f"{source}: this is nested too deeply for a plan: correct it.") from error
    if twice := _key_given_twice(tree):
        key, first, second = twice
        raise StudyError(f"{source}:{second}: `{key}` is given twice, in line {first} too: leave one of them out.")
    if not isinstance(document, dict):
        raise StudyError(f"{source}: a plan is a mapping that begins with `name:` and `engines:`.")
    try:
        return root.model_validate(document)
    except ValidationError as error:
        raise StudyError(_explain(error, root, tree, source)) from error


def _key_given_twice(tree: yaml.Node | None) -> tuple[str, int, int] | None:
    """(key, its first line, its second): YAML forbids it, and the parser takes the last without a word."""
    seen: set[int] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and (first := lines.setdefault((key.tag, key.value), line)) != line:
                    return key.value, first, line
                waiting += [key, value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
    return None


def _explain(error: ValidationError, root: type[BaseModel], tree: yaml.Node | None, source: str) -> str:
    """One sentence for the first fault: unknown keys before the gaps that they leave."""
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    # a union's branch (`cpus.Cpus.engine`) is no key that a person wrote
    where = [part for part in fault["loc"] if not (isinstance(part, str) and part[:1].isupper())]
    where = _as_written(tree, where)
    line = _line_of(tree, where)
    place = f"{source}:{line}" if line else source
    key = ".".join(str(part) for part in where)
    more = f" ({len(faults) - 1} more after it)" if len(faults) > 1 else ""
    if fault["type"] == "extra_forbidden":
        return f"{place}: there is no key `{key}`{_nearest(root, where)}.{more}"
    if fault["type"] == "missing":
        return f"{place}: `{key}` is missing.{more}"
    message = re.sub(r"valid dictionary or instance of \w+", "mapping", fault["msg"].removeprefix("Value error, "))
    if where == ["cpus"]:
        message = "auto or a mapping such as {engine: [0], generator: [1]} is wanted"
    given = "" if _may_hold_secret(fault["type"], fault["input"], where) else f", not {fault['input']!r}"
    label = f"`{key}`: " if key else ""
    return f"{place}: {label}{message[:1].lower()}{message[1:]}{given}.{more}"


def _may_hold_secret(fault: str, value: Any, where: list[Any]) -> bool:
    """Whether a value is not repeated: a password in an address, a header, or what holds others."""
    if fault == HOLDS_SECRET or isinstance(value, (dict, BaseModel)) or "@" in repr(value):
        return True
    return where[:1] == ["attach"] and (len(where) < 2 or where[-1] not in ADDRESSES)


def _as_written(node: yaml.Node | None, where: list[Any]) -> list[Any]:
    """The place without the index of a value that stands alone where a list may stand."""
    place: list[Any] = []
    for part in where:
        if isinstance(part, int) and not isinstance(node, yaml.SequenceNode):
            continue
        place.append(part)
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
    return place


def _nearest(root: type[BaseModel], where: list[Any]) -> str:
    """', did you mean `x`?' or the list of keys that exist beside the wrong one."""
    model = root
    for part in where[:-1]:
        model = _model_of(model, part) or model  # an index of a list leaves the model as it is
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
    return f", did you mean `{close[0]}`?" if close else f"; the keys are {', '.join(known)}"


def _model_of(model: type[BaseModel], key: Any) -> type[BaseModel] | None:
    field = model.model_fields.get(str(key))
    return next(_models_in(field.annotation), None) if field else None


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _models_in(inner)


def _line_of(node: yaml.Node | None, where: list[Any]) -> int | None:
    """Line (from 1) of the deepest key of `where` that the text holds."""
    line = None
    for part in where:
        if isinstance(node, yaml.MappingNode):
            pair = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
