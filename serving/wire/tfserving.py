"""TensorFlow Serving's REST and gRPC predict API, which the embedded SavedModel server speaks too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from models.answers import AnswerNames, excerpt
from serving.errors import WireError
from serving.wire.messages import (
    NO_NAMES,
    GrpcRequest,
    PayloadSpec,
    RestRequest,
    b64,
    check_payload,
    document_of,
    dump,
    rows,
    tensor,
)
from serving.wire.protos import tfserving_pb2 as pb

PREDICT = "/tensorflow.serving.PredictionService/Predict"

_NUMBERS = {
    pb.DT_FLOAT: ("<f4", "float_val"),
    pb.DT_DOUBLE: ("<f8", "double_val"),
    pb.DT_HALF: ("<u2", "half_val"),
    pb.DT_BFLOAT16: ("<u2", "half_val"),
    pb.DT_INT8: ("<i1", "int_val"),
    pb.DT_INT16: ("<i2", "int_val"),
    pb.DT_INT32: ("<i4", "int_val"),
    pb.DT_INT64: ("<i8", "int64_val"),
    pb.DT_UINT8: ("<u1", "int_val"),
    pb.DT_UINT16: ("<u2", "int_val"),
    pb.DT_UINT32: ("<u4", "uint32_val"),
    pb.DT_UINT64: ("<u8", "uint64_val"),
}
"""How TensorFlow writes each type of number: the layout of raw content, and the list of values."""

_MOST_VALUES = 1 << 26
"""A reply may state any shape: one with more values than this is not filled up."""


class TfServingWire:
    """TensorFlow Serving's wire format; over REST, "image" is "b64", for its JSON knows no raw bytes."""

    default_rest_port = 8501
    default_grpc_port = 8500
    artifact: Literal["savedmodel", "mar"] = "savedmodel"

    def rest_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> RestRequest:
        """POST of {"signature_name", "instances"}; see Wire."""
        check_payload(images, payload)
        signature, _ = _names(payload, spec)
        instances = tensor(images, spec) if payload == "tensor" else [b64(image) for image in images]
        body = dump({"signature_name": signature, "instances": instances})
        return RestRequest("POST", f"/v1/models/{quote(model, safe='')}:predict", "application/json", body)

    def rest_answer(self, body: bytes, names: AnswerNames = NO_NAMES, images: int = 1) -> NDArray[np.float64]:
        """The numbers of {"predictions": [...]} (rows) or {"outputs": ...} (columns); see Wire."""
        return rows(_rest_document(body, images), names, images)

    def check_rest(self, body: bytes, images: int = 1) -> None:
        """Refuse all but columns, and rows of which each image has one; see Wire."""
        _rest_document(body, images)

    def grpc_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> GrpcRequest:
        """PredictRequest with one tensor of DT_STRING, DT_FLOAT or DT_UINT8; see Wire."""
        check_payload(images, payload)
        signature, name = _names(payload, spec)
        request = pb.PredictRequest(model_spec=pb.ModelSpec(name=model, signature_name=signature))
        value = _pixel_tensor(tensor(images, spec)) if payload == "tensor" else _string_tensor(images)
        request.inputs[name].CopyFrom(value)
        return GrpcRequest(PREDICT, request.SerializeToString(deterministic=True))

    def grpc_answer(self, body: bytes, names: AnswerNames = NO_NAMES, images: int = 1) -> NDArray[np.float64]:
        """The numbers of the output that has the model's name, or of the only output; see Wire."""
        outputs = _grpc_outputs(body)
        output = next(iter(outputs)) if names.output is None and len(outputs) == 1 else names.output
        if output is None or output not in outputs:
            raise WireError(f"the reply has outputs {', '.join(sorted(outputs))}, but not {output!r}.")
        array = _array(outputs[output])
        if array.shape[:1] != (images,) and (array.ndim or images > 1):
            raise WireError(
                f"the reply's output has shape {list(array.shape)}, not one row for each image ({images} sent)."
            )
        return rows(array, names, images)

    def check_grpc(self, body: bytes, images: int = 1) -> None:
        """Refuse a message without an output; see Wire."""
        _grpc_outputs(body)


def _rest_document(body: bytes, images: int) -> dict[str, Any]:
    """The JSON of a reply in rows or in columns."""
    document = document_of(body)
    if not isinstance(document, dict) or not ("predictions" in document or "outputs" in document):
        raise WireError(f"the reply has neither predictions nor outputs: {excerpt(body)}")
    predictions = document.get("predictions", [None] * images)
    if not isinstance(predictions, list) or len(predictions) != images:
        raise WireError(f"the reply's predictions are not one for each image ({images} sent): {excerpt(body)}")
    return document


def _grpc_outputs(body: bytes) -> Mapping[str, pb.Tensor]:
    """The outputs of a PredictResponse, at least one."""
    try:
        outputs: Mapping[str, pb.Tensor] = pb.PredictResponse.FromString(body).outputs
    except DecodeError as error:
        raise WireError("the reply is not a PredictResponse.") from error
    if not outputs:
        raise WireError("the reply has no outputs.")
    return outputs


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


def _pixel_tensor(values: NDArray[np.float32] | NDArray[np.uint8]) -> pb.Tensor:
    shape = pb.TensorShape(dim=[pb.TensorShape.Dim(size=size) for size in values.shape])
    dtype, layout = (pb.DT_UINT8, "<u1") if values.dtype == np.uint8 else (pb.DT_FLOAT, "<f4")
    return pb.Tensor(dtype=dtype, tensor_shape=shape, tensor_content=values.astype(layout, copy=False).tobytes())


def _array(value: pb.Tensor) -> NDArray[Any]:
    """A tensor of numbers as an array; TensorFlow writes it as raw content or as a list of values."""
    if value.dtype not in _NUMBERS:
        raise WireError(f"the reply's output has data type {value.dtype}, not a number.")
    dtype, field = _NUMBERS[value.dtype]
    shape = [dim.size for dim in value.tensor_shape.dim]
    count = math.prod(shape)
    if min(shape, default=1) < 1 or count > _MOST_VALUES:
        raise WireError(f"the reply's output has shape {shape}.")
    if value.tensor_content:
        if len(value.tensor_content) != count * np.dtype(dtype).itemsize:
            raise WireError(f"the reply's output holds {len(value.tensor_content)} bytes for shape {shape}.")
        return _decoded(np.frombuffer(value.tensor_content, dtype).reshape(shape), value.dtype)
    flat = np.array(getattr(value, field)).astype(dtype)
    if not 0 < len(flat) <= count:
        raise WireError(f"the reply's output holds {len(flat)} values for shape {shape}.")
    # A TensorProto may leave out values at the end that equal the last one it holds.
    return _decoded(np.pad(flat, (0, count - len(flat)), mode="edge").reshape(shape), value.dtype)


def _decoded(array: NDArray[Any], dtype: int) -> NDArray[Any]:
    """The numbers themselves, where what travels is the bits of a 16-bit float."""
    if dtype == pb.DT_HALF:
        return array.view("<f2")
    if dtype == pb.DT_BFLOAT16:
        return (array.astype("<u4") << 16).view("<f4")
    return array
