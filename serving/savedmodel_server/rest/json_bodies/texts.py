"""Strings and numbers as TensorFlow Serving 2.20 writes them in JSON: floats by C's `%g`, text that is not escaped."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache

_ESCAPED = re.compile(r'["\\\x00-\x1f]')
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_MOST_WHOLE_DIGITS = 21


def quoted(text: str) -> str:
    """The JSON string; what is not ASCII stays as it is."""
    return '"' + _ESCAPED.sub(_escape, text) + '"'


def _escape(found: re.Match[str]) -> str:
    return _ESCAPES.get(found[0]) or f"\\u{ord(found[0]):04X}"


def float32_texts(values: Sequence[float]) -> list[str]:
    """Float32 values (as doubles) with six digits where they are enough to read the same value again, else nine."""
    count = len(values)
    template, packed = _formats(count)
    six = (template % tuple(values)).split()
    read = packed.unpack(packed.pack(*map(float, six)))
    return [_pointed(t if r == v else f"{v:.9g}") for t, r, v in zip(six, read, values, strict=True)]


def float64_texts(values: Sequence[float]) -> list[str]:
    """As `float32_texts`, with 17 digits for doubles."""
    return [_pointed(t if float(t := f"{v:g}") == v else f"{v:.17g}") for v in values]


@lru_cache(maxsize=64)
def _formats(count: int) -> tuple[str, struct.Struct]:
    return "%g " * count, struct.Struct(f"{count}f")


def _pointed(text: str) -> str:
    if "." in text or "e" in text:
        return text
    return _NOT_FINITE.get(text) or text + ".0"


def shortest_text(value: float) -> str:
    """A finite double with the fewest digits that identify it, as RapidJSON's writer lays it out."""
    if value == 0.0:
        return repr(value)
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    text, minus = "".join(map(str, digits)), "-" * sign
    point = len(text) + exponent
    if exponent >= 0 and point <= _MOST_WHOLE_DIGITS:
        return f"{minus}{text}{'0' * exponent}.0"
    if 0 < point <= _MOST_WHOLE_DIGITS:
        return f"{minus}{text[:point]}.{text[point:]}"
    if -6 < point <= 0:
        return f"{minus}0.{'0' * -point}{text}"
    fraction = "." + text[1:] if text[1:] else ""
    return f"{minus}{text[0]}{fraction}e{point - 1}"
