"""TensorFlow Serving's REST API, case by case, as its documentation and its own tests tell it."""

import base64
import json
import math

import numpy as np
import pytest

pytestmark = [pytest.mark.system, pytest.mark.parametrize("api", ["loop"], indirect=True, scope="session")]
HALF = "half_plus_two"
B64 = {"b64": base64.b64encode(b"\x00\xffbytes").decode()}


def error(answer, status):
    code, body = answer
    assert (code, list(body)) == (status, ["error"]), answer
    return body["error"]


# status and metadata


def test_status_lists_every_version_newest_first(api):
    code, body = api.get(f"/v1/models/{HALF}")
    ok = {"error_code": "OK", "error_message": ""}
    assert code == 200
    assert body == {
        "model_version_status": [
            {"version": "2", "state": "AVAILABLE", "status": ok},
            {"version": "1", "state": "AVAILABLE", "status": ok},
        ]
    }


def test_status_of_one_version(api):
    code, body = api.get(f"/v1/models/{HALF}/versions/1")
    assert code == 200 and [v["version"] for v in body["model_version_status"]] == ["1"]


def test_status_path_is_not_sensitive_to_case(api):
    assert api.get(f"/V1/Models/{HALF}")[0] == 200


@pytest.mark.parametrize("path", ["/v1/models/nope", f"/v1/models/{HALF}/versions/99"])
def test_status_of_what_is_not_there_is_not_found(api, path):
    assert "Could not find" in error(api.get(path), 404)


def test_metadata_describes_inputs_and_outputs(api):
    code, body = api.get(f"/v1/models/{HALF}/metadata")
    assert code == 200
    assert body["model_spec"] == {"name": HALF, "signature_name": "", "version": "2"}
    signature = body["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    x = signature["inputs"]["x"]
    assert x["dtype"] == "DT_FLOAT"
    assert x["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}


def test_metadata_of_a_version(api):
    assert api.get(f"/v1/models/{HALF}/versions/1/metadata")[1]["model_spec"]["version"] == "1"


@pytest.mark.parametrize("label", ["stable", "canary", "nope"])
def test_a_label_chooses_no_version_of_a_status(api, label):
    code, body = api.get(f"/v1/models/{HALF}/labels/{label}")
    assert code == 200 and [v["version"] for v in body["model_version_status"]] == ["2", "1"]


def test_metadata_in_another_case_is_the_status(api):
    assert api.get(f"/v1/models/{HALF}/Metadata") == api.get(f"/v1/models/{HALF}")


def test_a_status_is_told_whatever_body_asks_for_it(api):
    assert api.ask("GET", f"/v1/models/{HALF}", b"hello")[0] == 200


def test_metadata_by_label(api):
    assert api.get(f"/v1/models/{HALF}/labels/stable/metadata")[1]["model_spec"]["version"] == "1"


def test_metadata_lists_every_signature(api):
    found = api.get("/v1/models/zoo/metadata")[1]["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "two_in_two_out", "image", "echo_int8"} <= set(found)


def test_metadata_of_an_unknown_model_is_not_found(api):
    assert "Servable not found for request: Latest(nope)" in error(api.get("/v1/models/nope/metadata"), 404)


# paths


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/foo"),
        ("POST", "/v1/foo"),
        ("GET", "/v1/models/a/b"),
        ("POST", "/v1/models"),
        ("GET", f"/v1/models/{HALF}:predict"),
        ("POST", f"/v1/models/{HALF}"),
        ("POST", f"/v1/models/{HALF}/metadata"),
        ("POST", f"/v1/models/{HALF}:train"),
        ("POST", f"/v1/models/{HALF}/version/1:predict"),
        ("POST", f"/v1/models/{HALF}/versions/one:predict"),
        ("POST", f"/v1/models/{HALF}/versions/-1:predict"),
        ("POST", f"/v1/models/{HALF}/label/stable:predict"),
        ("POST", f"/v1/models/{HALF}/versions/1/labels/stable:predict"),
        ("POST", "/v1/models/:predict"),
        ("POST", f"/v1/models/{HALF}:Predict"),
        ("POST", f"/v1/models/{HALF}:REGRESS"),
        ("POST", f"/v1/models/{HALF}:predict?a=b"),
        ("POST", f"/v1/models/{HALF}/versions/1:classify?x"),
        ("GET", f"/v1/models/{HALF}/versions/1?x"),
        ("PUT", f"/v1/models/{HALF}:predict"),
        ("DELETE", f"/v1/models/{HALF}"),
        ("PATCH", f"/v1/models/{HALF}/metadata"),
        ("PUT", f"/v1/models/{HALF}/versions/{2**63}"),
    ],
)
def test_a_malformed_path_is_an_invalid_argument(api, method, path):
    answer = api.ask(method, path, b'{"instances": [1.0]}')
    assert error(answer, 400) == f"Malformed request: {method} {path}"


def test_head_is_no_method_of_the_api(api):
    assert api.ask("HEAD", f"/v1/models/{HALF}")[0] == 400


def test_a_query_is_a_part_of_the_models_name(api):
    assert error(api.get("/v1/models/m?x=1"), 404) == "Could not find any versions of model m?x=1"
    assert "Latest(m?x=1)" in error(api.get("/v1/models/m?x=1/metadata"), 404)
    assert "Latest(m?a=b)" in error(api.post("/v1/models/m?a=b:predict", {"instances": [1.0]}), 404)


def test_a_missing_model_name_is_told(api):
    assert "Missing model name" in error(api.get("/v1/models"), 400)


@pytest.mark.parametrize("number", [2**63, 2**64, 10**30])
@pytest.mark.parametrize("end", [":predict", ":regress", ":classify", "", "/metadata"])
def test_a_version_beyond_int64_is_refused_without_words(api, number, end):
    method = "POST" if end.startswith(":") else "GET"
    assert api.ask(method, f"/v1/models/{HALF}/versions/{number}{end}", b'{"instances": [1.0]}') == (400, None)


def test_a_name_is_percent_decoded(api):
    assert api.post("/v1/models/half%5Fplus%5Ftwo:predict", {"instances": [1.0]}) == (200, {"predictions": [2.5]})


def test_dots_in_a_name_are_a_name_like_any_other(api):
    assert "Latest(../zoo)" in error(api.post("/v1/models/..%2Fzoo:predict", {"instances": [1.0]}), 404)


# predict: which model


@pytest.mark.parametrize("where", ["", "/versions/1", "/versions/2", "/labels/stable", "/labels/canary"])
def test_predict_with_every_way_to_name_a_version(api, where):
    answer = api.post(f"/v1/models/{HALF}{where}:predict", {"instances": [1.0, 2.0, 5.0]})
    assert answer == (200, {"predictions": [2.5, 3.0, 4.5]})


def test_predict_with_an_unknown_model(api):
    text = error(api.predict("nope", {"instances": [1.0]}), 404)
    assert text == "Servable not found for request: Latest(nope)"


def test_predict_with_an_unknown_version(api):
    text = error(api.post(f"/v1/models/{HALF}/versions/7:predict", {"instances": [1.0]}), 404)
    assert text == f"Servable not found for request: Specific({HALF}, 7)"


def test_predict_with_an_unknown_label(api):
    text = error(api.post(f"/v1/models/{HALF}/labels/nope:predict", {"instances": [1.0]}), 400)
    assert "Unrecognized servable version label: nope" in text


def test_predict_with_an_unknown_signature(api):
    text = error(api.predict(HALF, {"signature_name": "nope", "instances": [1.0]}), 400)
    assert 'Serving signature name: "nope" not found in signature def' in text


def test_an_empty_signature_name_is_the_default_one(api):
    assert api.predict(HALF, {"signature_name": "", "instances": [1.0]}) == (200, {"predictions": [2.5]})


def test_a_bad_body_is_told_before_an_unknown_model(api):
    assert "JSON Parse error" in error(api.predict("nope", "{"), 400)


# predict: rows and columns


def test_rows_of_vectors(api):
    assert api.predict("zoo", {"instances": [[1, 2, 3], [4, 5, 6]]}) == (200, {"predictions": [6.0, 15.0]})


def test_rows_of_objects_with_one_input(api):
    assert api.predict(HALF, {"instances": [{"x": 1.0}, {"x": 2.0}]}) == (200, {"predictions": [2.5, 3.0]})


def test_rows_of_objects_with_two_inputs_and_two_outputs(api):
    rows = [{"a": [1, 2], "b": [3, 4]}, {"b": [1, 1], "a": [0, 5]}]
    code, body = api.zoo("two_in_two_out", instances=rows)
    assert code == 200
    assert body["predictions"] == [
        {"sum": [4.0, 6.0], "product": [3.0, 8.0]},
        {"sum": [1.0, 6.0], "product": [0.0, 5.0]},
    ]


def test_columns_with_one_input(api):
    assert api.predict(HALF, {"inputs": [1.0, 2.0]}) == (200, {"outputs": [2.5, 3.0]})


def test_columns_as_an_object_with_one_input(api):
    assert api.predict(HALF, {"inputs": {"x": [1.0]}}) == (200, {"outputs": [2.5]})


def test_columns_with_two_inputs_and_two_outputs(api):
    code, body = api.zoo("two_in_two_out", inputs={"a": [[1, 2]], "b": [[3, 4]]})
    assert (code, body) == (200, {"outputs": {"sum": [[4.0, 6.0]], "product": [[3.0, 8.0]]}})


def test_a_scalar_column(api):
    assert api.zoo("scalar", inputs=21.0) == (200, {"outputs": 42.0})


def test_rows_of_a_scalar_are_taken_as_a_vector(api):
    assert api.zoo("scalar", instances=[1.0]) == (200, {"predictions": [2.0]})
    assert api.zoo("scalar", inputs=[1.0, 2.0]) == (200, {"outputs": [2.0, 4.0]})


def test_any_rank_is_taken_where_the_signature_leaves_it_open(api):
    assert api.zoo("any_rank", instances=[[[1.0]]]) == (200, {"predictions": [[[2.0]]]})
    assert api.zoo("any_rank", instances=[1.0]) == (200, {"predictions": [2.0]})


def test_outputs_of_uneven_batch_sizes_cannot_be_rows_but_columns(api):
    assert "inconsistent batch size" in error(api.zoo("uneven", instances=[1.0]), 400)
    assert api.zoo("uneven", inputs=[1.0]) == (200, {"outputs": {"y": [1.0], "z": [1.0, 1.0]}})


def test_an_image_shaped_tensor(api):
    image = [[[1.0, 2.0, 3.0]] * 4] * 4
    assert api.zoo("image_like", instances=[image, image]) == (200, {"predictions": [[1.0, 2.0, 3.0]] * 2})


def test_a_thousand_rows(api):
    code, body = api.predict(HALF, {"instances": [float(i) for i in range(1000)]})
    assert code == 200 and body["predictions"][-1] == 501.5 and len(body["predictions"]) == 1000


def test_whole_numbers_are_floats_for_a_float_input(api):
    assert api.predict(HALF, {"instances": [1, -2]}) == (200, {"predictions": [2.5, 1.0]})


def test_numbers_in_scientific_notation(api):
    assert api.predict(HALF, '{"instances": [1e2, 1E-2, -1.5e+1]}') == (200, {"predictions": [52.0, 2.005, -5.5]})


def test_a_float_keeps_its_shortest_digits(api):
    assert api.zoo("echo_float32", instances=[0.1, 16777216.0, 1e-7])[1] == {"predictions": [0.1, 16777216.0, 1e-7]}


def test_whole_floats_are_written_with_a_point(api):
    import requests

    text = requests.post(f"{api.rest}/v1/models/{HALF}:predict", data='{"instances": [2]}', timeout=30).text
    assert "3.0" in text


def test_what_follows_the_document_is_ignored(api):
    assert api.predict(HALF, '{"instances": [1.0]} and more') == (200, {"predictions": [2.5]})


def test_white_space_and_a_byte_order_mark_are_no_harm(api):
    assert api.predict(HALF, ' \n\t{ "instances" : [ 1.0 ] } \n')[0] == 200
    assert api.predict(HALF, b'\xef\xbb\xbf{"instances": [1.0]}')[0] == 200


def test_keys_of_no_meaning_are_ignored(api):
    assert api.predict(HALF, {"instances": [1.0], "comment": {"a": []}}) == (200, {"predictions": [2.5]})


def test_the_first_of_two_equal_keys_counts(api):
    assert api.predict(HALF, '{"instances": [1.0], "instances": 0}') == (200, {"predictions": [2.5]})
    second = json.dumps([[4.0, 5.0, 6.0]] * 100)
    assert api.predict("zoo", f'{{"instances": [[1.0, 2.0, 3.0]], "instances": {second}}}') == (
        200,
        {"predictions": [6.0]},
    )
    assert api.predict(HALF, '{"inputs": {"x": [1.0], "x": [2.0]}}') == (200, {"outputs": [2.5]})


def test_no_value_is_written_of_a_tensor_without_values(api):
    assert api.zoo("half", inputs=[]) == (200, {"outputs": []})
    assert api.zoo("echo_float32", instances=[[], []]) == (200, {"predictions": [[], []]})


# predict: not a number


def test_nan_and_infinity_tokens_come_in(api):
    code, body = api.predict(HALF, '{"instances": [NaN, Infinity, -Infinity]}')
    assert code == 200
    values = body["predictions"]
    assert math.isnan(values[0]) and values[1:] == [math.inf, -math.inf]


def test_infinity_has_a_short_name_too(api):
    answer = api.zoo_text("echo_float32", "instances", "[Inf, -Inf, Infinity, -Infinity]")
    assert answer == (200, {"predictions": [math.inf, -math.inf, math.inf, -math.inf]})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_number_just_beyond_a_double_is_infinite(api, dtype):
    answer = api.zoo_text(f"echo_{dtype}", "instances", "[1.8e308, -1.8e308]")
    assert answer == (200, {"predictions": [math.inf, -math.inf]})
    assert "too big" in error(api.zoo_text(f"echo_{dtype}", "instances", "[1e309]"), 400)


def test_nan_and_infinity_tokens_go_out(api):
    code, body = api.zoo("not_finite", instances=[1.0])
    (row,) = body["predictions"]
    assert code == 200 and row[:2] == [math.inf, -math.inf] and math.isnan(row[2])


# predict: strings and bytes


def test_bytes_go_in_as_b64_and_come_out_as_b64_under_a_name_that_ends_in_bytes(api):
    code, body = api.zoo("to_bytes", instances=[B64])
    assert code == 200 and body["predictions"][0]["y_bytes"] == B64


def test_text_goes_in_and_comes_out_as_text(api):
    code, body = api.zoo("to_bytes", instances=["héllo \u20ac"])
    assert code == 200 and body["predictions"][0]["y_text"] == "héllo \u20ac"


def test_b64_in_columns(api):
    text = base64.b64encode(b"text").decode()
    assert api.zoo("echo_string", inputs=[{"b64": text}]) == (200, {"outputs": ["text"]})


def test_b64_inside_a_named_row(api):
    text = base64.b64encode(b"text").decode()
    assert api.zoo("echo_string", instances=[{"x": {"b64": text}}]) == (200, {"predictions": ["text"]})


def test_bytes_that_are_no_utf_8_are_text(api):
    import requests

    body = b'{"signature_name": "to_bytes", "instances": ["\xff\xfe"]}'
    reply = requests.post(f"{api.rest}/v1/models/zoo:predict", data=body, timeout=30)
    assert reply.status_code == 200 and b'"\xff\xfe"' in reply.content
    assert json.loads(reply.content.decode("latin-1"))["predictions"][0]["y_bytes"] == {"b64": "//4="}


def test_a_string_without_a_shape(api):
    assert api.zoo("to_bytes", inputs="a") == (200, {"outputs": {"y_bytes": {"b64": "YQ=="}, "y_text": "a"}})


def test_an_empty_string(api):
    assert api.zoo("echo_string", instances=[""]) == (200, {"predictions": [""]})


def test_escapes_in_strings(api):
    assert api.zoo("echo_string", instances=['"\\\n\u0001']) == (200, {"predictions": ['"\\\n\u0001']})


def test_b64_that_is_none_is_told(api):
    assert "base64" in error(api.zoo("echo_string", instances=[{"b64": "%%%"}]), 400)


def test_b64_for_a_number_is_a_type_error(api):
    text = error(api.zoo("echo_int32", instances=[{"b64": "AAAA"}]), 400)
    assert "Type: Object is not of expected type: int32" in text


# predict: dtypes and their ranges

GOOD = {
    "float32": [0.5, -1.0, 3],
    "float64": [1e300, -0.1, 1],
    "int8": [-128, 127],
    "int16": [-32768, 32767],
    "int32": [-(2**31), 2**31 - 1],
    "int64": [-(2**63), 2**63 - 1],
    "uint8": [0, 255],
    "uint32": [0, 2**32 - 1],
    "uint64": [0, 2**64 - 1],
    "bool": [True, False],
    "string": ["a", ""],
}


@pytest.mark.parametrize("dtype", GOOD)
def test_a_dtype_goes_in_and_comes_out(api, dtype):
    assert api.zoo(f"echo_{dtype}", instances=GOOD[dtype]) == (200, {"predictions": GOOD[dtype]})


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("value", [128, -129, 255, 256, -1, 300, 32768, -32769, 70000, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("rows", [1, 300])
def test_a_narrow_integer_wraps_around(api, dtype, value, rows):
    wrapped = int(np.array(value, np.int32).astype(dtype))
    assert api.zoo(f"echo_{dtype}", instances=[value] * rows) == (200, {"predictions": [wrapped] * rows})
    assert api.zoo(f"echo_{dtype}", inputs=value) == (200, {"outputs": wrapped})


BAD = [
    ("int8", 2**31, "int8"),
    ("int16", -(2**31) - 1, "int16"),
    ("uint8", 2**31, "uint8"),
    ("int32", 2**31, "int32"),
    ("int32", -(2**31) - 1, "int32"),
    ("int32", 1.5, "int32"),
    ("int32", 1.0, "int32"),
    ("int64", 2**63, "int64"),
    ("int64", 0.5, "int64"),
    ("uint32", -1, "uint32"),
    ("uint32", 2**32, "uint32"),
    ("uint64", -1, "uint64"),
    ("bool", 1, "bool"),
    ("bool", "true", "bool"),
    ("string", 1, "string"),
    ("string", True, "string"),
    ("float32", "1.0", "float"),
    ("float32", True, "float"),
    ("float32", None, "float"),
    ("float64", "x", "double"),
    ("int8", "1", "int8"),
    ("uint8", 1.5, "uint8"),
]


@pytest.mark.parametrize(("dtype", "value", "named"), BAD)
def test_a_value_that_is_none_of_the_dtype_is_told(api, dtype, value, named):
    text = error(api.zoo(f"echo_{dtype}", instances=[value]), 400)
    assert f"is not of expected type: {named}" in text


def test_a_dtype_that_json_cannot_carry_is_told(api):
    assert "half" in error(api.zoo("half", instances=[1.0]), 400)


# predict: wrong bodies

MALFORMED = {
    "empty": ("", "JSON Parse error: The document is empty"),
    "cut": ('{"instances": [1.0', "JSON Parse error"),
    "no json": ("instances", "JSON Parse error"),
    "single quotes": ("{'instances': [1.0]}", "JSON Parse error"),
    "trailing comma": ('{"instances": [1.0,]}', "JSON Parse error"),
    "too big a number": ('{"instances": [1e400]}', "JSON Parse error"),
    "not utf-8": (b'{"instances": ["\xff"]}', ""),
    "a list": ("[1.0]", "Is not object"),
    "a number": ("1", "Is not object"),
    "null": ("null", "Is not object"),
    "no key": ("{}", "Missing 'inputs' or 'instances' key"),
    "both keys": ({"instances": [1.0], "inputs": [1.0]}, "expecting only one of 'inputs' or 'instances'"),
    "instances no list": ({"instances": 1.0}, "Expecting 'instances' to be an list/array"),
    "instances an object": ({"instances": {"x": 1.0}}, "Expecting 'instances' to be an list/array"),
    "no instances": ({"instances": []}, "No values in 'instances' array"),
    "signature no string": ({"instances": [1.0], "signature_name": 5}, "'signature_name' key must be a string value"),
    "wrong name": ({"instances": [{"z": 1.0}]}, "does not have named input: z"),
    "object after values": ({"instances": [1.0, {"x": 1.0}]}, "Expecting value/list but got object at item 1"),
    "value after objects": ({"instances": [{"x": 1.0}, 1.0]}, "Expecting object but got list at item 1"),
    "ragged": ({"instances": [[1.0], [1.0, 2.0]]}, "element: 1"),
    "deeper": ({"instances": [1.0, [1.0]]}, "element: 1"),
    "shallower": ({"instances": [[1.0], 1.0]}, "element: 1"),
    "missing column": ({"inputs": {"z": [1.0]}}, "Missing named input: x in 'inputs' object."),
    "ragged column": ({"inputs": [[1.0], [1.0, 2.0]]}, "unexpected size: 2 at level: 1 expected size: 1"),
    "mixed column": ({"inputs": [[1.0], 1.0]}, "found at incorrect level"),
    "null value": ({"instances": [None]}, "Type: Null is not of expected type: float"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_body_is_told(api, case):
    body, text = MALFORMED[case]
    assert text in error(api.predict(HALF, body), 400)


TWO = {
    "plain rows": ({"instances": [[1.0, 2.0]]}, "expecting list of objects as multiple input tensors"),
    "plain columns": ({"inputs": [[1.0, 2.0]]}, "expecting an object as multiple input tensors"),
    "a row without b": ({"instances": [{"a": [1, 2]}]}, "keys must be equal to: a,b"),
    "columns without b": ({"inputs": {"a": [[1, 2]]}}, "Missing named input: b"),
    "rows of unlike shapes": (
        {"instances": [{"a": [1, 2], "b": [1, 2]}, {"a": [1, 2, 3], "b": [1, 2]}]},
        "Failed to process element: 1 key: a",
    ),
}


@pytest.mark.parametrize("case", TWO)
def test_a_malformed_body_for_two_inputs_is_told(api, case):
    body, text = TWO[case]
    assert text in error(api.zoo("two_in_two_out", **body), 400)


def test_no_shape_is_held_against_the_signature(api):
    assert api.predict("zoo", {"instances": [[1.0, 2.0]]}) == (200, {"predictions": [3.0]})
    assert api.predict(HALF, {"instances": [[1.0, 2.0], [3.0, 4.0]]}) == (
        200,
        {"predictions": [[2.5, 3.0], [3.5, 4.0]]},
    )
    assert api.predict(HALF, {"inputs": 1.0}) == (200, {"outputs": 2.5})
    image = [[[1.0, 2.0]] * 2] * 3
    assert api.zoo("image_like", instances=[image]) == (200, {"predictions": [[1.0, 2.0]]})
    long = [[1.0] * 200, [2.0] * 200]
    assert api.predict("zoo", {"instances": long}) == (200, {"predictions": [200.0, 400.0]})
    rows = [{"a": [1], "b": [2]}, {"a": [3], "b": [4]}]
    assert api.zoo("two_in_two_out", instances=rows)[1]["predictions"][0] == {"sum": [3.0], "product": [2.0]}


def test_an_operation_that_cannot_compute_a_shape_says_so(api):
    assert "Invalid reduction dimension" in error(api.zoo("image_like", instances=[[1.0]]), 400)
    assert "Invalid reduction dimension" in error(api.predict("zoo", {"inputs": 1.0}), 400)


def test_a_model_that_raises_answers_its_own_words(api):
    assert "x must be below 100" in error(api.zoo("raises", instances=[1000.0]), 400)
    assert api.zoo("raises", instances=[1.0])[0] == 200


def test_bytes_that_are_no_image_are_an_invalid_argument(api):
    error(api.zoo("image", instances=[B64]), 400)


# classify and regress


def test_classify_with_classes_and_scores(api):
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]}
    assert api.post(f"/v1/models/{HALF}:classify", body) == (200, {"results": [[["2.5", 2.5]], [["3.0", 3.0]]]})


def test_regress(api):
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": [2.0]}]}
    assert api.post(f"/v1/models/{HALF}:regress", body) == (200, {"results": [2.5, 3.0]})


@pytest.mark.parametrize("where", ["/versions/1", "/labels/stable"])
def test_regress_with_a_version_or_a_label(api, where):
    body = {"signature_name": "regress_x_to_y", "examples": [{"x": 0.0}]}
    assert api.post(f"/v1/models/{HALF}{where}:regress", body) == (200, {"results": [2.0]})


def test_the_last_of_two_features_of_a_name_counts(api):
    body = '{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0, "x": 2.0}]}'
    assert api.post(f"/v1/models/{HALF}:regress", body) == (200, {"results": [3.0]})


def test_a_context_is_shared_by_all_examples(api):
    body = {"signature_name": "regress_x_to_y", "context": {"x": 4.0}, "examples": [{}, {}]}
    assert api.post(f"/v1/models/{HALF}:regress", body) == (200, {"results": [4.0, 4.0]})


EXAMPLES = {
    "no examples": ({}, "'examples' is expected and was not found"),
    "examples no list": ({"examples": {"x": 1.0}}, "Expecting 'examples' value to be an list/array"),
    "no example": ({"examples": []}, "'examples' value is an empty array"),
    "null examples": ({"examples": None}, "Expecting 'examples' value to be an list/array"),
    "no object": ({"examples": [1.0]}, "Example must be JSON object but got JSON Number"),
    "null": ({"examples": [{"x": None}]}, "has element with unexpected JSON type: Null"),
    "nested list": ({"examples": [{"x": [[1.0]]}]}, "has element with unexpected JSON type: Array"),
    "an object": ({"examples": [{"x": {"y": 1}}]}, "has element with unexpected JSON type: Object"),
    "mixed": ({"examples": [{"x": [1.0, "a"]}]}, "expecting type: float"),
    "mixed numbers": ({"examples": [{"x": [1, 1.5]}]}, "expecting type: int64"),
    "uint64": ({"examples": [{"x": [2**63]}]}, "Only int64_t is supported."),
    "missing feature": ({"examples": [{"z": 1.0}]}, ""),
    "wrong type": ({"examples": [{"x": "a"}]}, ""),
}


@pytest.mark.parametrize("case", EXAMPLES)
@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_malformed_examples_are_told(api, case, verb):
    body, text = EXAMPLES[case]
    body = {"signature_name": f"{verb}_x_to_y", **body}
    assert text in error(api.post(f"/v1/models/{HALF}:{verb}", body), 400)


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_classify_and_regress_need_a_signature_of_their_form(api, verb):
    body = {"signature_name": "serving_default", "examples": [{"x": 1.0}]}
    error(api.post(f"/v1/models/{HALF}:{verb}", body), 400)


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_classify_and_regress_with_an_unknown_signature_or_model(api, verb):
    body = {"signature_name": "nope", "examples": [{"x": 1.0}]}
    assert "nope" in error(api.post(f"/v1/models/{HALF}:{verb}", body), 400)
    error(api.post(f"/v1/models/nope:{verb}", body), 404)


def test_replies_are_json_even_for_errors(api):
    import requests

    reply = requests.post(f"{api.rest}/v1/models/nope:predict", data="{}", timeout=30)
    assert reply.headers["content-type"] == "application/json" and json.loads(reply.text)["error"]
