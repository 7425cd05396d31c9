"""One large numeric tensor from JSON into one flat buffer, an order of magnitude faster than through Python objects.

simdjson parses and flattens; a list's raggedness would be lost there, so the brackets and commas of the body are
compared with those of a dense tensor. Whatever is not the plain case answers None, and the exact path
(`values`) reads the body and raises the error.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import simdjson

from serving.savedmodel_server.dtypes import DT_BOOL, Array
from serving.savedmodel_server.rest.json_bodies.values import carrier_of
from serving.savedmodel_server.versions.signatures import TensorSpec

_NOT_STRUCTURE = bytes(c for c in range(256) if c not in b"[],")
_LARGEST_KEPT_BYTES = 1 << 22


class FastBody(NamedTuple):
    """A body that holds one numeric list and nothing else but a signature's name."""

    signature_name: str
    columnar: bool
    values: Any
    """A simdjson Array, valid until the next parse."""
    members: int


class FastReader:
    """Parses one body at a time; not safe to share between threads."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser()

    def parse(self, body: bytes) -> FastBody | None:
        """None where the body is not the plain case."""
        parser = self._parser if len(body) < _LARGEST_KEPT_BYTES else simdjson.Parser()
        try:
            document = parser.parse(body)
            if type(document) is not simdjson.Object:
                return None
            members = dict(document)
        except (ValueError, RuntimeError):
            return None
        if len(members) != len(document):  # a key is named twice
            return None
        name = members.pop("signature_name", "")
        if type(name) is not str or len(members) != 1:
            return None
        key, values = members.popitem()
        if key not in ("instances", "inputs") or type(values) is not simdjson.Array:
            return None
        return FastBody(name, key == "inputs", values, len(document))


def to_array(fast: FastBody, body: bytes, spec: TensorSpec) -> Array | None:
    """The dense tensor, or None where it is not one of numbers that fit the spec's dtype."""
    dtype = spec.numpy_dtype
    if dtype is None or dtype.kind not in "fiu" or spec.dtype == DT_BOOL:
        return None
    shape = _shape(fast.values)
    if shape is None:
        return None
    try:
        letter, carrier = _CARRIER[carrier_of(dtype).kind]
        flat: Array = np.frombuffer(fast.values.as_buffer(of_type=letter), carrier)
    except (TypeError, ValueError):
        return None
    if flat.size != math.prod(shape) or not _dense(body, shape, fast.members):
        return None
    return _narrow(flat, dtype, shape)


_CARRIER: dict[str, tuple[str, type]] = {"f": ("d", np.float64), "i": ("i", np.int64), "u": ("u", np.uint64)}


def _shape(values: Any) -> tuple[int, ...] | None:
    shape = []
    while type(values) is simdjson.Array:
        shape.append(len(values))
        if not shape[-1]:
            return None
        values = values[0]
    return tuple(shape)


def _dense(body: bytes, shape: tuple[int, ...], members: int) -> bool:
    structure = body.translate(None, _NOT_STRUCTURE)
    expected = _skeleton(shape)
    return len(structure) == len(expected) + members - 1 and structure.strip(b",") == expected


@lru_cache(maxsize=32)
def _skeleton(shape: tuple[int, ...]) -> bytes:
    level = b""
    for size in reversed(shape):
        level = b"[" + b",".join([level] * size) + b"]"
    return level


def _narrow(flat: Array, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array | None:
    if dtype.kind != "f" and dtype.itemsize < flat.itemsize:
        limits = np.iinfo(carrier_of(dtype))
        if flat.min() < limits.min or flat.max() > limits.max:
            return None
    with np.errstate(over="ignore"):
        return flat.astype(dtype).reshape(shape)
