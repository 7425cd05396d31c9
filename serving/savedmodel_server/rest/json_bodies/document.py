"""The JSON document in a request's body, read as RapidJSON reads it for TensorFlow Serving 2.20.

orjson reads what is plain JSON. What it refuses, or would read differently, is read by the standard library's scanner:
`NaN`, `Inf` and `Infinity`, a key that an object names twice, bytes that are no UTF-8, and text after the document.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import orjson

from serving.savedmodel_server.errors import invalid
from serving.savedmodel_server.rest.json_bodies.objects import DoubledObject
from serving.savedmodel_server.rest.json_bodies.parse_errors import parse_error
from serving.savedmodel_server.rest.json_bodies.shown import shown

MAX_DEPTH = 512
"""Levels of nesting that a body may have; numpy's tensors have 64, Python's parser bears about 1,000."""
_LARGEST_EXPLAINED_BYTES = 1 << 16
"""Of a body whose error is looked for in Python."""
_STRING = rb'"(?:[^"\\]|\\.)*+"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_KEY = re.compile(rb'"[ \t\r\n]*:')
_TOKEN = re.compile(_STRING + rb"|(?P<sign>-?)(?P<name>Inf(?!inity)|NaN)", re.DOTALL)
_NOT_BRACKETS = bytes(c for c in range(256) if c not in b"[]{}")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_FIRST, _SECOND = rb"u([dD][89abAB][0-9a-fA-F]{2})", rb"u([dD][c-fC-F][0-9a-fA-F]{2})"
_ESCAPE = re.compile(rb"\\(?:" + _FIRST + rb"(?:\\" + _SECOND + rb")?|" + _SECOND + rb"|.)", re.DOTALL)
_NUMBER = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_LEAVES = frozenset((int, float, str, bool, type(None)))
_MOST_DIGITS = 18
"""Of a number's significand, before RapidJSON reads further ones without counting them."""
_LARGEST_TENTH = 1.7976931348623157e307


def read_document(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; raises RequestError (INVALID_ARGUMENT).

    Strings hold bytes that are no UTF-8 as Python's surrogate escapes. Whole numbers are ints within 64 bits, signed or
    not, and floats beyond.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _read_leniently(body)
    else:
        if _may_name_twice(document, body):
            document = _read_leniently(body)
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def _may_name_twice(document: Any, body: bytes) -> bool:
    """True where the body has more keys than what was read from it: of a key named twice, orjson keeps the last."""
    colons = len(body.replace(b":", b"::")) - len(body)  # ten times as fast as `count`, which looks at every byte
    if not isinstance(document, dict) or colons == len(document):
        return False
    try:
        keys = _key_count(document)
    except RecursionError:
        return True
    return colons != keys and len(_KEY.findall(body)) != keys


def _key_count(value: Any) -> int:
    """Keys of all objects in a value."""
    if type(value) is dict:
        return len(value) + sum(map(_key_count, value.values()))
    if type(value) is list and not _LEAVES.issuperset(map(type, value)):
        return sum(map(_key_count, value))
    return 0


def _read_leniently(body: bytes) -> Any:
    if _depth(body) > MAX_DEPTH:
        raise invalid(f"JSON Parse error: nested deeper than {MAX_DEPTH} levels")
    try:
        plain = _without_surrogates(body)
        try:
            return _decoded(plain)
        except json.JSONDecodeError:
            spelled = _TOKEN.sub(_spelled, plain)
            if spelled == plain:
                raise
            return _decoded(spelled)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {_explained(body, error)}") from None


def _decoded(body: bytes) -> Any:
    document, _ = _DECODER.raw_decode(body.decode("utf-8-sig", "surrogateescape").lstrip(" \t\r\n"))
    return document


def _explained(body: bytes, error: Exception) -> str:
    found = parse_error(body) if len(body) <= _LARGEST_EXPLAINED_BYTES else ""
    return found or str(error)


def _depth(body: bytes) -> int:
    brackets = np.frombuffer(_STRINGS.sub(b"", body).translate(None, _NOT_BRACKETS), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    return int(steps.cumsum().max()) if brackets.size else 0


def _spelled(token: re.Match[bytes]) -> bytes:
    """`Inf` and `-NaN` as Python's scanner spells them."""
    if token["name"] is None:
        return token[0]
    return b"NaN" if token["name"] == b"NaN" else token["sign"] + b"Infinity"


def _without_surrogates(body: bytes) -> bytes:
    """The body with the second half of a surrogate pair by itself as its three bytes; raises ValueError for a first."""
    return _ESCAPE.sub(_unescaped, body) if _SURROGATE.search(body) else body


def _unescaped(escape: re.Match[bytes]) -> bytes:
    first, second, low = escape.groups()
    if first is not None and second is None:
        raise ValueError("The surrogate pair in string is invalid.")
    return escape[0] if low is None else chr(int(low, 16)).encode("utf-8", "surrogatepass")


def _double(text: str) -> float:
    """The number; RapidJSON takes some that are beyond a double as infinite, and refuses the others (ValueError)."""
    value = float(text)
    if math.isinf(value) and _is_too_big(text):
        raise ValueError("Number too big to be stored in double.")
    return value


def _is_too_big(text: str) -> bool:
    match = _NUMBER.fullmatch(text)
    assert match is not None
    whole, fraction, exponent = match[1], match[2] or "", match[3] or "0"
    if len(whole) > 309 or (len(whole) == 309 and float(whole[:308]) >= _LARGEST_TENTH):
        return True
    surplus = max(0, len((whole + fraction).lstrip("0")) - _MOST_DIGITS)
    digits = exponent.lstrip("+0")
    return len(digits) > 9 or int(digits or "0") > 308 + max(0, len(fraction) - surplus)


def _whole(text: str) -> int | float:
    if len(text) <= 20:
        value = int(text)
        if -(1 << 63) <= value < 1 << 64:
            return value
    return _double(text)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    return found if len(found) == len(members) else DoubledObject(members)


_DECODER = json.JSONDecoder(parse_float=_double, parse_int=_whole, object_pairs_hook=_object)
