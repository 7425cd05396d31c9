"""What every wire format shares: requests as bytes, the payload's shape, and the check of an answer."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from models import answers
from models.answers import AnswerNames
from models.manifest import PROVED, InputSpec, Manifest
from serving.errors import WireError

NO_NAMES = AnswerNames()

PAYLOADS = ("image", "b64", "tensor")
"""How images travel: encoded bytes, base64 in JSON, or the network's own input, float32 or uint8."""

ANSWER_TOLERANCE = 1e-3
"""Largest absolute difference of a probability from the golden one; CPUs' kernels differ by far less."""

RELATIVE_TOLERANCE = 1e-5
"""The same for logits of any size, which are float32; class numbers must not pass for each other."""


@dataclass(frozen=True)
class RestRequest:
    """An HTTP request without its host."""

    method: str
    path: str
    content_type: str
    body: bytes


@dataclass(frozen=True)
class GrpcRequest:
    """A unary gRPC call: the method's path and the serialised message."""

    path: str
    body: bytes


@dataclass(frozen=True)
class PayloadSpec:
    """Signature and input names of a model, and the input that a tensor payload must have.

    None means that the model does not offer it; asking for such a payload raises WireError.
    """

    image_signature: str | None
    tensor_signature: str | None
    image_input: str | None
    tensor_input: str | None
    input: InputSpec | None


class Wire(Protocol):
    """How one engine is spoken to. Answers come back as float64 of (images, values)."""

    default_rest_port: int
    default_grpc_port: int
    artifact: Literal["savedmodel", "mar"]
    """Which artifact of a model gives the answers."""

    def rest_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> RestRequest:
        """Request for the encoded `images`; `payload` is one of PAYLOADS, or WireError is raised."""

    def rest_answer(self, body: bytes, names: AnswerNames = NO_NAMES, images: int = 1) -> NDArray[np.float64]:
        """The answer to `images` images in a reply's body; models.answers lists its forms. Raises WireError."""

    def check_rest(self, body: bytes, images: int = 1) -> None:
        """Raise WireError for a body that no server of this engine answers with, or that says an error.

        It is the test of a reply whose right answer is not known: any answer passes, numbers or not.
        """

    def grpc_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> GrpcRequest:
        """As `rest_predict`, for gRPC."""

    def grpc_answer(self, body: bytes, names: AnswerNames = NO_NAMES, images: int = 1) -> NDArray[np.float64]:
        """As `rest_answer`, of a serialised reply."""

    def check_grpc(self, body: bytes, images: int = 1) -> None:
        """As `check_rest`, of a serialised reply."""


def payload_spec(manifest: Manifest | None) -> PayloadSpec:
    """Spec of a model; without a manifest, that of models we export, and no tensor payload."""
    if manifest is not None:
        names = {name: getattr(manifest, name) for name in _NAMES}
        return PayloadSpec(**names, input=manifest.input)
    return PayloadSpec(**{name: Manifest.model_fields[name].default for name in _NAMES}, input=None)


_NAMES = ("image_signature", "tensor_signature", "image_input", "tensor_input")


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from the golden one: the larger of the two."""

    absolute: float = ANSWER_TOLERANCE
    relative: float = RELATIVE_TOLERANCE
    """Of the image's largest number, for numbers that are no probabilities."""

    @classmethod
    def of(cls, manifest: Manifest | None) -> Tolerance:
        """The usual ones, or that of the proof if it is wider: the artifacts' answers may be that far apart."""
        proved = manifest.parity.tolerance if manifest and manifest.parity.status == PROVED else 0.0
        return cls(max(ANSWER_TOLERANCE, proved), max(RELATIVE_TOLERANCE, proved))


USUAL = Tolerance()


def is_right(
    answer: NDArray[np.float64], expected: NDArray[np.float64], tolerance: Tolerance | float = ANSWER_TOLERANCE
) -> bool:
    """True where `answer` has the shape of `expected`, (images, values), and differs by at most `tolerance` from it.

    A number is an absolute tolerance, beside RELATIVE_TOLERANCE.
    """
    if answer.shape != expected.shape:
        return False
    limit = tolerance if isinstance(tolerance, Tolerance) else Tolerance(tolerance)
    allowed = np.maximum(limit.absolute, limit.relative * np.abs(expected).max(axis=1, keepdims=True))
    return bool((np.abs(answer - expected) <= allowed).all())


def check_payload(images: Sequence[bytes], payload: str) -> None:
    """Raise WireError for an unknown payload or a request without images."""
    if payload not in PAYLOADS:
        raise WireError(f"payload {payload!r} is unknown: choose one of {', '.join(PAYLOADS)}.")
    if not images:
        raise WireError("a request needs at least one image.")


def b64(image: bytes) -> dict[str, str]:
    """An encoded image as TensorFlow Serving's JSON writes bytes."""
    return {"b64": base64.b64encode(image).decode("ascii")}


def tensor(images: Sequence[bytes], spec: PayloadSpec) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Images as the network's own input, (images, height, width, channels) of the spec's dtype. Raises WireError."""
    from models.preprocessing import ImageError, preprocess

    if spec.input is None:
        raise WireError(
            "the model's manifest has no input spec, which a tensor payload needs: import it with --size, and "
            "with --mean and --std if it takes floats."
        )
    try:
        return np.ascontiguousarray(np.stack([preprocess(image, spec.input) for image in images]))
    except ImageError as error:
        raise WireError(f"an image cannot be made a tensor: {error}") from error


def dump(document: object) -> bytes:
    """JSON bytes; float32 arrays are written with the fewest digits that read back the same."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def document_of(body: bytes) -> Any:
    """What a reply's body says; see models.answers.document_of. Raises WireError for an empty or an error reply."""
    try:
        return answers.document_of(body)
    except answers.AnswerError as error:
        raise WireError(str(error)) from error


def rows(document: Any, names: AnswerNames, images: int) -> NDArray[np.float64]:
    """The numbers of a reply, float64 of (images, values); see models.answers.rows. Raises WireError."""
    try:
        return answers.rows(document, names, images)
    except answers.AnswerError as error:
        raise WireError(str(error)) from error
