"""Numbers, messages and errors in TensorFlow Serving's words and layout."""

import json

import numpy as np
import pytest

from serving.savedmodel_server.rest.json_bodies.layout import columns_json, rows_json
from serving.savedmodel_server.rest.json_bodies.parse_errors import parse_error
from serving.savedmodel_server.rest.json_bodies.rounding import nine_digits
from serving.savedmodel_server.rest.json_bodies.shown import shown
from serving.savedmodel_server.rest.json_bodies.texts import float32_texts, float64_texts, quoted, shortest_text
from serving.savedmodel_server.versions.signatures import TensorSpec

FLOAT = TensorSpec("y", "y:0", 1, None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1435774380.0, "1.43577434e+09"), (9e6, "9e+06"), (1.00000012, "1.00000012"), (0.1, "0.1"), (2.0, "2.0"),
        (1e-7, "1e-07"), (-0.0, "-0.0"), (2147483647, "2.14748365e+09"), (np.nan, "NaN"), (-np.inf, "-Infinity"),
        (16777216.0, "16777216.0"), (3.4028235e38, "3.40282347e+38"),
    ],
)  # fmt: skip
def test_a_float32_has_six_digits_or_nine(value, text):
    assert float32_texts([float(np.float32(value))]) == [text]


def test_a_double_has_six_digits_or_seventeen():
    assert float64_texts([0.5, 1e300, 2.0**63, 0.1 + 0.2]) == [
        "0.5", "1e+300", "9.2233720368547758e+18", "0.30000000000000004",
    ]  # fmt: skip


@pytest.mark.parametrize("scale", [1e-12, 1e-5, 1.0, 1e3, 1e5])
def test_arrays_are_rounded_to_the_numbers_that_single_values_are_written_as(scale):
    rng = np.random.default_rng(1)
    array = (rng.choice([-1, 1], 3000) * rng.uniform(0.2, 9.9, 3000) * scale).astype(np.float32)
    array[::3] = np.round(array[::3] / scale, 3) * scale  # with few digits
    array[::100] = 0
    assert nine_digits(array).tolist() == [float(text) for text in float32_texts(array.tolist())]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e7, 1.2345678e-14])
def test_what_needs_more_care_is_not_rounded_at_once(value):
    assert nine_digits(np.array([1.5, value], np.float32)) is None


@pytest.mark.parametrize("size", [1, 16, 17, 300])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e9])
def test_a_reply_has_the_same_numbers_however_large_it_is(size, scale):
    array = (np.random.default_rng(2).normal(size=(2, size)) * scale).astype(np.float32)
    expected = [[float(text) for text in float32_texts(row.tolist())] for row in array]
    assert json.loads(rows_json(FLOAT, array)) == {"predictions": expected}
    assert json.loads(columns_json([FLOAT], [array])) == {"outputs": expected}


def test_rows_are_on_one_line_and_columns_have_one_for_each_value():
    array = np.array([[2.5, 3], [4, 5]], np.float32)
    assert rows_json(FLOAT, array) == b'{\n    "predictions": [[2.5, 3.0], [4.0, 5.0]\n    ]\n}'
    assert columns_json([FLOAT], [array[0]]) == b'{\n    "outputs": [\n        2.5,\n        3.0\n    ]\n}'


def test_strings_are_escaped_as_rapidjson_does():
    assert quoted('"\\/\b\f\n\r\t\x01\x1f\x7fé') == '"\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001F\x7fé"'


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e38, "1e38"), (1e-7, "1e-7"), (0.00001, "0.00001"), (1.5, "1.5"), (3.5e38, "3.5e38"), (-0.0, "-0.0"),
        (1e20, "100000000000000000000.0"), (123456789.125, "123456789.125"), (-1.25e-9, "-1.25e-9"),
    ],
)  # fmt: skip
def test_a_number_in_a_message_has_its_fewest_digits(value, text):
    assert shortest_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, [True, None], "é"], '[1, [true, null], "é"]'),
        ({"a": {}, "b": [{"c": 1}]}, '{\n    "a": {},\n    "b": [{\n            "c": 1\n        }]\n}'),
        (float("nan"), ""),
        ({"a": float("inf"), "b": 1}, '{\n    "a": '),
    ],
)
def test_a_value_in_a_message_is_laid_out_as_there(value, text):
    assert shown(value) == text


def test_a_long_value_in_a_message_is_cut():
    assert shown(["a" * 100] * 100).count("a" * 100) == 3


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b" ", "The document is empty. at offset: 1"),
        (b"[nan]", "Invalid value. at offset: 2"),
        (b"[+1]", "Invalid value. at offset: 1"),
        (b"[1,]", "Invalid value. at offset: 3"),
        (b"[,1]", "Invalid value. at offset: 1"),
        (b'{"a":}', "Invalid value. at offset: 5"),
        (b"[tru]", "Invalid value. at offset: 4"),
        (b"[Infx]", "Missing a comma or ']' after an array element. at offset: 4"),
        (b"[Infix]", "Invalid value. at offset: 5"),
        (b"[01]", "Missing a comma or ']' after an array element. at offset: 2"),
        (b'{"a": 1 "b"', "Missing a comma or '}' after an object member. at offset: 8"),
        (b'{"a": [1, {"b": 2', "Missing a comma or '}' after an object member. at offset: 17"),
        (b"{a: 1}", "Missing a name for object member. at offset: 1"),
        (b'{"a": 1,}', "Missing a name for object member. at offset: 8"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'["a', "Missing a closing quotation mark in string. at offset: 3"),
        (b'["\\x"]', "Invalid escape character in string. at offset: 2"),
        (b'["a\tb"]', "Invalid escape character in string. at offset: 3"),
        (b'["\\u12"]', "Incorrect hex digit after \\u escape in string. at offset: 2"),
        (b'["\\ud800"]', "The surrogate pair in string is invalid. at offset: 2"),
        (b"[1.]", "Miss fraction part in number. at offset: 3"),
        (b"[1e]", "Miss exponent in number. at offset: 3"),
        (b"[1e400]", "Number too big to be stored in double. at offset: 1"),
        (b'\xef\xbb\xbf{"a": [1, -2.5e-3, "\\ud83d\\ude00", true, false, null, {}, [], NaN, -Infinity]} x', ""),
    ],
)
def test_what_is_wrong_with_a_text_is_told_in_rapidjsons_words(body, error):
    assert parse_error(body) == error
