"""JSON values to tensors by TensorFlow Serving's rules, free of tensorflow.

`to_array` turns one value into one dense tensor. This is the exact path, which also raises every error; `fast` takes
large numeric tensors off its hands.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from serving.savedmodel_server.dtypes import DT_BOOL, DT_STRING, SHORT_NAMES, Array
from serving.savedmodel_server.errors import Code, RequestError, invalid
from serving.savedmodel_server.rest.json_bodies.shown import shown
from serving.savedmodel_server.versions.signatures import TensorSpec

MAX_RANK = 64
"""numpy's limit."""
_JSON_DTYPES = frozenset((1, 2, 3, 4, 5, 6, DT_STRING, 9, DT_BOOL, 22, 23))


def kind_of(value: Any) -> str:
    """The JSON type as TensorFlow Serving names it."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, dict):
        return "Object"
    names: dict[type, str] = {list: "Array", str: "String"}
    return names.get(type(value), "Number")


def type_error(value: Any, dtype: int) -> RequestError:
    """A value that the tensor's dtype cannot hold."""
    name = SHORT_NAMES.get(dtype, str(dtype))
    return invalid(f"JSON Value: {shown(value)} Type: {kind_of(value)} is not of expected type: {name}")


def is_base64(value: Any) -> bool:
    """True for {"b64": "..."}: bytes. An object that names the key twice is none."""
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
    shape = dense_shape(value)
    leaves = _flatten(value, shape)
    if spec.dtype not in _JSON_DTYPES:
        return _empty(leaves, spec, shape)
    return _leaves_to_array(leaves, spec).reshape(shape)


def _empty(leaves: list[Any], spec: TensorSpec, shape: tuple[int, ...]) -> Array:
    """A tensor of a dtype that JSON cannot carry, which may be without values."""
    dtype = spec.numpy_dtype
    if leaves or dtype is None:
        name = SHORT_NAMES.get(spec.dtype, str(spec.dtype))
        leaf = shown(leaves[0]) if leaves else "[]"
        raise RequestError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {leaf} to type: {name}")
    return np.empty(shape, dtype)


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
    carrier = carrier_of(dtype)
    if dtype.kind in "iu" and leaves:
        limits = np.iinfo(carrier)
        if min(leaves) < limits.min or max(leaves) > limits.max:
            raise type_error(next(x for x in leaves if not limits.min <= x <= limits.max), spec.dtype)
    with np.errstate(over="ignore"):
        return np.array(leaves, carrier).astype(dtype, copy=False)


def carrier_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that a value must fit: doubles for floats, and 32 bits for narrower integers, which wrap around."""
    if dtype.kind == "f":
        return np.dtype(np.float64)
    return np.dtype(np.int32) if dtype.kind in "iu" and dtype.itemsize < 4 else dtype


def _strings(leaves: list[Any]) -> Array:
    array = np.empty(len(leaves), object)
    for i, leaf in enumerate(leaves):
        if type(leaf) is str:
            array[i] = leaf.encode("utf-8", "surrogateescape")
        elif is_base64(leaf):
            array[i] = decode_base64(leaf["b64"])
        elif isinstance(leaf, dict):
            raise invalid(f"JSON Value: {shown(leaf)} not formatted correctly for base64 data")
        else:
            raise type_error(leaf, DT_STRING)
    return array
