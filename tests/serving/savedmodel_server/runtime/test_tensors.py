"""Arrays go into TensorFlow and come back as they were, and nothing of them stays."""

import gc

import ml_dtypes
import numpy as np
import pytest

from serving.savedmodel_server.dtypes import NUMPY
from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.runtime import tensors
from serving.savedmodel_server.runtime.c_api import c_api


def texts(*values, shape=None):
    array = np.empty(len(values), object)
    array[:] = values
    return array if shape is None else array.reshape(shape)


def through(*parts, padding=0):
    """The parts as one TF_Tensor, and back."""
    api = c_api()
    tensor = tensors.new_tensor(api, parts, padding)
    try:
        return tensors.to_array(api, tensor)
    finally:
        api.TF_DeleteTensor(tensor)


NUMBERS = sorted({dtype for dtype in NUMPY.values() if dtype.kind != "O"}, key=str)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4), (2, 0, 5), (300, 200)])
def test_numbers_come_back_bit_for_bit(dtype, shape):
    size = int(np.prod(shape, dtype=int))
    array = (np.arange(size) % 100).astype(dtype).reshape(shape)
    back = through(array)
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("order", ["F", "strided", "reversed"])
@pytest.mark.parametrize("size", [4, 400])
def test_arrays_that_lie_otherwise_in_memory_are_fed_in_order(order, size):
    base = np.arange(size * size, dtype=np.float32).reshape(size, size)
    array = {"F": np.asfortranarray(base), "strided": base[::2, ::2], "reversed": base[::-1]}[order]
    assert through(array).tolist() == array.tolist()


def test_not_a_number_and_infinities_come_back():
    array = np.array([np.nan, np.inf, -np.inf, -0.0], np.float64)
    assert through(array).tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        texts(b""),
        texts(b"a\0b\0", bytes(range(256)), b"x" * 1_000_000),
        texts(b"a", b"b", b"c", b"d", shape=(2, 2)),
        texts(b"one", shape=()),
        texts(),
    ],
    ids=["empty", "any bytes", "matrix", "scalar", "none"],
)
def test_strings_come_back_and_their_memory_ends_with_the_tensor(array):
    back = through(array)
    assert back.shape == array.shape and back.tolist() == array.tolist()
    gc.collect()
    assert not tensors._string_memory


def test_the_rows_of_several_calls_are_joined_and_padded_with_the_first():
    first, second = np.array([[1.0, 2.0]], np.float32), np.array([[3.0, 4.0], [5.0, 6.0]], np.float32)
    assert through(first, second, padding=2).tolist() == [[1, 2], [3, 4], [5, 6], [1, 2], [1, 2]]
    joined = through(texts(b"a"), texts(b"b" * 50, b""), padding=1)
    assert joined.tolist() == [b"a", b"b" * 50, b"", b"a"]


def test_a_single_bfloat16_row_is_padded_too():
    row = np.array([1.5], ml_dtypes.bfloat16)
    assert through(row, padding=1).tolist() == [1.5, 1.5]


def test_a_dtype_that_tensorflow_lacks_is_named():
    with pytest.raises(RequestError, match="Tensors of datetime64") as caught:
        through(np.array(["2026-01-01"], "datetime64[D]"))
    assert caught.value.code is Code.INVALID_ARGUMENT
