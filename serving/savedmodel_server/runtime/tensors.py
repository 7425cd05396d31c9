"""numpy arrays to TF_Tensors and back; strings are bytes in object arrays."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from serving.savedmodel_server.dtypes import DT_STRING, NUMPY, Array
from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.runtime.c_api import DEALLOCATOR, CApi, c_api

STRING_BYTES = 24
"""sizeof(TF_TString)."""
_NUMBERS = {dtype: number for number, dtype in NUMPY.items()}
_LARGE_BYTES = 1 << 16
_copy_large = ctypes.CDLL(None).memmove
_copy_large.restype, _copy_large.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_string_memory: dict[int, Any] = {}
"""What tensors of strings hold, by address, until TensorFlow has no more use for it."""


def new_tensor(api: CApi, parts: Sequence[Array], padding: int = 0) -> int:
    """A TF_Tensor of the rows of all `parts`, which are of one dtype and one shape of rows.

    `padding` further rows are copies of the first one. A single part may be a scalar. Who gets the tensor ends it with
    TF_DeleteTensor. Raises RequestError (INVALID_ARGUMENT) for a dtype that TensorFlow does not have.
    """
    first = parts[0]
    if len(parts) == 1 and not padding:
        shape = first.shape
    else:
        shape = (sum(len(part) for part in parts) + padding, *first.shape[1:])
        parts = [*parts, *[first[:1]] * padding]
    number = _NUMBERS.get(first.dtype)
    if number is None:
        raise RequestError(Code.INVALID_ARGUMENT, f"Tensors of {first.dtype} cannot be fed.")
    dims = (ctypes.c_int64 * len(shape))(*shape)
    if number == DT_STRING:
        return _new_strings(api, parts, dims, math.prod(shape))
    return _new_numbers(api, parts, number, dims, math.prod(shape) * first.itemsize)


def _new_numbers(api: CApi, parts: Sequence[Array], number: int, dims: Any, size_bytes: int) -> int:
    tensor: int | None = api.TF_AllocateTensor(number, dims, len(dims), size_bytes)
    if tensor is None:
        raise RequestError(Code.RESOURCE_EXHAUSTED, "not enough memory for this request")
    address = api.TF_TensorData(tensor)
    for part in parts:
        if part.nbytes:
            _fill(address, part)
            address += part.nbytes
    return tensor


def _fill(address: int, array: Array) -> None:
    """Copy an array's values to an address; large ones without the interpreter."""
    if array.nbytes < _LARGE_BYTES:
        ctypes.memmove(address, array.tobytes(), array.nbytes)  # the copy costs less than asking for its address
    else:
        whole = np.ascontiguousarray(array)
        _copy_large(address, whole.ctypes.data, whole.nbytes)


def _new_strings(api: CApi, parts: Sequence[Array], dims: Any, count: int) -> int:
    memory = ctypes.create_string_buffer(max(1, count) * STRING_BYTES)
    address = begin = ctypes.addressof(memory)
    for part in parts:
        for text in part.ravel().tolist():
            api.TF_StringInit(address)
            api.TF_StringCopy(address, text, len(text))
            address += STRING_BYTES
    _string_memory[begin] = memory
    tensor: int = api.TF_NewTensor(DT_STRING, dims, len(dims), begin, count * STRING_BYTES, _release_strings, None)
    return tensor


def _end_strings(address: int, size_bytes: int, _: Any) -> None:
    """End the strings of a tensor; TensorFlow may call this on any thread, once nothing refers to it any more."""
    release = c_api().TF_StringDealloc
    for at in range(address, address + size_bytes, STRING_BYTES):
        release(at)
    _string_memory.pop(address, None)


_release_strings = DEALLOCATOR(_end_strings)
"""Kept here: TensorFlow has no more than its address."""


def to_array(api: CApi, tensor: int) -> Array:
    """A copy of a TF_Tensor's values, which may be read-only.

    Raises RequestError (UNIMPLEMENTED) for a type that numpy does not have.
    """
    number = api.TF_TensorType(tensor)
    shape = tuple(api.TF_Dim(tensor, i) for i in range(api.TF_NumDims(tensor)))
    dtype = NUMPY.get(number)
    if dtype is None:
        raise RequestError(Code.UNIMPLEMENTED, f"An output of DataType {number} cannot be answered.")
    size = math.prod(shape)
    if number == DT_STRING:
        begin, strings = api.TF_TensorData(tensor), np.empty(size, object)
        strings[:] = [_string(api, begin + i * STRING_BYTES) for i in range(size)]
        return strings.reshape(shape)
    if not size:
        return np.empty(shape, dtype)
    return _numbers(api.TF_TensorData(tensor), dtype, size).reshape(shape)


def _numbers(address: int, dtype: np.dtype[Any], size: int) -> Array:
    size_bytes = size * dtype.itemsize
    if size_bytes < _LARGE_BYTES:
        return np.frombuffer(ctypes.string_at(address, size_bytes), dtype)
    array = np.empty(size, dtype)
    _copy_large(array.ctypes.data, address, size_bytes)
    return array


def _string(api: CApi, address: int) -> bytes:
    return ctypes.string_at(api.TF_StringGetDataPointer(address), api.TF_StringGetSize(address))
