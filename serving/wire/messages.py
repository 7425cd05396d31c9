"""What every wire format shares: requests as bytes, the payload's shape, and the check of an answer."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from models.manifest import InputSpec, Manifest
from serving.errors import WireError

PAYLOADS = ("image", "b64", "tensor")
"""How images travel: encoded bytes, base64 in JSON, or the network's own float32 input."""

ANSWER_TOLERANCE = 1e-3
"""Largest absolute difference of a probability from the golden one; CPUs' kernels differ by far less."""


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
    """Signature, input and output names of a model, and the input that a tensor payload must have.

    None means that the model does not offer it; asking for such a payload raises WireError.
    """

    image_signature: str | None
    tensor_signature: str | None
    image_input: str | None
    tensor_input: str | None
    output: str | None
    input: InputSpec | None


class Wire(Protocol):
    """How one engine is spoken to. Probabilities come back as float64 of (images, classes)."""

    default_rest_port: int
    default_grpc_port: int

    def rest_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> RestRequest:
        """Request for the encoded `images`; `payload` is one of PAYLOADS, or WireError is raised."""

    def rest_answer(self, body: bytes, output: str | None = None) -> NDArray[np.float64]:
        """Probabilities of a reply's body; `output` chooses where the model has several. Raises WireError."""

    def grpc_predict(self, model: str, images: Sequence[bytes], payload: str, spec: PayloadSpec) -> GrpcRequest:
        """As `rest_predict`, for gRPC."""

    def grpc_answer(self, body: bytes, output: str | None = None) -> NDArray[np.float64]:
        """As `rest_answer`, of a serialised reply."""


def payload_spec(manifest: Manifest | None) -> PayloadSpec:
    """Spec of a model; without a manifest, that of models we export, and no tensor payload."""
    if manifest is not None:
        names = {name: getattr(manifest, name) for name in _NAMES}
        return PayloadSpec(**names, input=manifest.input)
    return PayloadSpec(**{name: Manifest.model_fields[name].default for name in _NAMES}, input=None)


_NAMES = ("image_signature", "tensor_signature", "image_input", "tensor_input", "output")


def is_right(answer: NDArray[np.float64], expected: NDArray[np.float64], tolerance: float = ANSWER_TOLERANCE) -> bool:
    """True where `answer` has the shape of `expected`, (images, classes), and is within `tolerance` of it."""
    return answer.shape == expected.shape and bool((np.abs(answer - expected) <= tolerance).all())


def check_payload(images: Sequence[bytes], payload: str) -> None:
    """Raise WireError for an unknown payload or a request without images."""
    if payload not in PAYLOADS:
        raise WireError(f"payload {payload!r} is unknown: choose one of {', '.join(PAYLOADS)}.")
    if not images:
        raise WireError("a request needs at least one image.")


def b64(image: bytes) -> dict[str, str]:
    """An encoded image as TensorFlow Serving's JSON writes bytes."""
    return {"b64": base64.b64encode(image).decode("ascii")}


def tensor(images: Sequence[bytes], spec: PayloadSpec) -> NDArray[np.float32]:
    """Images as the network's own input, float32 of (images, height, width, channels). Raises WireError."""
    from models.preprocessing import ImageError, preprocess

    if spec.input is None:
        raise WireError("the model's manifest has no input spec, which a tensor payload needs: send images.")
    try:
        return np.ascontiguousarray([preprocess(image, spec.input) for image in images], np.float32)
    except ImageError as error:
        raise WireError(f"an image cannot be made a tensor: {error}") from error


def dump(document: object) -> bytes:
    """JSON bytes; float32 arrays are written with the fewest digits that read back the same."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def load(body: bytes) -> Any:
    """Parsed JSON of a reply. Raises WireError where it is not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise WireError(f"the reply is not JSON: {excerpt(body)}") from error


def excerpt(body: bytes, limit: int = 120) -> str:
    """The start of a reply, printable, for an error message."""
    text = body[: 2 * limit].decode("utf-8", "replace")
    shown = " ".join(text.split())[:limit]
    return repr(shown) if shown else "an empty body"


def predictions(body: bytes, output: str | None) -> NDArray[np.float64]:
    """Probabilities of {"predictions": [[...], ...]}, or of [{output: [...]}, ...]. Raises WireError."""
    document = load(body)
    if not isinstance(document, dict) or "predictions" not in document:
        raise WireError(f"the reply has no predictions: {excerpt(body)}")
    rows = document["predictions"]
    if isinstance(rows, list) and rows and isinstance(rows[0], dict):
        rows = [_chosen(row, output) for row in rows]
    return probabilities(rows)


def _chosen(row: object, output: str | None) -> object:
    if not isinstance(row, dict):
        raise WireError("the reply mixes predictions with and without output names.")
    if output in row:
        return row[output]
    if len(row) == 1 and output is None:
        return next(iter(row.values()))
    raise WireError(f"the reply has outputs {', '.join(sorted(row)) or 'none'}, but not {output!r}.")


def probabilities(rows: object) -> NDArray[np.float64]:
    """`rows` as finite float64 of (images, classes). Raises WireError where they are anything else."""
    try:
        array = np.asarray(rows)
    except ValueError as error:
        raise WireError("the reply's predictions differ in length.") from error
    if array.ndim != 2 or array.dtype.kind not in "fiu" or array.size == 0:
        actual = f"shape {array.shape}, {array.dtype}"
        raise WireError(f"the reply's predictions are not rows of numbers ({actual}).")
    if not math.isfinite(float(array.sum())):
        raise WireError("the reply's predictions are not finite.")
    return array.astype(np.float64, copy=False)
