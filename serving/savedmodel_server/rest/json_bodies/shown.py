"""JSON values in error messages, laid out and cut as TensorFlow Serving 2.20 does."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from serving.savedmodel_server.rest.json_bodies.objects import members_of
from serving.savedmodel_server.rest.json_bodies.texts import quoted, shortest_text

_MOST_BYTES = 256
"""After which nothing more is begun."""
_LITERALS = {None: "null", True: "true", False: "false"}


class _FullError(Exception):
    """No more is to be written."""


def shown(value: Any) -> str:
    """The value as JSON text, cut where it is long."""
    out = _Writer()
    with suppress(_FullError):
        out.add(value, "", 0)
    return "".join(out.parts)


class _Writer:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self._size = 0

    def add(self, value: Any, before: str, depth: int) -> None:
        """Write what separates the value from what is before it, and the value, `depth` containers deep."""
        if isinstance(value, dict):
            self._object(value, before, depth)
        elif isinstance(value, list):
            self._put(before + "[")
            for i, item in enumerate(value):
                self.add(item, ", " if i else "", depth + 1)
            self._put("]")
        elif isinstance(value, float) and not math.isfinite(value):
            self._put(before)
            raise _FullError  # RapidJSON's writer ends at what is no JSON number
        else:
            self._put(before + _scalar(value))

    def _object(self, value: dict[str, Any], before: str, depth: int) -> None:
        self._put(before + "{")
        inner = "\n" + "    " * (depth + 1)
        members = members_of(value)
        for i, (name, item) in enumerate(members):
            self._put("," * bool(i) + inner + quoted(name))
            self.add(item, ": ", depth + 1)
        self._put("\n" + "    " * depth + "}" if members else "}")

    def _put(self, text: str) -> None:
        if self._size >= _MOST_BYTES:
            raise _FullError
        self.parts.append(text)
        self._size += len(text.encode("utf-8", "surrogatepass"))


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return shortest_text(value)
    return _LITERALS[value] if value is None or isinstance(value, bool) else str(value)
