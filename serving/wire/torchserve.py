"""TorchServe's REST and gRPC inference API, around the JSON that our handler answers with."""

from __future__ import annotations

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
    tensor,
)
from serving.wire.protos import torchserve_pb2 as pb

PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
PING = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"


class TorchServeWire:
    """TorchServe's wire format; one "image" travels as raw bytes, several as base64 in JSON."""

    default_rest_port = 8080
    default_grpc_port = 7070

    def rest_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> RestRequest:
        """POST of raw image bytes, or of {"instances": ...}; see Wire."""
        raw, body = _body(images, payload, spec)
        kind = "application/octet-stream" if raw else "application/json"
        return RestRequest("POST", f"/predictions/{quote(model, safe='')}", kind, body)

    def rest_answer(self, body: bytes, output: str | None = None) -> NDArray[np.float64]:
        """Probabilities of {"predictions": [[...], ...]}; see Wire."""
        return predictions(body, output)

    def grpc_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> GrpcRequest:
        """PredictionsRequest with the REST body as its input "data"; see Wire."""
        _, body = _body(images, payload, spec)
        request = pb.PredictionsRequest(model_name=model, input={"data": body})
        return GrpcRequest(PREDICTIONS, request.SerializeToString(deterministic=True))

    def grpc_answer(self, body: bytes, output: str | None = None) -> NDArray[np.float64]:
        """Probabilities of a PredictionResponse; see Wire."""
        try:
            response = pb.PredictionResponse.FromString(body)
        except DecodeError as error:
            raise WireError("the reply is not a PredictionResponse.") from error
        return predictions(response.prediction, output)


def _body(images: Sequence[bytes], payload: str, spec: PayloadSpec) -> tuple[bool, bytes]:
    """Whether the body is raw image bytes, and the body."""
    check_payload(images, payload)
    if payload == "image" and len(images) == 1:
        return True, images[0]
    instances = tensor(images, spec) if payload == "tensor" else [b64(image) for image in images]
    return False, dump({"instances": instances})
