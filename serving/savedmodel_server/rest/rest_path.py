"""The paths of TensorFlow Serving's REST API."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from serving.savedmodel_server.errors import invalid
from serving.savedmodel_server.versions.version_number import version_number

_NAMED = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_CALL = re.compile(_NAMED + r":(?P<verb>classify|regress|predict)", re.IGNORECASE | re.ASCII)
_LOOK = re.compile(rf"(?:{_NAMED}|/v1/models)(?:/(?P<verb>metadata))?", re.IGNORECASE | re.ASCII)


class RestTarget(NamedTuple):
    """What a path names; `verb` is predict, classify, regress, metadata or status."""

    name: str
    version: int | None
    label: str | None
    verb: str


def parse_path(method: str, path: str) -> RestTarget:
    """The target of a raw (still percent-encoded) path; raises RequestError as TensorFlow Serving words it."""
    pattern = {"POST": _CALL, "GET": _LOOK}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        raise invalid(f"Malformed request: {method} {path}")
    name, version, label, verb = match.group("name", "version", "label", "verb")
    number = None if version is None else version_number(version)
    if version is not None and number is None:
        raise invalid(f"Failed to convert version: {version[:64]} to numeric.")
    if not name:
        raise invalid("Missing model name in request.")
    return RestTarget(
        name=unquote(name),
        version=number,
        label=None if label is None else unquote(label),
        verb=verb.lower() if verb else "status",
    )
