"""What JSON becomes which tensor, with TensorFlow itself as the oracle, over thousands of generated values."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.savedmodel_server.dtypes import NUMPY
from serving.savedmodel_server.errors import RequestError
from serving.savedmodel_server.rest.json_bodies.fast import FastReader
from serving.savedmodel_server.rest.json_bodies.predict import parse_predict
from serving.savedmodel_server.versions.signatures import Signature, TensorSpec

DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    7: "string",
    9: "int64",
    10: "bool",
}
LEAVES = st.one_of(
    st.integers(-(2**65), 2**65), st.integers(-300, 300), st.booleans(), st.none(), st.text(max_size=5),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)  # fmt: skip


def lists_of(leaf):
    return st.recursive(leaf, lambda inner: st.lists(inner, max_size=4), max_leaves=24)


def dense(leaf):
    """Values that mostly are tensors: one leaf strategy, one shape."""
    shapes = st.lists(st.integers(1, 4), max_size=3)

    def of(shape):
        values = leaf
        for size in reversed(shape):
            values = st.lists(values, min_size=size, max_size=size)
        return values

    return shapes.flatmap(of)


KINDS = (
    st.integers(-300, 300),
    st.booleans(),
    st.text(max_size=3),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)
VALUES = st.one_of(lists_of(LEAVES), *map(dense, KINDS), *map(lists_of, KINDS))


def ours(value, dtype, padding):
    signature = Signature("s", "", {"x": TensorSpec("x", "x:0", dtype, None)}, {})
    body = json.dumps({"inputs": value}).encode()
    if padding:
        body = body[:-1] + b" " * 600 + b"}"  # long enough for the fast path
    try:
        return parse_predict(body, lambda name: signature, FastReader()).arrays[0]
    except RequestError:
        return None


def tensorflows(value, dtype):
    import tensorflow as tf

    if _holds_none(value):
        return None
    try:
        if NUMPY[dtype].kind in "iu" and NUMPY[dtype].itemsize < 4:  # read as an int32, which wraps around
            return tf.cast(tf.constant(value, tf.int32), tf.as_dtype(dtype)).numpy()
        made = tf.constant(value, tf.as_dtype(dtype)).numpy()
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError, tf.errors.OpError):
        return None
    wrapped = NUMPY[dtype].kind in "iu" and np.asarray(made).ravel().tolist() != list(leaves(value))
    return None if wrapped else made  # TensorFlow makes 255 of -1 for a uint8; over JSON that is an error


def leaves(value):
    if isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def _holds_none(value):
    return value is None or (isinstance(value, list) and any(map(_holds_none, value)))


ALLOWED = {1: {int, float}, 2: {int, float}, 7: {str}, 10: {bool}}


def shapes_of(value):
    """The set of shapes that the parts of a value have: more than one, or None, where it is ragged."""
    if not isinstance(value, list):
        return {()}
    inner = set().union(*map(shapes_of, value)) if value else {()}
    return {(len(value), *shape) if shape is not None else None for shape in inner} if len(inner) == 1 else {None}


def leaf_types(value):
    return set().union(*map(leaf_types, value)) if isinstance(value, list) and value else (
        set() if isinstance(value, list) else {type(value)}
    )  # fmt: skip


def is_plain(value, dtype):
    """Dense, and of the dtype's own JSON types: TensorFlow takes some more (a bool among numbers, [[], 1])."""
    return shapes_of(value) != {None} and leaf_types(value) <= ALLOWED.get(dtype, {int})


@settings(max_examples=2000, deadline=None)
@given(value=VALUES, dtype=st.sampled_from(sorted(DTYPES)), padding=st.booleans())
def test_what_json_becomes_is_what_tensorflow_makes_of_it(value, dtype, padding):
    found, expected = ours(value, dtype, padding), tensorflows(value, dtype)
    if found is None and expected is not None:
        assert not is_plain(value, dtype), (value, expected)
        return
    assert (found is None) == (expected is None), (value, found, expected)
    if found is not None:
        expected = np.asarray(expected)
        assert found.shape == expected.shape and found.dtype == NUMPY[dtype]
        if dtype == 7:
            assert found.ravel().tolist() == expected.ravel().tolist()
        else:
            assert np.array_equal(found, expected)


@settings(max_examples=1500, deadline=None)
@given(body=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_read_or_refused_but_never_raise_anything_else(body):
    signature = Signature("s", "", {"x": TensorSpec("x", "x:0", 1, None)}, {})
    with contextlib.suppress(RequestError):
        parse_predict(body, lambda name: signature, FastReader())


@settings(max_examples=500, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=5),
    white=st.sampled_from(["", " ", "\n\t"]),
)
def test_the_fast_path_takes_dense_lists_only(rows, white):
    from serving.savedmodel_server.rest.json_bodies import fast

    body = json.dumps({"instances": rows}, separators=(f",{white}", f":{white}")).encode()
    reader = FastReader()
    array = fast.to_array(reader.parse(body), body, TensorSpec("x", "x:0", 1, None))
    if len(set(map(len, rows))) == 1:
        assert array.tolist() == rows
    else:
        assert array is None


@pytest.mark.parametrize("extra", ['"b": [[[1]]]', '"b": "]],[["', '"signature_name": ",,["'])
def test_other_members_cannot_hide_a_ragged_list_from_the_fast_path(extra):
    body = f'{{"inputs": [[1, 2], [3, 4, 5], [6]], {extra}}}'.encode()
    assert ours([[1, 2], [3, 4, 5], [6]], 1, True) is None
    signature = Signature("s", "", {"x": TensorSpec("x", "x:0", 1, None)}, {})
    with pytest.raises(RequestError):
        parse_predict(body + b" " * 600, lambda name: signature, FastReader())
