"""TensorFlow Serving's REST and gRPC predict API, which the embedded SavedModel server speaks too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from urllib.parse import quote

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from serving.errors import WireError
from serving.wire.messages import (
    GrpcRequest,
    PayloadSpec,
    RestRequest,
    b64,
    check_payload,
    dump,
    predictions,
    probabilities,
    tensor,
)
from serving.wire.protos import tfserving_pb2 as pb

PREDICT = "/tensorflow.serving.PredictionService/Predict"

_FLOATS = {pb.DT_FLOAT: ("<f4", "float_val"), pb.DT_DOUBLE: ("<f8", "double_val")}

_MOST_VALUES = 1 << 26
"""A reply may state any shape: one with more values than this is not filled up."""


class TfServingWire:
    """TensorFlow Serving's wire format; over REST, "image" is "b64", for its JSON knows no raw bytes."""

    default_rest_port = 8501
    default_grpc_port = 8500

    def rest_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> RestRequest:
        """POST of {"signature_name", "instances"}; see Wire."""
        check_payload(images, payload)
        signature, _ = _names(payload, spec)
        instances = tensor(images, spec) if payload == "tensor" else [b64(image) for image in images]
        body = dump({"signature_name": signature, "instances": instances})
        return RestRequest("POST", f"/v1/models/{quote(model, safe='')}:predict", "application/json", body)

    def rest_answer(self, body: bytes, output: str | None = None) -> NDArray[np.float64]:
        """Probabilities of {"predictions": ...}; see Wire."""
        return predictions(body, output)

    def grpc_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> GrpcRequest:
        """PredictRequest with one DT_STRING or DT_FLOAT tensor; see Wire."""
        check_payload(images, payload)
        signature, name = _names(payload, spec)
        request = pb.PredictRequest(model_spec=pb.ModelSpec(name=model, signature_name=signature))
        value = _float_tensor(tensor(images, spec)) if payload == "tensor" else _string_tensor(images)
        request.inputs[name].CopyFrom(value)
        return GrpcRequest(PREDICT, request.SerializeToString(deterministic=True))

    def grpc_answer(self, body: bytes, output: str | None = None) -> NDArray[np.float64]:
        """Probabilities of a PredictResponse; see Wire."""
        try:
            outputs = pb.PredictResponse.FromString(body).outputs
        except DecodeError as error:
            raise WireError("the reply is not a PredictResponse.") from error
        if output is None and len(outputs) == 1:
            output = next(iter(outputs))
        if output is None or output not in outputs:
            raise WireError(f"the reply has outputs {', '.join(sorted(outputs)) or 'none'}, but not {output!r}.")
        return probabilities(_array(outputs[output]))


def _names(payload: str, spec: PayloadSpec) -> tuple[str, str]:
    """Signature and input name that the payload goes to."""
    if payload == "tensor":
        signature, name, other = spec.tensor_signature, spec.tensor_input, "image"
    else:
        signature, name, other = spec.image_signature, spec.image_input, "tensor"
    if signature is None or name is None:
        raise WireError(f"the model has no signature for payload {payload!r}: choose payload {other!r}.")
    return signature, name


def _string_tensor(images: Sequence[bytes]) -> pb.Tensor:
    shape = pb.TensorShape(dim=[pb.TensorShape.Dim(size=len(images))])
    return pb.Tensor(dtype=pb.DT_STRING, tensor_shape=shape, string_val=list(images))


def _float_tensor(values: NDArray[np.float32]) -> pb.Tensor:
    shape = pb.TensorShape(dim=[pb.TensorShape.Dim(size=size) for size in values.shape])
    content = values.astype("<f4", copy=False).tobytes()
    return pb.Tensor(dtype=pb.DT_FLOAT, tensor_shape=shape, tensor_content=content)


def _array(value: pb.Tensor) -> NDArray[np.floating]:
    """A float tensor as an array; TensorFlow writes it as raw content or as a list of values."""
    if value.dtype not in _FLOATS:
        raise WireError(f"the reply's output has data type {value.dtype}, not a float.")
    dtype, field = _FLOATS[value.dtype]
    shape = [dim.size for dim in value.tensor_shape.dim]
    count = math.prod(shape)
    if min(shape, default=0) < 1 or count > _MOST_VALUES:
        raise WireError(f"the reply's output has shape {shape}.")
    if value.tensor_content:
        if len(value.tensor_content) != count * np.dtype(dtype).itemsize:
            raise WireError(f"the reply's output holds {len(value.tensor_content)} bytes for shape {shape}.")
        return np.frombuffer(value.tensor_content, dtype).reshape(shape)
    flat = np.array(getattr(value, field), dtype)
    if not 0 < len(flat) <= count:
        raise WireError(f"the reply's output holds {len(flat)} values for shape {shape}.")
    # A TensorProto may leave out values at the end that equal the last one it holds.
    return np.pad(flat, (0, count - len(flat)), mode="edge").reshape(shape)
