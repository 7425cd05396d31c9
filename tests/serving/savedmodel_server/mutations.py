"""Requests that are nearly right: what fuzzing starts from, and how it damages that. Same seed, same bytes."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator

from tests.serving.savedmodel_server import nearly_valid

PREDICT = "/tensorflow.serving.PredictionService/Predict"
TOKENS = [
    b"NaN", b"-Infinity", b"1e999", b"-0", b"1e-400", b"null", b"true", b"{}", b"[]", b'""', b"18446744073709551616",
    b"[" * 600, b'{"b64": "!"}', b'{"b64": "AAAA"}', b"\xff\xfe", b"\x00", b"\\ud800", b'"signature_name"', b"1.0",
]  # fmt: skip
REST_PATHS = [
    "/v1/models/half_plus_two:predict", "/v1/models/half_plus_two/versions/1:predict", "/v1/models/zoo:predict",
    "/v1/models/half_plus_two:classify", "/v1/models/half_plus_two:regress", "/v1/models/nope:predict",
]  # fmt: skip


def rest_seeds() -> list[bytes]:
    """Bodies that some signature of the zoo answers."""
    image = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
    bodies = [
        {"instances": [1.0, 2.0, 5.0]},
        {"inputs": {"x": [1.0]}},
        {"instances": [{"x": 1.0}, {"x": 2.0}]},
        {"signature_name": "two_in_two_out", "instances": [{"a": [1, 2], "b": [3, 4]}]},
        {"signature_name": "two_in_two_out", "inputs": {"a": [[1, 2]], "b": [[3, 4]]}},
        {"signature_name": "image_like", "instances": [[[[0.5, 1, 2]] * 4] * 4] * 3},
        {"signature_name": "to_bytes", "instances": [{"b64": "aGVsbG8="}, "text"]},
        {"signature_name": "image", "instances": [{"b64": image}]},
        {"signature_name": "raises", "instances": [99.0]},
        {"signature_name": "any_rank", "inputs": [[[1.0]]]},
        {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}], "context": {"z": ["a"]}},
        {"signature_name": "classify_x_to_y", "examples": [{"x": [1.0]}, {"x": 2.0}]},
    ]
    bodies += [
        {"signature_name": f"echo_{dtype}", "instances": [1, 0]} for dtype in ("int8", "uint64", "bool", "string")
    ]
    return [json.dumps(body).encode() for body in bodies]


def damage(data: bytes, rng: random.Random) -> bytes:
    """A few changes: bytes flipped, cut, doubled, moved, or replaced by a token that parsers stumble over."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(6)
        if kind == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.randint(1, 8)]
        elif kind == 2:
            out[at:at] = out[at : at + rng.randint(1, 30)]
        elif kind == 3:
            out[at : at + rng.randint(0, 4)] = rng.choice(TOKENS)
        elif kind == 4:
            out[at:at] = rng.randbytes(rng.randint(1, 6))
        else:
            del out[at:]
    return bytes(out)


def rest_requests(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(path, body) pairs: four of ten damaged in their bytes, five in their structure."""
    rng = random.Random(seed)
    seeds = rest_seeds()
    for _ in range(count):
        body = rng.choice(seeds)
        kind = rng.random()
        body = body if kind < 0.1 else damage(body, rng) if kind < 0.5 else nearly_valid.json_body(body, rng)
        yield rng.choice(REST_PATHS), body


def grpc_seeds() -> list[tuple[str, bytes]]:
    """(method, message) pairs that are answered (importing the messages imports tensorflow)."""
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        inference_pb2,
        predict_pb2,
        regression_pb2,
    )

    def named(message, signature=""):
        message.model_spec.name = "half_plus_two"
        message.model_spec.signature_name = signature
        return message

    predict = named(predict_pb2.PredictRequest(output_filter=["y"]))
    tensor = predict.inputs["x"]
    tensor.dtype = 1
    tensor.float_val.extend([1.0, 2.0])
    tensor.tensor_shape.dim.add(size=2)
    classify = named(classification_pb2.ClassificationRequest(), "classify_x_to_y")
    regress = named(regression_pb2.RegressionRequest(), "regress_x_to_y")
    multi = inference_pb2.MultiInferenceRequest()
    task = multi.tasks.add(method_name="tensorflow/serving/regress")
    named(task, "regress_x_to_y")
    for message in (classify, regress, multi):
        message.input.example_list.examples.add().features.feature["x"].float_list.value.append(1.0)
    metadata = named(get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"]))
    status = named(get_model_status_pb2.GetModelStatusRequest())
    prediction = "/tensorflow.serving.PredictionService/"
    pairs = [
        (f"{prediction}Predict", predict), (f"{prediction}Classify", classify), (f"{prediction}Regress", regress),
        (f"{prediction}MultiInference", multi), (f"{prediction}GetModelMetadata", metadata),
        ("/tensorflow.serving.ModelService/GetModelStatus", status),
    ]  # fmt: skip
    return [(method, message.SerializeToString()) for method, message in pairs]


def grpc_requests(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(method, message) pairs: four of ten damaged in their bytes, five odd calls of Predict."""
    rng = random.Random(seed)
    seeds = grpc_seeds()
    for _ in range(count):
        method, message = rng.choice(seeds)
        kind = rng.random()
        if kind < 0.5:
            yield method, message if kind < 0.1 else damage(message, rng)
        else:
            yield PREDICT, nearly_valid.predict_message(rng)
