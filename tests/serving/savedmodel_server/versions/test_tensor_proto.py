"""Tensors of gRPC requests, whose last value may stand for all that follow."""

import numpy as np
import pytest

from serving.savedmodel_server.dtypes import DT_FLOAT, DT_STRING
from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.versions.tensor_proto import LARGEST_FILLED_BYTES, decode_tensors

FLOATS = LARGEST_FILLED_BYTES // 4


def tensor(*shape, floats=(), strings=(), content=b""):
    from tensorflow.core.framework import tensor_pb2

    proto = tensor_pb2.TensorProto(dtype=DT_STRING if strings else DT_FLOAT)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    proto.float_val.extend(floats)
    proto.string_val.extend(strings)
    proto.tensor_content = content
    return proto


def test_the_last_value_stands_for_those_that_follow():
    found = decode_tensors({"a": tensor(2, 2, floats=[1, 2]), "b": tensor(3, strings=[b"x"])})
    assert found["a"].tolist() == [[1, 2], [2, 2]] and found["b"].tolist() == [b"x"] * 3


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": {"shape": [FLOATS + 1], "floats": [1]}},
        {"x": {"shape": [2, FLOATS], "floats": [1, 2, 3]}},
        {"x": {"shape": [LARGEST_FILLED_BYTES // 8 + 1], "strings": [b"x"]}},
        {"x": {"shape": [FLOATS // 2 + 1], "floats": [1]}, "y": {"shape": [FLOATS // 2], "floats": [1]}},
    ],
    ids=["one", "of two dimensions", "strings", "two of one request"],
)
def test_a_small_request_cannot_ask_for_much_memory(inputs):
    protos = {name: tensor(*given.pop("shape"), **given) for name, given in inputs.items()}
    with pytest.raises(RequestError, match="too large to be filled up") as caught:
        decode_tensors(protos)
    assert caught.value.code is Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "shape", [[1 << 33, 1 << 31, 4, 0], [2, 0, 1 << 33, 1 << 62], [1 << 31, 2], [1] * 65, [0] * 65]
)
def test_a_shape_that_numpy_cannot_have_is_the_client_s_fault(shape):
    with pytest.raises(RequestError) as caught:
        decode_tensors({"x": tensor(*shape, floats=[1] if 0 not in shape else [])})
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_values_beyond_the_shape_are_cut():
    found = decode_tensors(
        {"a": tensor(1, floats=[1, 2]), "b": tensor(1, strings=[b"x", b"y"]), "c": tensor(0, floats=[1])}
    )
    assert {name: array.tolist() for name, array in found.items()} == {"a": [1], "b": [b"x"], "c": []}


def test_a_tensor_without_values_holds_zeros():
    assert decode_tensors({"x": tensor(2, 2)})["x"].tolist() == [[0, 0], [0, 0]]


def test_an_empty_tensor_is_decoded():
    assert decode_tensors({"x": tensor(2, 0, 3)})["x"].shape == (2, 0, 3)


def test_what_was_sent_whole_is_not_counted():
    whole = np.ones(FLOATS + 1, np.float32)
    found = decode_tensors({"a": tensor(FLOATS + 1, content=whole.tobytes()), "b": tensor(FLOATS, floats=[1])})
    assert found["a"].size == FLOATS + 1 and found["b"].size == FLOATS
