"""gRPC calls: predictions, tf.Examples, metadata and status; valid ones, and such with a few things wrong."""

from __future__ import annotations

import math
import random
from typing import Any

from google.protobuf.message import DecodeError, Message
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

from benchmarks.savedmodel_server.grammar.json_bodies import shape_of
from benchmarks.savedmodel_server.grammar.message_faults import EXAMPLE_FAULTS, FAULTS, odd_model
from benchmarks.savedmodel_server.grammar.tensors import FLOATS, fill
from benchmarks.savedmodel_server.grammar.zoo_signatures import HALF, SIGNATURES, ZOO
from tests.serving.savedmodel_server.mutations import damage

LARGEST = 1 << 20
"""Elements of a damaged tensor that a server is asked to fill up."""
PREDICTION = "/tensorflow.serving.PredictionService/"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"


def grpc_call(rng: random.Random, valid: bool) -> tuple[str, str, bytes]:
    """(what it is, method, message)."""
    kind = rng.choices([predict, examples, metadata, status, unknown], [12, 4, 1, 1, 0 if valid else 0.3])[0]
    what, method, message = kind(rng, valid)
    data = message.SerializeToString(deterministic=True)
    if not valid and rng.random() < 0.2:
        damaged = damage(data, rng)
        if is_bounded(damaged):
            return f"{method.rpartition('/')[2]} damaged bytes", method, damaged
    return what, method, data


def predict(rng: random.Random, valid: bool) -> tuple[str, str, Message]:
    """A PredictRequest; a wrong one has one or two of FAULTS."""
    signature = rng.choice(SIGNATURES)
    message = predict_pb2.PredictRequest()
    name_model(message.model_spec, signature.model, signature.name, rng)
    count = rng.choice([1, 1, 2, 3])
    for name, given in signature.inputs.items():
        fill(message.inputs[name], given, shape_of(rng, given, count), rng)
    if rng.random() < 0.15:
        message.output_filter.append(rng.choice(signature.outputs))
    if valid:
        return f"Predict {signature.name}", f"{PREDICTION}Predict", message
    faults = rng.sample(FAULTS, rng.choice([1, 1, 2]))
    for fault in faults:
        fault(message, rng)
    return f"Predict {' + '.join(sorted(fault.__name__ for fault in faults))}", f"{PREDICTION}Predict", message


def name_model(spec: Any, model: str, signature: str, rng: random.Random) -> None:
    """Model, signature (the default one with or without its name), and sometimes a version or label that is there."""
    spec.name = model
    spec.signature_name = "" if signature == "serving_default" and rng.random() < 0.5 else signature
    if rng.random() < 0.2:
        spec.version.value = rng.choice([1, 2]) if model == HALF else 1
    elif model == HALF and rng.random() < 0.2:
        spec.version_label = rng.choice(["stable", "canary"])


def examples(rng: random.Random, valid: bool) -> tuple[str, str, Message]:
    """Classify, Regress or MultiInference of a few tf.Examples, with or without a context."""
    method = rng.choice(["Classify", "Regress", "MultiInference"])
    if method == "MultiInference":
        message = inference_pb2.MultiInferenceRequest()
        for kind in rng.choice([["regress"], ["classify"], ["classify", "regress"]]):
            task = message.tasks.add(method_name=f"tensorflow/serving/{kind}")
            name_model(task.model_spec, HALF, f"{kind}_x_to_y", rng)
    else:
        classes = {"Classify": classification_pb2.ClassificationRequest, "Regress": regression_pb2.RegressionRequest}
        message = classes[method]()
        name_model(message.model_spec, HALF, f"{method.lower()}_x_to_y", rng)
    with_context = rng.random() < 0.2
    given = message.input.example_list_with_context if with_context else message.input.example_list
    for _ in range(rng.choice([1, 1, 2, 3])):
        given.examples.add().features.feature["x"].float_list.value.append(rng.choice(FLOATS))
    if with_context:
        given.context.features.feature["z"].bytes_list.value.append(b"a")
    if not valid:
        rng.choice(EXAMPLE_FAULTS)(message, rng)
    return method, f"{PREDICTION}{method}", message


def metadata(rng: random.Random, valid: bool) -> tuple[str, str, Message]:
    """GetModelMetadata."""
    fields = (
        ["signature_def"] if valid else rng.choice([[], ["nope"], ["signature_def", "nope"], ["signature_def"] * 2])
    )
    message = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    name_model(message.model_spec, rng.choice([HALF, ZOO]), "", rng)
    if not valid and rng.random() < 0.5:
        odd_model(message, rng)
    return "GetModelMetadata", f"{PREDICTION}GetModelMetadata", message


def status(rng: random.Random, valid: bool) -> tuple[str, str, Message]:
    """GetModelStatus."""
    message = get_model_status_pb2.GetModelStatusRequest()
    name_model(message.model_spec, rng.choice([HALF, ZOO]), "", rng)
    if not valid:
        odd_model(message, rng)
    return "GetModelStatus", STATUS, message


def unknown(rng: random.Random, valid: bool) -> tuple[str, str, Message]:
    """A method that no service has."""
    paths = [
        f"{PREDICTION}Nope",
        "/nope.Service/Predict",
        f"{PREDICTION}predict",
        "/tensorflow.serving.ModelService/Predict",
    ]
    return "unknown method", rng.choice(paths), predict_pb2.PredictRequest()


def is_bounded(data: bytes) -> bool:
    """Whether no tensor of a PredictRequest must be filled up with more than LARGEST elements."""
    try:
        message = predict_pb2.PredictRequest.FromString(data)
    except DecodeError:
        return True
    shapes = [[dim.size for dim in tensor.tensor_shape.dim] for tensor in message.inputs.values()]
    return all(min(shape, default=1) < 0 or math.prod(shape) <= LARGEST for shape in shapes)
