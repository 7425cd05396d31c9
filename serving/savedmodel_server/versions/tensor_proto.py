"""TensorProto to numpy and back, without tensorflow.

Values may lie in `tensor_content` or in the typed fields, where the last value stands for all that follow, none stands
for zeros, and what is more than the shape holds is cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from serving.savedmodel_server.dtypes import (
    DT_BFLOAT16,
    DT_BOOL,
    DT_COMPLEX64,
    DT_COMPLEX128,
    DT_DOUBLE,
    DT_FLOAT,
    DT_HALF,
    DT_INT8,
    DT_INT16,
    DT_INT32,
    DT_INT64,
    DT_STRING,
    DT_UINT8,
    DT_UINT16,
    DT_UINT32,
    DT_UINT64,
    NUMPY,
    Array,
)
from serving.savedmodel_server.errors import invalid

MAX_ELEMENTS = 1 << 31
MAX_DIMENSIONS = 64
"""numpy's."""
LARGEST_FILLED_BYTES = 64 << 20
"""Of the tensors of one request that their last values fill up: some bytes of a message could ask for gigabytes."""

FIELD = {
    DT_FLOAT: "float_val",
    DT_DOUBLE: "double_val",
    DT_INT32: "int_val",
    DT_INT16: "int_val",
    DT_INT8: "int_val",
    DT_UINT16: "int_val",
    DT_UINT8: "int_val",
    DT_STRING: "string_val",
    DT_COMPLEX64: "scomplex_val",
    DT_COMPLEX128: "dcomplex_val",
    DT_INT64: "int64_val",
    DT_BOOL: "bool_val",
    DT_HALF: "half_val",
    DT_BFLOAT16: "half_val",
    DT_UINT32: "uint32_val",
    DT_UINT64: "uint64_val",
}
_PARTS: dict[int, np.dtype[Any]] = {DT_COMPLEX64: np.dtype(np.float32), DT_COMPLEX128: np.dtype(np.float64)}


def decode_tensors(protos: Mapping[str, Any]) -> dict[str, Array]:
    """The arrays in a request's tensorflow.TensorProtos, by their names. Raises RequestError."""
    arrays: dict[str, Array] = {}
    left_bytes = LARGEST_FILLED_BYTES
    for name, proto in protos.items():
        arrays[name] = decode_tensor(proto, left_bytes)
        if not proto.tensor_content:
            left_bytes = max(0, left_bytes - arrays[name].nbytes)
    return arrays


def decode_tensor(proto: Any, most_filled_bytes: float = math.inf) -> Array:
    """The array in a tensorflow.TensorProto; strings are bytes in an object array. Raises RequestError.

    That its rank is said to be unknown counts for nothing, as in TensorFlow. It may have `most_filled_bytes` where its
    last value stands for further ones.
    """
    dtype = NUMPY.get(proto.dtype)
    if dtype is None:
        raise invalid(f"A tensor of DataType {proto.dtype} cannot be fed.")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise invalid(f"A tensor must have a full shape, not {list(shape)}.")
    if len(shape) > MAX_DIMENSIONS:
        raise invalid(f"A tensor may have {MAX_DIMENSIONS} dimensions, not {len(shape)}.")
    if math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:  # numpy refuses some empty ones, too
        raise invalid(f"A tensor of shape {list(shape)} is too large.")
    size = math.prod(shape)
    if proto.tensor_content and proto.dtype != DT_STRING:
        return _from_content(proto.tensor_content, dtype, shape, size)
    return _from_values(_values(proto, dtype), shape, size, most_filled_bytes)


def _from_content(content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], size: int) -> Array:
    if len(content) != size * dtype.itemsize:
        raise invalid(
            f"tensor_content holds {len(content)} bytes, shape {list(shape)} of {dtype.name} "
            f"needs {size * dtype.itemsize}."
        )
    if dtype == np.bool_:
        return cast(Array, (np.frombuffer(content, np.uint8) != 0).reshape(shape))
    return np.frombuffer(content, dtype).reshape(shape)


def _values(proto: Any, dtype: np.dtype[Any]) -> Array:
    given = getattr(proto, FIELD[proto.dtype])
    if proto.dtype == DT_STRING:
        values = np.empty(len(given), object)
        values[:] = given
        return values
    if proto.dtype in (DT_HALF, DT_BFLOAT16):
        return cast(Array, np.array(given, np.int32).astype(np.uint16).view(dtype))
    if proto.dtype in _PARTS:
        pairs = len(given) // 2 * 2
        return cast(Array, np.array(given, _PARTS[proto.dtype])[:pairs].view(dtype))
    if dtype.kind in "iu" and dtype.itemsize < 4:
        return np.array(given, np.int32).astype(dtype)  # out of range, it wraps around
    return np.array(given, dtype)


def _from_values(values: Array, shape: tuple[int, ...], size: int, most_filled_bytes: float) -> Array:
    if values.size == size:
        return values.reshape(shape)
    if values.size > size:
        return values[:size].reshape(shape)
    if size * values.itemsize > most_filled_bytes:
        raise invalid(
            f"A tensor of shape {list(shape)} was sent with {values.size} values: it is too large to be filled up "
            f"with the last one or zeros (limit {LARGEST_FILLED_BYTES} bytes a request)."
        )
    filled = np.empty(size, values.dtype)
    filled[: values.size] = values
    filled[values.size :] = values[-1] if values.size else b"" if values.dtype == object else 0
    return filled.reshape(shape)


def encode_tensor(array: Array, dtype: int, proto: Any, *, as_content: bool = False) -> None:
    """Fill an empty tensorflow.TensorProto with `array`: typed fields, or `tensor_content` where asked and possible."""
    array = np.asarray(array, object if dtype == DT_STRING else None)  # TensorFlow gives a scalar string as bytes
    proto.dtype = dtype
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if dtype == DT_STRING:
        proto.string_val.extend(array.ravel().tolist())
    elif as_content:
        proto.tensor_content = array.tobytes()
    elif dtype in (DT_HALF, DT_BFLOAT16):
        proto.half_val.extend(array.view(np.uint16).ravel().tolist())
    elif dtype in _PARTS:
        getattr(proto, FIELD[dtype]).extend(np.ascontiguousarray(array).ravel().view(_PARTS[dtype]).tolist())
    else:
        getattr(proto, FIELD[dtype]).extend(array.ravel().tolist())
