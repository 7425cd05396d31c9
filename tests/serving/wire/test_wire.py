"""Wire formats: requests are what the servers' published messages say, replies are taken strictly."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from PIL import Image

from models.answers import AnswerNames
from models.manifest import InputSpec
from models.preprocessing import preprocess
from serving.errors import WireError
from serving.wire import PAYLOADS, WIRES, PayloadSpec, is_right, payload_spec
from serving.wire.protos import tfserving_pb2, torchserve_pb2
from tests.source_tree import ROOT

INPUT = InputSpec(height=4, width=4, mean=[0.5] * 3, std=[0.25] * 3)
SPEC = PayloadSpec("serving_default", "tensor", "image_bytes", "images", INPUT)
TF, TORCH = WIRES["tfserving"], WIRES["torchserve"]
ROWS = [[0.25, 0.75], [1.0, 0.0]]
NAMES = AnswerNames(output="probabilities")


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


IMAGES = [png(1), png(2)]


@pytest.fixture(scope="module")
def tfs():
    """TensorFlow Serving's published messages."""
    pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

    return {"predict": predict_pb2, "metadata": get_model_metadata_pb2, "status": get_model_status_pb2}


def test_it_imports_no_framework_and_stays_small():
    code = (
        "import sys, serving.wire as w; "
        "heavy = {'tensorflow', 'torch', 'ts', 'tensorflow_serving', 'grpc', 'keras', 'psutil', 'requests'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        # not ru_maxrss, which a child inherits from whoever forked it
        "print(next(int(line.split()[1]) // 1024 for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert int(told.stdout) < 100  # MiB


@pytest.mark.parametrize("name", ["tfserving", "torchserve"])
def test_generated_messages_are_those_of_the_proto_file(name, tmp_path):
    proto = f"serving/wire/protos/{name}.proto"
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT), f"--python_out={tmp_path}"]
    subprocess.run([*command, f"--pyi_out={tmp_path}", str(ROOT / proto)], check=True)
    for suffix in ("_pb2.py", "_pb2.pyi"):
        path = proto.replace(".proto", suffix)
        assert (tmp_path / path).read_text() == (ROOT / path).read_text()


# --- the published messages -------------------------------------------------------------------------------


def test_an_image_request_reads_as_tensorflow_serving_writes_it(tfs):
    body = TF.grpc_predict("cnn", IMAGES, "image", SPEC).body
    request = tfs["predict"].PredictRequest.FromString(body)
    assert request.model_spec.name == "cnn"
    assert request.model_spec.signature_name == "serving_default"
    assert list(request.inputs["image_bytes"].string_val) == IMAGES
    assert request.SerializeToString(deterministic=True) == body


def test_a_tensor_request_reads_as_tensorflow_reads_tensors(tfs):
    from tensorflow import make_ndarray

    request = tfs["predict"].PredictRequest.FromString(TF.grpc_predict("cnn", IMAGES, "tensor", SPEC).body)
    found = make_ndarray(request.inputs["images"])
    assert request.model_spec.signature_name == "tensor"
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [preprocess(image, INPUT) for image in IMAGES])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [ROWS, [[0.5, 0.5]]])
def test_replies_that_tensorflow_writes_are_read(tfs, dtype, rows):
    from tensorflow import make_tensor_proto

    response = tfs["predict"].PredictResponse()
    response.outputs["probabilities"].CopyFrom(make_tensor_proto(np.array(rows, dtype)))
    found = TF.grpc_answer(response.SerializeToString(), images=len(rows))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, rows)


def test_values_left_out_at_the_end_equal_the_last_one(tfs):
    response = tfs["predict"].PredictResponse()
    output = response.outputs["probabilities"]
    output.dtype = 1
    output.tensor_shape.dim.add().size = 1
    output.tensor_shape.dim.add().size = 2
    output.float_val.append(0.5)
    np.testing.assert_array_equal(TF.grpc_answer(response.SerializeToString()), [[0.5, 0.5]])
    output.tensor_shape.dim[1].size = 3
    output.float_val.append(0.25)
    np.testing.assert_array_equal(TF.grpc_answer(response.SerializeToString()), [[0.5, 0.25, 0.25]])


PUBLISHED_TF = {
    "Tensor": "tensorflow.TensorProto",
    "TensorShape": "tensorflow.TensorShapeProto",
    "TensorShape.Dim": "tensorflow.TensorShapeProto.Dim",
    "ModelSpec": "tensorflow.serving.ModelSpec",
    "PredictRequest": "tensorflow.serving.PredictRequest",
    "PredictResponse": "tensorflow.serving.PredictResponse",
    "TensorInfo": "tensorflow.TensorInfo",
    "SignatureDef": "tensorflow.SignatureDef",
    "SignatureDefMap": "tensorflow.serving.SignatureDefMap",
    "GetModelMetadataRequest": "tensorflow.serving.GetModelMetadataRequest",
    "GetModelMetadataResponse": "tensorflow.serving.GetModelMetadataResponse",
    "GetModelStatusRequest": "tensorflow.serving.GetModelStatusRequest",
    "Status": "tensorflow.serving.StatusProto",
    "ModelVersionStatus": "tensorflow.serving.ModelVersionStatus",
    "GetModelStatusResponse": "tensorflow.serving.GetModelStatusResponse",
}
ENUM_AS_INT = {("Status", "error_code")}  # an enum travels as an integer


@pytest.mark.parametrize("ours", sorted(PUBLISHED_TF))
def test_each_field_has_tensorflow_servings_number_type_and_cardinality(tfs, ours):
    from google.protobuf import descriptor_pool

    pool = descriptor_pool.Default()
    mine = pool.FindMessageTypeByName(f"servestorm.wire.tfserving.{ours}")
    theirs = pool.FindMessageTypeByName(PUBLISHED_TF[ours])
    for field in mine.fields:
        published = theirs.fields_by_name[field.name]
        assert (field.number, field.is_repeated) == (published.number, published.is_repeated), field.name
        if (ours, field.name) not in ENUM_AS_INT:
            assert field.type == published.type, field.name
        if field.enum_type:
            numbers = {value.name: value.number for value in published.enum_type.values}
            assert all(numbers[value.name] == value.number for value in field.enum_type.values)


@pytest.fixture(scope="module")
def torchserve_messages(tmp_path_factory) -> dict[str, descriptor_pb2.DescriptorProto]:
    """Messages of the protos in the installed TorchServe's jar, by name."""
    folder = tmp_path_factory.mktemp("protos")
    jar = Path(importlib.util.find_spec("ts").origin).parent / "frontend" / "model-server.jar"
    with zipfile.ZipFile(jar) as contents:
        contents.extractall(folder, [n for n in contents.namelist() if n.endswith(".proto")])
    out = folder / "set.bin"
    names = ["proto/inference.proto", "proto/management.proto"]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(folder), f"--descriptor_set_out={out}"]
    subprocess.run([*command, *names], check=True)
    files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    return {message.name: message for file in files for message in file.message_type}


@pytest.mark.parametrize("ours", sorted(torchserve_pb2.DESCRIPTOR.message_types_by_name))
def test_each_field_has_torchserves_number_type_and_cardinality(torchserve_messages, ours):
    mine = descriptor_pb2.DescriptorProto()
    torchserve_pb2.DESCRIPTOR.message_types_by_name[ours].CopyToProto(mine)
    theirs = torchserve_messages[{"HealthResponse": "TorchServeHealthResponse"}.get(ours, ours)]
    published = {field.name: field for field in theirs.field}
    for field in mine.field:
        other = published[field.name]
        assert (field.number, field.type, field.label) == (other.number, other.type, other.label), field.name


# --- requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", ["image", "b64"])
def test_tensorflow_serving_takes_images_as_base64(payload):
    request = TF.rest_predict("my cnn", IMAGES, payload, SPEC)
    assert (request.method, request.path) == ("POST", "/v1/models/my%20cnn:predict")
    document = json.loads(request.body)
    assert document["signature_name"] == "serving_default"
    assert [base64.b64decode(item["b64"]) for item in document["instances"]] == IMAGES


def test_torchserve_takes_one_image_as_it_is_and_several_as_base64():
    one, two = (TORCH.rest_predict("cnn", IMAGES[:n], "image", SPEC) for n in (1, 2))
    assert (one.path, one.body, one.content_type) == ("/predictions/cnn", IMAGES[0], "application/octet-stream")
    assert two.content_type == "application/json"
    assert [base64.b64decode(item["b64"]) for item in json.loads(two.body)["instances"]] == IMAGES


@pytest.mark.parametrize("engine", WIRES)
def test_a_json_tensor_reads_back_as_the_very_float32_values(engine):
    document = json.loads(WIRES[engine].rest_predict("cnn", IMAGES, "tensor", SPEC).body)
    found = np.array(document["instances"], np.float32)
    np.testing.assert_array_equal(found, [preprocess(image, INPUT) for image in IMAGES])


@pytest.mark.parametrize("payload", PAYLOADS)
def test_torchserves_grpc_input_is_its_rest_body(payload):
    request = TORCH.grpc_predict("cnn", IMAGES, payload, SPEC)
    message = torchserve_pb2.PredictionsRequest.FromString(request.body)
    assert request.path == "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    assert message.model_name == "cnn"
    assert message.input["data"] == TORCH.rest_predict("cnn", IMAGES, payload, SPEC).body


def test_the_spec_without_a_manifest_is_that_of_an_exported_model_without_tensors():
    spec = payload_spec(None)
    assert spec == PayloadSpec("serving_default", "tensor", "image_bytes", "images", None)
    with pytest.raises(WireError, match="no input spec"):
        TF.rest_predict("cnn", IMAGES, "tensor", spec)


@pytest.mark.parametrize("engine", WIRES)
@pytest.mark.parametrize("method", ["rest_predict", "grpc_predict"])
def test_requests_that_cannot_be_made_are_refused(engine, method):
    make = getattr(WIRES[engine], method)
    with pytest.raises(WireError, match="'video' is unknown"):
        make("cnn", IMAGES, "video", SPEC)
    with pytest.raises(WireError, match="at least one image"):
        make("cnn", [], "image", SPEC)
    with pytest.raises(WireError, match="cannot be made a tensor"):
        make("cnn", [b"no image"], "tensor", SPEC)


def test_a_signature_that_the_model_lacks_is_told_with_the_payload_that_works():
    only_images = PayloadSpec("serving_default", None, "image_bytes", None, INPUT)
    with pytest.raises(WireError, match="choose payload 'image'"):
        TF.rest_predict("cnn", IMAGES, "tensor", only_images)


# --- replies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", WIRES)
def test_predictions_are_read_with_and_without_output_names(engine):
    answer = WIRES[engine].rest_answer
    named = [{"probabilities": row, "logits": [9, 9]} for row in ROWS]
    np.testing.assert_array_equal(answer(json.dumps({"predictions": ROWS}).encode(), images=2), ROWS)
    np.testing.assert_array_equal(answer(json.dumps({"predictions": named}).encode(), NAMES, 2), ROWS)


BAD = {
    "nothing": b"",
    "text": b"<html>busy</html>",
    "an error": b'{"error": "no such model"}',
    "no rows": b'{"predictions": []}',
    "empty rows": b'{"predictions": [[], []]}',
    "ragged rows": b'{"predictions": [[0.5, 0.5], [1.0]]}',
    "strings": b'{"predictions": [["0.5", "0.5"]]}',
    "null": b'{"predictions": [[null, 0.5]]}',
    "truth values": b'{"predictions": [[true, false]]}',
    "not finite": b'{"predictions": [[NaN, 0.5]]}',
    "too large": b'{"predictions": [[1e999, 0.5]]}',
    "several outputs, none chosen": b'{"predictions": [{"a": [0.5], "b": [0.5]}]}',
    "mixed rows": b'{"predictions": [{"a": [0.5]}, [0.5]]}',
    "cut off": b'{"predictions": [[0.5, 0.5',
}
BAD_ROWS = {
    "a list": b"[[0.5, 0.5]]",
    "one row unwrapped": b'{"predictions": [0.5, 0.5]}',
    "a number": b'{"predictions": 1}',
}
"""What a handler of TorchServe may answer to one image, and TensorFlow Serving never does."""


@pytest.mark.parametrize(
    ("engine", "what"), [*(("savedmodel", what) for what in BAD | BAD_ROWS), *(("torchserve", what) for what in BAD)]
)
def test_a_rest_reply_that_is_not_what_was_asked_is_refused_in_one_sentence(engine, what):
    with pytest.raises(WireError) as caught:
        WIRES[engine].rest_answer((BAD | BAD_ROWS)[what])
    assert str(caught.value).startswith("the reply") and "\n" not in str(caught.value)


@pytest.mark.parametrize("what", BAD)
def test_a_torchserve_grpc_reply_is_held_to_the_same(what):
    body = torchserve_pb2.PredictionResponse(prediction=BAD[what]).SerializeToString()
    with pytest.raises(WireError):
        TORCH.grpc_answer(body)


def _reply(**tensors) -> bytes:
    # in a fixed order: the bytes are names of tests, which all workers must agree on
    return tfserving_pb2.PredictResponse(outputs=tensors).SerializeToString(deterministic=True)


def _tensor(sizes, **values):
    dims = [tfserving_pb2.TensorShape.Dim(size=size) for size in sizes]
    return tfserving_pb2.Tensor(tensor_shape=tfserving_pb2.TensorShape(dim=dims), **values)


FLOAT = tfserving_pb2.DT_FLOAT
GOOD = _tensor([1, 2], dtype=FLOAT, float_val=[0.5, 0.5])


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"\xff\xff", "not a PredictResponse"),
        (_reply(), "no outputs"),
        (_reply(a=GOOD, b=GOOD), "outputs a, b"),
        (_reply(a=_tensor([1], dtype=tfserving_pb2.DT_STRING, string_val=[b"x"])), "not a number"),
        (_reply(a=_tensor([1, 3], dtype=FLOAT, float_val=[0.5] * 4)), "4 values for shape"),
        (_reply(a=_tensor([1, 3], dtype=FLOAT)), "0 values for shape"),
        (_reply(a=_tensor([1 << 40, 1 << 20], dtype=FLOAT, float_val=[0.5])), "has shape"),
        (_reply(a=_tensor([1, 3], dtype=FLOAT, tensor_content=b"1234")), "4 bytes for shape"),
        (_reply(a=_tensor([2], dtype=FLOAT, float_val=[0.5, 0.5])), "not one row for each image"),
        (_reply(a=_tensor([1, 2], dtype=FLOAT, float_val=[float("nan"), 0.5])), "not all finite"),
        (_reply(a=_tensor([-1, -2], dtype=FLOAT, float_val=[0.5, 0.5])), "shape"),
    ],
)
def test_a_grpc_reply_that_is_not_what_was_asked_is_refused(body, told):
    with pytest.raises(WireError, match=told):
        TF.grpc_answer(body)


def test_one_of_several_outputs_is_chosen_by_name():
    body = _reply(a=_tensor([1, 1], dtype=FLOAT, float_val=[0.5]), probabilities=GOOD)
    np.testing.assert_array_equal(TF.grpc_answer(body, NAMES), [[0.5, 0.5]])


def test_an_answer_is_right_within_the_tolerance_and_only_in_its_shape():
    expected = np.array([[0.25, 0.75]])
    assert is_right(expected + 0.0009, expected)
    assert not is_right(expected + 0.0011, expected)
    assert not is_right(np.array([[0.25, 0.75], [0.25, 0.75]]), expected)


def test_numbers_larger_than_probabilities_may_differ_by_what_float32_rounds():
    logits = np.array([[-20_000.0, 3.0], [0.5, 0.5]])
    assert is_right(np.add(logits, [[0.1, -0.1], [0.0005, 0]]), logits)
    assert not is_right(np.add(logits, [[0.3, 0], [0, 0]]), logits)
    assert not is_right(np.add(logits, [[0, 0], [0.0011, 0]]), logits)
    assert not is_right(np.array([[20_842.0]]), np.array([[20_841.0]]))  # the numbers of two classes
