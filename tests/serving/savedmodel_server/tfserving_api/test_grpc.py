"""TensorFlow Serving's gRPC API, case by case, as its protos and its own tests tell it."""

import grpc
import numpy as np
import pytest

pytestmark = pytest.mark.system
HALF = "half_plus_two"
DT = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "string": 7, "int64": 9, "bool": 10,
    "uint32": 22, "uint64": 23,
}  # fmt: skip


@pytest.fixture(scope="module")
def pb():
    """The published messages (importing them imports tensorflow)."""
    from types import SimpleNamespace

    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        model_management_pb2,
        predict_pb2,
        regression_pb2,
    )

    return SimpleNamespace(
        classification=classification_pb2, metadata=get_model_metadata_pb2, status=get_model_status_pb2,
        inference=inference_pb2, management=model_management_pb2, predict=predict_pb2, regression=regression_pb2,
    )  # fmt: skip


def predict_request(pb, model, signature="", version=None, label=None, outputs=(), **inputs):
    request = pb.predict.PredictRequest(output_filter=outputs)
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    if label is not None:
        request.model_spec.version_label = label
    for name, array in inputs.items():
        fill(request.inputs[name], array)
    return request


def fill(tensor, array):
    array = np.asarray(array)
    if array.dtype.kind in "OSU":
        tensor.dtype = DT["string"]
        tensor.string_val.extend(array.ravel().tolist())
    else:
        tensor.dtype = DT[array.dtype.name]
        tensor.tensor_content = array.tobytes()
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)


def f32(*values):
    return np.array(values, np.float32)


def predict(api, pb, *args, **kwargs):
    return api.call("Predict", predict_request(pb, *args, **kwargs), pb.predict.PredictResponse)


def refused(run):
    with pytest.raises(grpc.RpcError) as caught:
        run()
    return caught.value.code().name, caught.value.details()


def test_predict_answers_in_typed_fields_with_the_version_that_ran(api, pb):
    response = predict(api, pb, HALF, x=f32(1, 2, 5))
    assert list(response.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert [d.size for d in response.outputs["y"].tensor_shape.dim] == [3]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (HALF, 2, "serving_default")


@pytest.mark.parametrize(("how", "version"), [({"version": 1}, 1), ({"label": "stable"}, 1), ({"label": "canary"}, 2)])
def test_predict_with_a_version_or_a_label(api, pb, how, version):
    assert predict(api, pb, HALF, x=f32(1), **how).model_spec.version.value == version


def test_predict_from_typed_fields(api, pb):
    request = predict_request(pb, HALF)
    tensor = request.inputs["x"]
    tensor.dtype = DT["float32"]
    tensor.float_val.extend([1.0, 3.0])
    tensor.tensor_shape.dim.add(size=2)
    response = api.call("Predict", request, pb.predict.PredictResponse)
    assert list(response.outputs["y"].float_val) == [2.5, 3.5]


def test_one_value_in_a_typed_field_fills_the_whole_shape(api, pb):
    request = predict_request(pb, HALF)
    tensor = request.inputs["x"]
    tensor.dtype = DT["float32"]
    tensor.float_val.append(1.0)
    tensor.tensor_shape.dim.add(size=3)
    response = api.call("Predict", request, pb.predict.PredictResponse)
    assert list(response.outputs["y"].float_val) == [2.5] * 3


def test_two_inputs_and_two_outputs(api, pb):
    response = predict(api, pb, "zoo", "two_in_two_out", a=f32([1, 2]), b=f32([3, 4]))
    found = {name: list(tensor.float_val) for name, tensor in response.outputs.items()}
    assert found == {"sum": [4.0, 6.0], "product": [3.0, 8.0]}


def test_the_output_filter_chooses_outputs(api, pb):
    response = predict(api, pb, "zoo", "two_in_two_out", outputs=["product"], a=f32([1, 2]), b=f32([3, 4]))
    assert list(response.outputs) == ["product"]


def test_an_unknown_output_in_the_filter_is_told(api, pb):
    code, text = refused(lambda: predict(api, pb, HALF, outputs=["nope"], x=f32(1)))
    assert code == "INVALID_ARGUMENT" and "output tensor alias not found in signature: nope" in text


def test_a_doubled_output_in_the_filter_is_told(api, pb):
    code, text = refused(lambda: predict(api, pb, HALF, outputs=["y", "y"], x=f32(1)))
    assert (code, text) == ("INVALID_ARGUMENT", "duplicate output tensor alias: y")


def test_a_scalar(api, pb):
    response = predict(api, pb, "zoo", "scalar", x=np.float32(21))
    assert list(response.outputs["y"].float_val) == [42.0] and not response.outputs["y"].tensor_shape.dim


ECHO = {
    "float32": [0.5, -1.5], "float64": [1e300], "int8": [-128, 127], "int16": [-32768], "int32": [-(2**31)],
    "int64": [2**63 - 1], "uint8": [255], "uint32": [2**32 - 1], "uint64": [2**64 - 1], "bool": [True, False],
}  # fmt: skip
FIELD = {
    "float32": "float_val", "float64": "double_val", "int8": "int_val", "int16": "int_val", "int32": "int_val",
    "int64": "int64_val", "uint8": "int_val", "uint32": "uint32_val", "uint64": "uint64_val", "bool": "bool_val",
}  # fmt: skip


@pytest.mark.parametrize("dtype", ECHO)
def test_a_dtype_goes_in_and_comes_out(api, pb, dtype):
    response = predict(api, pb, "zoo", f"echo_{dtype}", x=np.array(ECHO[dtype], dtype))
    assert list(getattr(response.outputs["y"], FIELD[dtype])) == ECHO[dtype]


def test_bytes_go_in_and_come_out(api, pb):
    response = predict(api, pb, "zoo", "echo_string", x=np.array([b"\x00\xff", b""], object))
    assert list(response.outputs["y"].string_val) == [b"\x00\xff", b""]


@pytest.mark.parametrize(
    ("ask", "code", "text"),
    [
        ({"model": "nope"}, "NOT_FOUND", "Servable not found for request: Latest(nope)"),
        ({"model": HALF, "version": 7}, "NOT_FOUND", f"Servable not found for request: Specific({HALF}, 7)"),
        ({"model": HALF, "label": "nope"}, "INVALID_ARGUMENT", "Unrecognized servable version label: nope"),
        ({"model": HALF, "signature": "nope"}, "FAILED_PRECONDITION", 'Serving signature key "nope" not found.'),
        ({"model": ""}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ],
)
def test_what_is_not_served_is_named(api, pb, ask, code, text):
    assert refused(lambda: predict(api, pb, **ask, x=f32(1))) == (code, text)


def test_a_request_without_a_model_spec_is_told(api, pb):
    code, text = refused(lambda: api.call("Predict", pb.predict.PredictRequest(), pb.predict.PredictResponse))
    assert (code, text) == ("INVALID_ARGUMENT", "Missing ModelSpec")


@pytest.mark.parametrize("inputs", [{}, {"z": f32(1)}, {"x": f32(1), "z": f32(1)}])
def test_wrong_input_names_are_told(api, pb, inputs):
    code, _ = refused(lambda: predict(api, pb, HALF, **inputs))
    assert code == "INVALID_ARGUMENT"


def test_too_many_inputs_are_listed(api, pb):
    _, text = refused(lambda: predict(api, pb, HALF, x=f32(1), z=f32(1)))
    assert "input size does not match signature: 2!=1" in text and "Sent extra: {z}" in text


@pytest.mark.parametrize("array", [np.array([1.0]), np.array([1]), np.array([b"1"], object)])
def test_a_wrong_dtype_is_told(api, pb, array):
    assert refused(lambda: predict(api, pb, HALF, x=array))[0] == "INVALID_ARGUMENT"


def test_no_shape_is_held_against_the_signature(api, pb):
    assert list(predict(api, pb, "zoo", x=f32([1, 2])).outputs["y"].float_val) == [3.0]
    assert list(predict(api, pb, HALF, x=np.float32(1)).outputs["y"].float_val) == [2.5]
    response = predict(api, pb, HALF, x=f32([1, 2], [3, 4]))
    assert [d.size for d in response.outputs["y"].tensor_shape.dim] == [2, 2]
    assert list(predict(api, pb, "zoo", "scalar", x=f32(1, 2)).outputs["y"].float_val) == [2.0, 4.0]
    assert list(predict(api, pb, "zoo", "echo_string", x=np.array(b"a", object)).outputs["y"].string_val) == [b"a"]


def test_an_operation_that_cannot_compute_a_shape_says_so(api, pb):
    code, text = refused(lambda: predict(api, pb, "zoo", x=np.float32(1)))
    assert code == "INVALID_ARGUMENT" and "Invalid reduction dimension" in text


def typed_values(api, pb, dtype, size, *values):
    """What the zoo answers to a tensor of `size` with these values in its typed field."""
    request = predict_request(pb, "zoo", f"echo_{dtype}")
    tensor = request.inputs["x"]
    tensor.dtype = DT[dtype]
    field = FIELD.get(dtype, "string_val")
    getattr(tensor, field).extend(values)
    tensor.tensor_shape.dim.add(size=size)
    return list(getattr(api.call("Predict", request, pb.predict.PredictResponse).outputs["y"], field))


@pytest.mark.parametrize("dtype", ECHO)
def test_values_beyond_the_shape_are_cut(api, pb, dtype):
    assert typed_values(api, pb, dtype, 1, 1, 0, 1) == [1]
    assert typed_values(api, pb, dtype, 0, 1, 0) == []


def test_strings_beyond_the_shape_are_cut(api, pb):
    assert typed_values(api, pb, "string", 1, b"a", b"b") == [b"a"]


@pytest.mark.parametrize(
    ("dtype", "sent", "found"),
    [("int8", 300, 44), ("uint8", 300, 44), ("uint8", -1, 255), ("int16", 70000, 4464), ("int8", -129, 127)],
)
def test_a_narrow_integer_wraps_around(api, pb, dtype, sent, found):
    assert typed_values(api, pb, dtype, 1, sent) == [found]


def test_a_tensor_whose_content_is_too_short_is_told(api, pb):
    request = predict_request(pb, HALF, x=f32(1, 2))
    request.inputs["x"].tensor_content = b"\x00" * 5
    assert refused(lambda: api.call("Predict", request, pb.predict.PredictResponse))[0] == "INVALID_ARGUMENT"


def test_a_tensor_with_a_negative_size_is_told(api, pb):
    request = predict_request(pb, HALF, x=f32(1))
    request.inputs["x"].tensor_shape.dim[0].size = -5
    assert refused(lambda: api.call("Predict", request, pb.predict.PredictResponse))[0] == "INVALID_ARGUMENT"


def test_a_model_that_raises_answers_its_own_words(api, pb):
    code, text = refused(lambda: predict(api, pb, "zoo", "raises", x=f32(1000)))
    assert code == "INVALID_ARGUMENT" and "x must be below 100" in text


def examples(given, *values):
    for value in values:
        given.example_list.examples.add().features.feature["x"].float_list.value.append(value)


def test_classify(api, pb):
    request = pb.classification.ClassificationRequest()
    request.model_spec.name, request.model_spec.signature_name = HALF, "classify_x_to_y"
    examples(request.input, 1.0, 2.0)
    result = api.call("Classify", request, pb.classification.ClassificationResponse).result
    found = [[(c.label, c.score) for c in row.classes] for row in result.classifications]
    assert found == [[("2.5", 2.5)], [("3.0", 3.0)]]


def test_regress(api, pb):
    request = pb.regression.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = HALF, "regress_x_to_y"
    examples(request.input, 1.0)
    response = api.call("Regress", request, pb.regression.RegressionResponse)
    assert [r.value for r in response.result.regressions] == [2.5]
    assert response.model_spec.signature_name == "regress_x_to_y"


def test_a_context_is_merged_into_each_example(api, pb):
    request = pb.regression.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = HALF, "regress_x_to_y"
    given = request.input.example_list_with_context
    given.context.features.feature["x"].float_list.value.append(4.0)
    given.examples.add()
    given.examples.add()
    response = api.call("Regress", request, pb.regression.RegressionResponse)
    assert [r.value for r in response.result.regressions] == [4.0, 4.0]


@pytest.mark.parametrize("method", ["Classify", "Regress"])
def test_no_examples_are_told(api, pb, method):
    classes = {
        "Classify": (pb.classification.ClassificationRequest, pb.classification.ClassificationResponse),
        "Regress": (pb.regression.RegressionRequest, pb.regression.RegressionResponse),
    }
    request_class, response_class = classes[method]
    request = request_class()
    request.model_spec.name = HALF
    request.model_spec.signature_name = f"{method.lower()}_x_to_y"
    code, text = refused(lambda: api.call(method, request, response_class))
    assert (code, text) == ("INVALID_ARGUMENT", "Input is empty.")


def multi(pb, *tasks):
    request = pb.inference.MultiInferenceRequest()
    for method, model, signature in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model, signature
    examples(request.input, 1.0)
    return request


def test_multi_inference_runs_every_task_on_the_same_examples(api, pb):
    request = multi(pb, ("regress", HALF, "regress_x_to_y"), ("classify", HALF, "classify_x_to_y"))
    response = api.call("MultiInference", request, pb.inference.MultiInferenceResponse)
    assert response.results[0].regression_result.regressions[0].value == 2.5
    assert response.results[1].classification_result.classifications[0].classes[0].score == 2.5


@pytest.mark.parametrize(
    ("tasks", "code", "text"),
    [
        ([("regress", HALF, "regress_x_to_y")] * 2, "INVALID_ARGUMENT", "Duplicate evaluation of signature"),
        (
            [("regress", HALF, "regress_x_to_y"), ("regress", "zoo", "x")],
            "INVALID_ARGUMENT",
            "must access the same model name",
        ),
        ([("predict", HALF, "serving_default")], "UNIMPLEMENTED", "Unsupported signature method_name"),
        ([("regress", HALF, "nope")], "INVALID_ARGUMENT", "Requested signature not found in model graph: nope"),
    ],
)
def test_wrong_tasks_are_told(api, pb, tasks, code, text):
    found = refused(lambda: api.call("MultiInference", multi(pb, *tasks), pb.inference.MultiInferenceResponse))
    assert found[0] == code and text in found[1]


def metadata_request(pb, model, *fields):
    request = pb.metadata.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = model
    return request


def test_metadata_carries_the_signatures(api, pb):
    response = api.call(
        "GetModelMetadata", metadata_request(pb, HALF, "signature_def"), pb.metadata.GetModelMetadataResponse
    )
    found = pb.metadata.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert found.signature_def["serving_default"].inputs["x"].dtype == DT["float32"]
    assert response.model_spec.version.value == 2


@pytest.mark.parametrize(
    ("fields", "text"), [([], "must specify at least one metadata_field"), (["graph"], "Metadata field graph is not")]
)
def test_wrong_metadata_fields_are_told(api, pb, fields, text):
    request = metadata_request(pb, HALF, *fields)
    code, details = refused(lambda: api.call("GetModelMetadata", request, pb.metadata.GetModelMetadataResponse))
    assert code == "INVALID_ARGUMENT" and text in details


def test_metadata_of_an_unknown_model_is_not_found(api, pb):
    request = metadata_request(pb, "nope", "signature_def")
    assert (
        refused(lambda: api.call("GetModelMetadata", request, pb.metadata.GetModelMetadataResponse))[0] == "NOT_FOUND"
    )


def status(api, pb, model, version=None):
    request = pb.status.GetModelStatusRequest()
    request.model_spec.name = model
    if version is not None:
        request.model_spec.version.value = version
    return api.call("GetModelStatus", request, pb.status.GetModelStatusResponse).model_version_status


def test_status_tells_every_version(api, pb):
    found = status(api, pb, HALF)
    assert [(s.version, s.state, s.status.error_code) for s in found] == [(2, 30, 0), (1, 30, 0)]


def test_status_of_one_version(api, pb):
    assert [s.version for s in status(api, pb, HALF, 1)] == [1]


@pytest.mark.parametrize(("model", "version"), [("nope", None), (HALF, 99)])
def test_status_of_what_is_not_there_is_not_found(api, pb, model, version):
    code, text = refused(lambda: status(api, pb, model, version))
    assert code == "NOT_FOUND" and "Could not find" in text


def test_a_reload_without_a_model_list_is_told(api, pb):
    request = pb.management.ReloadConfigRequest()
    try:
        code = api.call("HandleReloadConfigRequest", request, pb.management.ReloadConfigResponse).status.error_code
    except grpc.RpcError as error:
        code = error.code().value[0]
    assert code == 3


def test_an_unknown_method_is_unimplemented(api, pb):
    run = api.channel.unary_unary("/tensorflow.serving.PredictionService/Nope")
    assert refused(lambda: run(b"", timeout=10))[0] == "UNIMPLEMENTED"


def test_bytes_that_are_no_message_are_refused_and_the_server_lives(api, pb):
    run = api.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    assert refused(lambda: run(b"\xff\xff\xff", timeout=10))[0] in ("INTERNAL", "INVALID_ARGUMENT")
    assert list(predict(api, pb, HALF, x=f32(1)).outputs["y"].float_val) == [2.5]
