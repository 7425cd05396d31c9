"""gRPC calls of every kind for the model half_plus_two, each with the status and the answer that is its own."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PREDICTION = "/tensorflow.serving.PredictionService"
MODEL = "/tensorflow.serving.ModelService"
HEALTH = "/grpc.health.v1.Health"
NAME = "half_plus_two"


@dataclass(frozen=True)
class Call:
    """One call; `is_own` tells whether a response, or the details of an error, answers this one and no other."""

    kind: str
    method: str
    message: bytes
    status: str
    is_own: Callable[[bytes], bool]


def choose(number: int, rng: random.Random) -> Call:
    """A call of a random kind; `number` is below 2**22 and no other call has it."""
    return rng.choices(_MAKERS, _WEIGHTS)[0](number, rng)


def _predict_request(number: int, name: str = NAME) -> Any:
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    tensor = request.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=1)
    tensor.float_val.append(float(number))
    return request


def _predict(number: int, _: random.Random) -> Call:
    from tensorflow_serving.apis import predict_pb2

    def is_own(body: bytes) -> bool:
        return list(predict_pb2.PredictResponse.FromString(body).outputs["y"].float_val) == [number / 2 + 2]

    message = _predict_request(number).SerializeToString()
    return Call("gRPC predict", f"{PREDICTION}/Predict", message, "OK", is_own)


def _with_example(request: Any, signature: str, number: int) -> bytes:
    request.model_spec.name, request.model_spec.signature_name = NAME, signature
    request.input.example_list.examples.add().features.feature["x"].float_list.value.append(float(number))
    message: bytes = request.SerializeToString()
    return message


def _regress(number: int, _: random.Random) -> Call:
    from tensorflow_serving.apis import regression_pb2

    def is_own(body: bytes) -> bool:
        result = regression_pb2.RegressionResponse.FromString(body).result
        return [one.value for one in result.regressions] == [number / 2 + 2]

    message = _with_example(regression_pb2.RegressionRequest(), "regress_x_to_y", number)
    return Call("gRPC regress", f"{PREDICTION}/Regress", message, "OK", is_own)


def _classify(number: int, _: random.Random) -> Call:
    from tensorflow_serving.apis import classification_pb2

    def is_own(body: bytes) -> bool:
        result = classification_pb2.ClassificationResponse.FromString(body).result
        return [one.score for row in result.classifications for one in row.classes] == [number / 2 + 2]

    message = _with_example(classification_pb2.ClassificationRequest(), "classify_x_to_y", number)
    return Call("gRPC classify", f"{PREDICTION}/Classify", message, "OK", is_own)


def _metadata(_: int, __: random.Random) -> Call:
    from tensorflow_serving.apis import get_model_metadata_pb2

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = NAME
    message = request.SerializeToString()
    return Call("gRPC metadata", f"{PREDICTION}/GetModelMetadata", message, "OK", lambda body: b"regress_x" in body)


def _status(_: int, __: random.Random) -> Call:
    from tensorflow_serving.apis import get_model_status_pb2

    def is_own(body: bytes) -> bool:
        versions = get_model_status_pb2.GetModelStatusResponse.FromString(body).model_version_status
        return [(one.version, one.state) for one in versions] == [(2, 30)]

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = NAME
    return Call("gRPC status", f"{MODEL}/GetModelStatus", request.SerializeToString(), "OK", is_own)


def _health(_: int, __: random.Random) -> Call:
    message = bytes([10, len(NAME)]) + NAME.encode()
    return Call("gRPC health", f"{HEALTH}/Check", message, "OK", lambda body: body == b"\x08\x01")


def _unknown_model(number: int, _: random.Random) -> Call:
    name = f"nope{number:07d}"
    message = _predict_request(number, name).SerializeToString()
    method = f"{PREDICTION}/Predict"
    return Call("gRPC broken: unknown model", method, message, "NOT_FOUND", lambda body: name.encode() in body)


def _no_input(number: int, _: random.Random) -> Call:
    request = _predict_request(number)
    del request.inputs["x"]
    message, method = request.SerializeToString(), f"{PREDICTION}/Predict"
    return Call("gRPC broken: no input", method, message, "INVALID_ARGUMENT", lambda body: b"input" in body)


def _no_message(_: int, __: random.Random) -> Call:
    method = f"{PREDICTION}/Predict"
    return Call("gRPC broken: no message", method, b"\xff\xff\xff", "INTERNAL", lambda body: b"deserializing" in body)


def _unknown_method(number: int, _: random.Random) -> Call:
    method = f"{PREDICTION}/Nope{number}"
    return Call("gRPC broken: unknown method", method, b"", "UNIMPLEMENTED", lambda body: b"not found" in body)


Maker = Callable[[int, random.Random], Call]
_SHARES: dict[Maker, int] = {
    _predict: 45, _regress: 10, _classify: 10, _metadata: 4, _status: 6, _health: 8, _unknown_model: 5, _no_input: 4,
    _no_message: 4, _unknown_method: 4,
}  # fmt: skip
_MAKERS, _WEIGHTS = list(_SHARES), list(_SHARES.values())
