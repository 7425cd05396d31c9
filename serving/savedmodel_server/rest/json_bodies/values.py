"""JSON values to tensors by TensorFlow Serving's rules, free of tensorflow.

`read_document` bounds the depth; `to_array` turns one value into one dense tensor. This is the exact path, which
also raises every error; `fast` takes large numeric tensors off its hands.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from serving.savedmodel_server.errors import Code, RequestError, invalid
from serving.savedmodel_server.versions.signatures import DT_BOOL, DT_STRING, SHORT_NAMES, Array, TensorSpec

MAX_DEPTH = 512
"""Levels of nesting that a request body may have; numpy's tensors have 64, Python's parser bears about 1,000."""
MAX_RANK = 64
"""numpy's limit."""
_SHOWN_CHARS = 256
_JSON_DTYPES = frozenset((1, 2, 3, 4, 5, 6, DT_STRING, 9, DT_BOOL, 22, 23))
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(c for c in range(256) if c not in b"[]{}")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise invalid(f"JSON Parse error: Number too big to be stored in double: {text[:40]}")
    return value


_DECODER = json.JSONDecoder(parse_float=_finite)


def read_document(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`; NaN and Infinity are numbers. Raises RequestError (INVALID_ARGUMENT)."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _read_leniently(body)
    if type(document) is not dict:
        raise invalid(f"JSON Value: {shown(document)} Is not object")
    return document


def _read_leniently(body: bytes) -> Any:
    """As TensorFlow Serving reads: NaN and Infinity are numbers, and what follows the document is ignored."""
    if _depth(body) > MAX_DEPTH:
        raise invalid(f"JSON Parse error: nested deeper than {MAX_DEPTH} levels")
    try:
        document, _ = _DECODER.raw_decode(body.decode("utf-8-sig").lstrip(" \t\r\n"))
        if _SURROGATE.search(body):
            json.dumps(document, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise invalid(f"JSON Parse error: {error.msg} at offset: {error.pos}") from None
    except UnicodeDecodeError as error:
        raise invalid(f"JSON Parse error: not UTF-8 at offset: {error.start}") from None
    except UnicodeEncodeError:
        raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from None
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from None
    return document


def _depth(body: bytes) -> int:
    brackets = np.frombuffer(_STRING.sub(b"", body).translate(None, _NOT_BRACKETS), np.uint8)
    steps = np.where((brackets == ord("[")) | (brackets == ord("{")), 1, -1)
    return int(steps.cumsum().max()) if brackets.size else 0


def shown(value: Any) -> str:
    """The value as JSON text, cut where it is long: for error messages only."""
    if type(value) is list and len(value) > _SHOWN_CHARS:
        value = value[:_SHOWN_CHARS]
    try:
        return json.dumps(value, separators=(", ", ": "))[:_SHOWN_CHARS]
    except (RecursionError, ValueError):
        return "..."


def kind_of(value: Any) -> str:
    """The JSON type as TensorFlow Serving names it."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def type_error(value: Any, dtype: int) -> RequestError:
    """A value that the tensor's dtype cannot hold."""
    name = SHORT_NAMES.get(dtype, str(dtype))
    return invalid(f"JSON Value: {shown(value)} Type: {kind_of(value)} is not of expected type: {name}")


def is_base64(value: Any) -> bool:
    """True for {"b64": "..."}: bytes."""
    return type(value) is dict and len(value) == 1 and type(value.get("b64")) is str


def decode_base64(text: str) -> bytes:
    """Standard alphabet, padding optional; raises RequestError."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass
    stripped = "".join(text.split()).rstrip("=")
    try:
        return binascii.a2b_base64(stripped + "=" * (-len(stripped) % 4), strict_mode=True)
    except ValueError:
        raise invalid("Unable to base64 decode") from None


def to_array(value: Any, spec: TensorSpec) -> Array:
    """One JSON value as one dense tensor of the spec's dtype; raises RequestError where it cannot be one."""
    if spec.dtype not in _JSON_DTYPES:
        name = SHORT_NAMES.get(spec.dtype, str(spec.dtype))
        raise RequestError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {shown(value)} to type: {name}")
    shape = dense_shape(value)
    leaves = _flatten(value, shape)
    return _leaves_to_array(leaves, spec).reshape(shape)


def dense_shape(value: Any) -> tuple[int, ...]:
    """The shape that the first elements promise."""
    shape = []
    while type(value) is list:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    if len(shape) > MAX_RANK:
        raise invalid(f"A tensor can have {MAX_RANK} dimensions at most, the JSON value has {len(shape)}.")
    return tuple(shape)


def _flatten(value: Any, shape: tuple[int, ...]) -> list[Any]:
    level: Sequence[Any] = [value]
    for depth, size in enumerate(shape):
        for item in level:
            if type(item) is not list:
                raise invalid(
                    f"JSON Value: {shown(item)} found at incorrect level: {depth + 1} in the JSON DOM. "
                    f"Expected at level: {len(shape)}"
                )
            if len(item) != size:
                raise invalid(
                    f"Encountered list at unexpected size: {len(item)} at level: {depth} expected size: {size}"
                )
        level = list(chain.from_iterable(level))
    if any(type(item) is list for item in level):
        raise invalid(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return list(level)


def _leaves_to_array(leaves: list[Any], spec: TensorSpec) -> Array:
    dtype = spec.numpy_dtype
    assert dtype is not None
    if spec.dtype == DT_STRING:
        return _strings(leaves)
    allowed = {bool} if spec.dtype == DT_BOOL else {int} if dtype.kind in "iu" else {int, float}
    if not set(map(type, leaves)) <= allowed:
        raise type_error(next(leaf for leaf in leaves if type(leaf) not in allowed), spec.dtype)
    if dtype.kind in "iu" and leaves:
        limits = np.iinfo(dtype)
        if min(leaves) < limits.min or max(leaves) > limits.max:
            raise type_error(next(x for x in leaves if not limits.min <= x <= limits.max), spec.dtype)
    with np.errstate(over="ignore"):
        return np.array(leaves, np.float64 if dtype.kind == "f" else dtype).astype(dtype, copy=False)


def _strings(leaves: list[Any]) -> Array:
    array = np.empty(len(leaves), object)
    for i, leaf in enumerate(leaves):
        if type(leaf) is str:
            array[i] = leaf.encode()
        elif is_base64(leaf):
            array[i] = decode_base64(leaf["b64"])
        elif type(leaf) is dict:
            raise invalid(f"JSON Value: {shown(leaf)} not formatted correctly for base64 data")
        else:
            raise type_error(leaf, DT_STRING)
    return array
