"""TorchServe's REST and gRPC inference API, around whatever a handler answers with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from urllib.parse import quote

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from models.answers import AnswerNames
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
from serving.wire.protos import torchserve_pb2 as pb

PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
PING = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"


class TorchServeWire:
    """TorchServe's wire format; one "image" travels as raw bytes, several as base64 in JSON."""

    default_rest_port = 8080
    default_grpc_port = 7070
    artifact: Literal["savedmodel", "mar"] = "mar"

    def rest_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> RestRequest:
        """POST of raw image bytes, or of {"instances": ...}; see Wire."""
        raw, body = _body(images, payload, spec)
        kind = "application/octet-stream" if raw else "application/json"
        return RestRequest("POST", f"/predictions/{quote(model, safe='')}", kind, body)

    def rest_answer(self, body: bytes, names: AnswerNames = NO_NAMES, images: int = 1) -> NDArray[np.float64]:
        """The numbers of a reply in any form that models.answers reads; see Wire."""
        return rows(document_of(body), names, images)

    def check_rest(self, body: bytes, images: int = 1) -> None:
        """Refuse nothing but an empty reply and an error, for a handler may answer anything; see Wire."""
        document_of(body)

    def grpc_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> GrpcRequest:
        """PredictionsRequest with the REST body as its input "data"; see Wire."""
        _, body = _body(images, payload, spec)
        request = pb.PredictionsRequest(model_name=model, input={"data": body})
        return GrpcRequest(PREDICTIONS, request.SerializeToString(deterministic=True))

    def grpc_answer(self, body: bytes, names: AnswerNames = NO_NAMES, images: int = 1) -> NDArray[np.float64]:
        """As `rest_answer`, of a PredictionResponse; see Wire."""
        return self.rest_answer(_prediction(body), names, images)

    def check_grpc(self, body: bytes, images: int = 1) -> None:
        """As `check_rest`, of a PredictionResponse; see Wire."""
        self.check_rest(_prediction(body), images)


def _prediction(message: bytes) -> bytes:
    """What the handler answered, which is what it answers over REST."""
    try:
        prediction: bytes = pb.PredictionResponse.FromString(message).prediction
    except DecodeError as error:
        raise WireError("the reply is not a PredictionResponse.") from error
    return prediction


def _body(images: Sequence[bytes], payload: str, spec: PayloadSpec) -> tuple[bool, bytes]:
    """Whether the body is raw image bytes, and the body."""
    check_payload(images, payload)
    if payload == "image" and len(images) == 1:
        return True, images[0]
    instances = tensor(images, spec) if payload == "tensor" else [b64(image) for image in images]
    return False, dump({"instances": instances})
