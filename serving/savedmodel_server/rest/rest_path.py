"""The paths of TensorFlow Serving's REST API."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

from serving.savedmodel_server.errors import Code, RequestError, invalid
from serving.savedmodel_server.versions.version_number import version_number

_WHICH = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_CALL = re.compile(rf"/v1/models/(?P<name>[^/:]+){_WHICH}:(?P<verb>classify|regress|predict)", re.IGNORECASE | re.ASCII)
_LOOK = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{_WHICH}(?:/(?P<verb>metadata))?", re.IGNORECASE | re.ASCII)
_CALLS = ("classify", "regress", "predict")


class RestTarget(NamedTuple):
    """What a path names; `verb` is predict, classify, regress, metadata or status."""

    name: str
    version: int | None
    label: str | None
    verb: str


def parse_path(method: str, path: str) -> RestTarget:
    """The target of a raw (still percent-encoded) path, to which a query and a fragment belong.

    Raises RequestError as TensorFlow Serving words it. Letters of a path are the same in either case, but those of a
    verb: `:Predict` is none, and `/Metadata` is a model's status.
    """
    pattern = {"POST": _CALL, "GET": _LOOK}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    if match is None:
        raise _malformed(method, path)
    name, version, label, verb = match.group("name", "version", "label", "verb")
    number = None if version is None else version_number(version)
    if version is not None and number is None:
        raise RequestError(Code.INVALID_ARGUMENT, "")  # told without words
    if method == "GET":
        verb = "metadata" if verb == "metadata" else "status"
    elif verb not in _CALLS:
        raise _malformed(method, path)
    if not name:
        raise invalid("Missing model name in request.")
    return RestTarget(unquote(name), number, None if label is None else unquote(label), verb)


def _malformed(method: str, path: str) -> RequestError:
    return invalid(f"Malformed request: {method} {path}")
