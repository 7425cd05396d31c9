"""JSON bodies of :predict to tensors and back, without tensorflow."""

import json

import numpy as np
import pytest

from serving.savedmodel_server.errors import RequestError
from serving.savedmodel_server.rest.json_bodies.fast import FastReader
from serving.savedmodel_server.rest.json_bodies.predict import parse_predict, write_predict
from serving.savedmodel_server.versions.signatures import Signature, TensorSpec

FLOAT, INT8, INT32, STRING, INT64, BOOL, UINT64 = 1, 6, 3, 7, 9, 10, 23


def signature(*inputs, outputs=(("y", FLOAT, None),)):
    def specs(entries):
        return {name: TensorSpec(name, f"{name}:0", dtype, shape) for name, dtype, shape in entries}

    return Signature("serving_default", "tensorflow/serving/predict", specs(inputs), specs(outputs))


X = signature(("x", FLOAT, None))


def parse(body, sig=X):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_predict(raw, lambda name: sig, FastReader())


def message(body, sig=X):
    with pytest.raises(RequestError) as caught:
        parse(body, sig)
    return caught.value.message


def test_rows_become_one_tensor_with_a_leading_batch_dimension():
    (x,) = parse({"instances": [[1, 2.5], [3, 4]]}).arrays
    assert x.dtype == np.float32 and x.tolist() == [[1.0, 2.5], [3.0, 4.0]]


def test_columns_keep_the_shape_they_were_sent_with():
    call = parse({"inputs": 3.5})
    assert call.columnar and call.arrays[0].shape == () and call.arrays[0] == np.float32(3.5)


@pytest.mark.parametrize("shape", [(700,), (40, 30), (3, 20, 20), (1, 32, 32, 3)])
def test_the_fast_path_and_the_exact_path_read_the_same_tensor(shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    body = json.dumps({"instances": values.tolist()}).encode()
    reader = FastReader()
    from serving.savedmodel_server.rest.json_bodies import fast as json_fast
    from serving.savedmodel_server.rest.json_bodies import values as json_values

    spec = X.inputs["x"]
    fast = json_fast.to_array(reader.parse(body), body, spec)
    exact = json_values.to_array(json.loads(body)["instances"], spec)
    assert fast is not None and np.array_equal(fast, values) and np.array_equal(exact, values)


def test_a_ragged_list_whose_values_would_fill_a_dense_tensor_is_refused():
    rows = [[1.0] * 100, [1.0] * 101, [1.0] * 99]
    assert "element: 1 of" in (text := message({"instances": rows})) and "tensor size: 100 but got: 101" in text


@pytest.mark.parametrize("pad", [0, 600])
def test_a_ragged_list_is_refused_with_the_row_and_the_size(pad):
    text = message({"instances": [[1, 2], [3]], "signature_name": "s" * pad})
    assert "unexpected size: 1 at level: 1 expected size: 2" in text or "element: 1" in text


def test_bytes_come_from_b64_and_text_from_strings():
    (x,) = parse({"instances": [{"b64": "aGk="}, "hé"]}, signature(("x", STRING, (-1,)))).arrays
    assert x.tolist() == [b"hi", "hé".encode()]


def test_base64_without_padding_is_read_and_nonsense_is_refused():
    s = signature(("x", STRING, (-1,)))
    assert parse({"instances": [{"b64": "aGk"}]}, s).arrays[0][0] == b"hi"
    assert "Unable to base64 decode" in message({"instances": [{"b64": "a*b!"}]}, s)


def test_objects_give_each_named_input_its_column():
    s = signature(("a", FLOAT, (-1,)), ("b", INT32, (-1, 2)))
    a, b = parse({"instances": [{"a": 1, "b": [1, 2]}, {"b": [3, 4], "a": 2}]}, s).arrays
    assert a.tolist() == [1, 2] and b.tolist() == [[1, 2], [3, 4]] and b.dtype == np.int32


def test_a_row_that_lacks_a_named_input_is_named():
    s = signature(("a", FLOAT, (-1,)), ("b", FLOAT, (-1,)))
    assert "element: 1 of 'instances' list" in message({"instances": [{"a": 1, "b": 1}, {"a": 1}]}, s)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (INT8, 2**31), (INT8, -(2**31) - 1), (INT32, 2**31), (INT64, 2**63), (UINT64, -1), (UINT64, 2**64),
        (INT32, 1.0), (INT32, True), (BOOL, 1), (FLOAT, "1"), (FLOAT, None), (FLOAT, True), (STRING, 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rows", [1, 400])
def test_a_value_outside_of_the_dtype_is_refused(dtype, value, rows):
    text = message({"instances": [value] * rows}, signature(("x", dtype, None)))
    assert "is not of expected type" in text


@pytest.mark.parametrize("rows", [1, 400])
def test_a_narrow_integer_wraps_around(rows):
    (x,) = parse({"instances": [300] * rows}, signature(("x", INT8, None))).arrays
    assert x.dtype == np.int8 and x.tolist() == [44] * rows


def test_second_values_of_a_row_are_the_next_rows_first():
    body = b'{"instances": [{"x": 1, "x": 2}, {"x": 3}]}'
    assert parse(body).arrays[0].tolist() == [1, 2]


@pytest.mark.parametrize("pad", [0, 600])
def test_the_first_of_two_equal_keys_counts_however_long_the_body_is(pad):
    body = b'{"signature_name": "s", "inputs": [1, 2], "inputs": [3], "signature_name": 5' + b" " * pad + b"}"
    assert parse(body).arrays[0].tolist() == [1, 2]


def test_an_object_with_two_b64_keys_is_no_bytes():
    body = b'{"inputs": {"b64": "aGk=", "b64": "aGk="}}'
    assert "Missing named input: x" in message(body, signature(("x", STRING, None)))


def test_a_key_in_a_string_is_no_key():
    s = signature(("x", STRING, (-1,)))
    assert parse(b'{"instances": ["a\\": b", "c: d"]}', s).arrays[0].tolist() == [b'a": b', b"c: d"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"Inf", np.inf), (b"-Inf", -np.inf), (b"-NaN", np.nan), (b"1.8e308", np.inf), (b"10e308", np.inf),
        (b"0.001e311", np.inf), (b"1" + b"0" * 308, np.inf), (b"-0", 0.0), (b"18446744073709551616", 2.0**64),
    ],
)  # fmt: skip
def test_numbers_are_read_as_rapidjson_reads_them(text, value):
    x = parse(b'{"inputs": ' + text + b', "a": "Inf"}').arrays[0]
    np.testing.assert_equal(x, np.float32(value))


@pytest.mark.parametrize("text", [b"1e309", b"1e99999999999", b"1" + b"0" * 309, b"1" + b"0" * 5000, b"11e309"])
def test_numbers_too_big_for_rapidjson_are_refused(text):
    assert "Number too big to be stored in double" in message(b'{"inputs": ' + text + b"}")


def test_a_second_surrogate_by_itself_is_its_three_bytes():
    s = signature(("x", STRING, (-1,)))
    assert parse(b'{"instances": ["\\udc80", "\xff", "\\\\udc80"]}', s).arrays[0].tolist() == [
        b"\xed\xb2\x80", b"\xff", b"\\udc80",
    ]  # fmt: skip


def test_a_tensor_of_a_dtype_that_json_cannot_carry_may_be_without_values():
    half = signature(("x", 19, None), outputs=(("y", 19, None),))
    assert parse({"inputs": []}, half).arrays[0].shape == (0,)
    assert write_predict(half, [np.zeros((0,), np.float16)], True) == b'{\n    "outputs": []\n}'
    assert "half" in message({"inputs": [1]}, half)


def test_nan_and_infinity_are_numbers():
    (x,) = parse(b'{"instances": [NaN, Infinity, -Infinity, 1]}').arrays
    assert np.isnan(x[0]) and x[1] == np.inf and x[2] == -np.inf and x[3] == 1


def test_what_follows_the_document_is_ignored_as_tensorflow_serving_does():
    assert parse(b'{"instances": [1]} trailing').arrays[0].tolist() == [1]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "JSON Parse error"),
        (b"[1]", "Is not object"),
        (b'{"instances": [1e999]}', "too big"),
        (b'{"instances": ' + b"[" * 500_000, "nested deeper"),
        (b"\xff\xfe{", "JSON Parse error"),
        (b'{"instances": ["\\ud800"]}', "surrogate"),
        (b'{"signature_name": "\\uD800\\u0041", "instances": [1]}', "surrogate"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b'{"instances": [], "inputs": []}', "only one of"),
        (b'{"instances": 1}', "to be an list/array"),
        (b'{"instances": []}', "No values"),
        (b'{"instances": [1], "signature_name": 1}', "must be a string"),
        (b'{"instances": [1, {"x": 1}]}', "Expecting value/list but got object at item 1"),
        (b'{"instances": [{"z": 1}]}', "does not have named input: z"),
    ],
)
def test_malformed_bodies_get_their_sentence(body, says):
    assert says in message(body)


def test_brackets_inside_strings_do_not_count_as_nesting():
    s = signature(("x", STRING, (-1,)))
    assert parse(b'{"instances": ["' + b"[" * 5000 + b'"]} x', s).arrays[0][0] == b"[" * 5000


def test_a_single_output_is_written_as_plain_rows():
    reply = json.loads(write_predict(X, [np.array([[0.1, 1]], np.float32)], columnar=False))
    assert reply == {"predictions": [[0.1, 1.0]]}


def test_several_outputs_are_written_as_objects_or_columns():
    s = signature(("x", FLOAT, None), outputs=(("a", FLOAT, None), ("b", INT32, None)))
    arrays = [np.array([1, 2], np.float32), np.array([[3], [4]], np.int32)]
    assert json.loads(write_predict(s, arrays, False)) == {"predictions": [{"a": 1.0, "b": [3]}, {"a": 2.0, "b": [4]}]}
    assert json.loads(write_predict(s, arrays, True)) == {"outputs": {"a": [1.0, 2.0], "b": [[3], [4]]}}


def test_nan_is_written_as_a_token_and_other_values_keep_their_digits():
    s = signature(("x", FLOAT, None), outputs=(("a", FLOAT, None), ("b", FLOAT, None)))
    text = write_predict(s, [np.array([np.nan, 0.1], np.float32), np.array([0.2, -np.inf], np.float32)], False)
    rows = ['{\n            "a": NaN,\n            "b": 0.2', '{\n            "a": 0.1,\n            "b": -Infinity']
    body = ",\n".join(f"        {row}\n        }}" for row in rows)
    assert text.decode() == '{\n    "predictions": [\n' + body + "\n    ]\n}"


def test_outputs_named_bytes_are_base64_and_others_text():
    s = signature(("x", FLOAT, None), outputs=(("a_bytes", STRING, None), ("b", STRING, None)))
    arrays = [np.array([b"\xff"], object), np.array(["é".encode()], object)]
    assert json.loads(write_predict(s, arrays, False)) == {"predictions": [{"a_bytes": {"b64": "/w=="}, "b": "é"}]}


def test_outputs_of_uneven_rows_cannot_be_rows():
    s = signature(("x", FLOAT, None), outputs=(("a", FLOAT, None), ("b", FLOAT, None)))
    with pytest.raises(RequestError, match="inconsistent batch size"):
        write_predict(s, [np.zeros(1, np.float32), np.zeros(2, np.float32)], False)


def test_a_scalar_output_is_written_as_a_value():
    assert json.loads(write_predict(X, [np.array(0.5, np.float32)], columnar=True)) == {"outputs": 0.5}
