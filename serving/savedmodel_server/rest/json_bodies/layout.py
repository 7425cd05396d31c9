"""Tensors as JSON text in a reply, in TensorFlow Serving 2.20's layout: rows on one line, columns a value a line.

Text is built as `str` whose characters are bytes (Latin-1): strings of a model are any bytes, and are written as such.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence

import numpy as np
import orjson

from serving.savedmodel_server.dtypes import DT_FLOAT, DT_STRING, NUMPY, Array
from serving.savedmodel_server.rest.json_bodies.rounding import nine_digits
from serving.savedmodel_server.rest.json_bodies.texts import float32_texts, float64_texts, quoted
from serving.savedmodel_server.versions.signatures import TensorSpec

_FEW = 16
"""Numbers that are formatted one by one as fast as all at once."""
_MOST_SPREAD = 256
"""Values of a column that get a line each; the lines of larger ones would double the reply."""
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
_INDENT = "    "


def rows_json(spec: TensorSpec, array: Array) -> bytes:
    """The reply with the rows of one output."""
    if not len(array):
        return b'{\n    "predictions": []\n}'
    if (text := _numbers(spec, array)) is not None:
        return b'{\n    "predictions": [' + text[1:-1].replace(b",", b", ") + b"\n    ]\n}"
    rows = _inline(_leaves(spec, array, array.ndim + 1), array.shape)
    return _bytes('{\n    "predictions": [' + ", ".join(rows) + "\n    ]\n}")


def objects_json(specs: Sequence[TensorSpec], arrays: Sequence[Array]) -> bytes:
    """The reply with rows of several outputs: an object a row."""
    rows = len(arrays[0])
    if not rows:
        return b'{\n    "predictions": []\n}'
    columns = [
        [f"{_INDENT * 3}{_name(spec)}: {text}" for text in _inline(_leaves(spec, array, array.ndim + 2), array.shape)]
        for spec, array in zip(specs, arrays, strict=True)
    ]
    objects = [_INDENT * 2 + "{\n" + ",\n".join(row) + f"\n{_INDENT * 2}}}" for row in zip(*columns, strict=True)]
    return _bytes('{\n    "predictions": [\n' + ",\n".join(objects) + "\n    ]\n}")


def columns_json(specs: Sequence[TensorSpec], arrays: Sequence[Array]) -> bytes:
    """The reply with whole outputs: the only one's value, or an object of them."""
    if len(specs) == 1:
        return _bytes('{\n    "outputs": ' + _column(specs[0], arrays[0], 1) + "\n}")
    members = [
        f"{_INDENT * 2}{_name(spec)}: {_column(spec, array, 2)}" for spec, array in zip(specs, arrays, strict=True)
    ]
    return _bytes('{\n    "outputs": {\n' + ",\n".join(members) + f"\n{_INDENT}}}\n}}")


def _column(spec: TensorSpec, array: Array, depth: int) -> str:
    if array.size > _MOST_SPREAD:
        if (text := _numbers(spec, array)) is not None:
            return text.replace(b",", b", ").decode("ascii")
        return "[" + ", ".join(_inline(_leaves(spec, array, depth + array.ndim), array.shape)) + "]"
    return _spread(_leaves(spec, array, depth + array.ndim), array.shape, depth)


def _numbers(spec: TensorSpec, array: Array) -> bytes | None:
    """The whole array by orjson, which is fast; None where it would write it otherwise."""
    if spec.dtype == DT_STRING or array.size <= _FEW:
        return None
    if array.dtype.kind != "f":
        return orjson.dumps(np.ascontiguousarray(array, NUMPY[spec.dtype]), option=_NUMPY)
    if spec.dtype == DT_FLOAT:
        rounded = nine_digits(array)
    else:
        rounded = np.ascontiguousarray(array) if np.isfinite(array).all() else None
    return None if rounded is None else orjson.dumps(rounded, option=_NUMPY)


def _leaves(spec: TensorSpec, array: Array, depth: int) -> list[str]:
    """The text of each value, in order; `depth` is how deep in containers it will lie."""
    if spec.dtype == DT_STRING:
        values = [v if isinstance(v, bytes) else v.encode() for v in np.asarray(array, object).ravel().tolist()]
        if spec.name.endswith("_bytes"):
            return [_as_base64(value, depth) for value in values]
        return [quoted(value.decode("latin-1")) for value in values]
    if array.dtype.kind == "f":
        values = array.ravel().tolist()
        return float32_texts(values) if spec.dtype == DT_FLOAT else float64_texts(values)
    return list(map(_whole_text, array.ravel().tolist()))


def _whole_text(value: int | bool) -> str:
    return str(value) if type(value) is int else "true" if value else "false"


def _as_base64(value: bytes, depth: int) -> str:
    return f'{{\n{_INDENT * (depth + 1)}"b64": "{b64encode(value).decode()}"\n{_INDENT * depth}}}'


def _inline(texts: list[str], shape: tuple[int, ...]) -> list[str]:
    """The elements of the first dimension, each on one line."""
    for axis in range(len(shape) - 1, 0, -1):
        size = shape[axis]
        texts = ["[" + ", ".join(texts[i * size : (i + 1) * size]) + "]" for i in range(math.prod(shape[:axis]))]
    return texts


def _spread(texts: list[str], shape: tuple[int, ...], depth: int) -> str:
    """The whole value, each of its parts on a line of its own."""
    for axis in range(len(shape) - 1, -1, -1):
        size, outer = shape[axis], "\n" + _INDENT * (depth + axis)
        parts = (texts[i * size : (i + 1) * size] for i in range(math.prod(shape[:axis])))
        inner = outer + _INDENT
        texts = ["[" + inner + f",{inner}".join(part) + outer + "]" if part else "[]" for part in parts]
    return texts[0]


def _name(spec: TensorSpec) -> str:
    return quoted(spec.name.encode().decode("latin-1"))


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")
