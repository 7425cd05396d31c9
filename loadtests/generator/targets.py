"""What is sent and what must come back: endpoints resolved, requests prebuilt, answers checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.generator import jobs
from loadtests.generator.addresses import resolve
from loadtests.generator.connections import PreparedRequest
from loadtests.generator.endpoints_file import Made
from loadtests.generator.load import Check, Target
from loadtests.generator.varied_requests import disjoint_groups
from loadtests.generator.wire_grpc import message_bytes, request_headers
from loadtests.generator.wire_http1 import request_bytes
from models.answers import AnswerNames
from models.errors import ModelEnvironmentError, ModelError
from models.manifest import MANIFEST_NAME, Manifest, ModelDir
from serving.addresses import ResolvedAddress, authority, split_url, tls_context
from serving.authorisation import REFUSED, REMEDY
from serving.errors import ServingError, WireError
from serving.headers import NO_HEADERS, Fields, Headers
from serving.hidden_values import HiddenValues
from serving.http_client import NoAnswer
from serving.server_kind import server_kind
from serving.wire import USUAL, WIRES, PayloadSpec, Tolerance, Wire, is_right, payload_spec

ENGINES: Final = (*WIRES, "http")
BUNDLED: Final = Path(__file__).parents[1] / "bundled_digits"
_REMEMBERED: Final = 4096
REMEMBERED_BYTES: Final = 16_384
"""Replies up to this size are remembered whole, so that all of them take 64 MiB at most; longer ones by digest."""
_DIGEST_BYTES: Final = 16
_REASON_CHARACTERS: Final = 300
"""Of a sentence about a reply, which may quote the reply."""


@dataclass(frozen=True)
class PlainRequest:
    """Engine `http`: any request to any URL."""

    method: str
    path: str
    body: bytes
    content_type: str | None


@dataclass(frozen=True)
class TargetOptions:
    """The command line's options that describe the target."""

    hosts: Sequence[str]
    """URLs: http(s)://host[:port]. Unused where gRPC's targets are given."""
    grpc_targets: Sequence[str]
    """host[:port], empty for the hosts with the engine's default port."""
    engine: str
    protocol: str
    model: str
    payload: str
    images_per_request: int
    manifest: Path | None
    timeout_s: float
    plain: PlainRequest | None = None
    numbers_of_images: Sequence[int] = ()
    """In place of images_per_request, where requests carry different numbers of images: each of them once."""
    headers: Headers = NO_HEADERS

    def read_headers(self) -> Fields:
        """What every request carries, as the protocol wants it. Raises LoadTestError where a value cannot be read."""
        try:
            return self.headers.metadata() if self.protocol == "grpc" else self.headers.read()
        except ServingError as error:
            raise LoadTestError(str(error)) from None


def build_target(options: TargetOptions) -> Target:
    """Resolve, prebuild and choose the check. Raises LoadTestError or LoadEnvironmentError with the remedy."""
    grpc = options.protocol == "grpc"
    headers = options.read_headers()
    hidden = HiddenValues.of(options.headers, headers)
    if options.engine == "http":
        if grpc or options.plain is None:
            raise LoadTestError("engine http speaks plain HTTP only: use --protocol rest.")
        return replace(_plain_target(options, options.plain, headers), hidden=hidden)
    model = read_model(options.manifest)
    images = _images(model)
    wire, spec = WIRES[options.engine], payload_spec(model.manifest if model else None)
    groups = _all_groups(len(images), options)
    batches = [[images[i] for i in group] for group in groups]
    try:
        make = (_grpc_endpoint if grpc else _rest_endpoint)(options, headers, wire, spec, batches)
    except WireError as error:
        raise LoadTestError(f"the {options.payload} payload cannot be built: {error}") from error
    check = answer_check(wire, grpc, model.manifest if model else None, groups)
    names = _grpc_targets(options, wire.default_grpc_port) if grpc else options.hosts
    target = _target(names, make, grpc, check, checked=check.knows_answers)
    return replace(target, images=[len(group) for group in groups], hidden=hidden)


def _target(names: Sequence[str], make: Callable[[str], Made], grpc: bool, check: Check, checked: bool) -> Target:
    made = [make(name) for name in names]
    return Target([address for address, _ in made], [requests for _, requests in made], grpc, check, checked, make)


def _all_groups(images: int, options: TargetOptions) -> list[list[int]]:
    """Which images go into each prepared request."""
    if not options.numbers_of_images:
        return _groups(images, options.images_per_request)
    return [group for number in options.numbers_of_images for group in disjoint_groups(images, number)]


def answer_check(wire: Wire, grpc: bool, manifest: Manifest | None, groups: Sequence[Sequence[int]]) -> AnswerCheck:
    """The check of replies to groups of golden images, by the right answers where the manifest knows them."""
    names = AnswerNames.of(manifest)
    answers = manifest.answers_of(wire.artifact) if manifest else None
    if answers is None:
        check = wire.check_grpc if grpc else wire.check_rest

        def check_form(request: int, body: bytes) -> None:
            check(body, len(groups[request]))

        return AnswerCheck(check_form, None)
    expected = np.asarray(answers, np.float64)
    answer = wire.grpc_answer if grpc else wire.rest_answer
    return AnswerCheck(
        lambda request, body: answer(body, names, len(groups[request])),
        [expected[group] for group in groups],
        Tolerance.of(manifest),
    )


class AnswerCheck:
    """Judges reply bodies; equal bytes for the same image are read once.

    It remembers _REMEMBERED replies: short ones whole, those over REMEMBERED_BYTES by their BLAKE2b digest.
    """

    def __init__(
        self,
        read: Callable[[int, bytes], NDArray[np.float64] | None],
        expected: Sequence[NDArray[np.float64]] | None,
        tolerance: Tolerance = USUAL,
    ) -> None:
        """`read` raises WireError for what is no answer; `expected` are the right answers, None where not known."""
        self._read = read
        self._expected = expected
        self._tolerance = tolerance
        self._known: dict[tuple[int, bytes], tuple[int, int, str]] = {}

    @property
    def knows_answers(self) -> bool:
        """False where any answer passes."""
        return self._expected is not None

    def __call__(self, image: int, body: bytes) -> tuple[int, int, str]:
        """See Check: bad_reply where the body cannot be read as an answer, with the reason."""
        key = (image, body if len(body) <= REMEMBERED_BYTES else blake2b(body, digest_size=_DIGEST_BYTES).digest())
        known = self._known.get(key)
        if known is None:
            known = self._judge(image, body)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = known
        return known

    def _judge(self, image: int, body: bytes) -> tuple[int, int, str]:
        try:
            answer = self._read(image, body)
        except WireError as error:
            return jobs.BAD_REPLY, jobs.UNCHECKED, str(error).rstrip(".")[:_REASON_CHARACTERS]
        if self._expected is None or answer is None:
            return jobs.OK, jobs.UNCHECKED, ""
        expected = self._expected[image]
        if is_right(answer, expected, self._tolerance):
            return jobs.OK, jobs.RIGHT, ""
        return jobs.WRONG_ANSWER, jobs.WRONG, _difference(answer, expected)


def _difference(answer: NDArray[np.float64], expected: NDArray[np.float64]) -> str:
    """What is wrong with an answer, as the summary names it."""
    name = jobs.OUTCOMES[jobs.WRONG_ANSWER]
    if answer.shape == expected.shape:
        return name
    return f"{name}: shape {list(answer.shape)} instead of {list(expected.shape)}"


def detect_engine(url: str, model: str, timeout_s: float = 5.0, headers: Fields = ()) -> str:
    """Ask the server what it is.

    Raises LoadEnvironmentError where it does not answer or refuses authorisation, LoadTestError for another.
    """
    host, port, _ = split_url(url, None)
    resolve(host, port, None)  # a name that does not resolve is a sentence of its own
    try:
        kind = server_kind(url, model, timeout_s, headers)
    except NoAnswer as error:
        raise LoadEnvironmentError(
            f"{url} does not answer ({error}), so its engine cannot be detected: start the server or name it with "
            "--engine."
        ) from error
    if kind.missing.startswith(REFUSED):
        raise LoadEnvironmentError(f"{url} {kind.missing}, so its engine cannot be detected: {REMEDY}.")
    if kind.engine is None:
        raise LoadTestError(
            f"{url} is neither TensorFlow Serving with a model {model!r} nor TorchServe: give --model and --engine."
        )
    return kind.engine


def read_model(path: Path | None) -> ModelDir | None:
    """The model directory of --manifest. Raises LoadTestError where there is none."""
    if path is None:
        return None
    if not path.exists():
        raise LoadTestError(f"--manifest {path} does not exist: give the manifest.json of a model directory.")
    if not path.is_dir() and path.name != MANIFEST_NAME:
        raise LoadTestError(f"--manifest {path} is no {MANIFEST_NAME}: give the {MANIFEST_NAME} of a model directory.")
    try:
        return ModelDir(path if path.is_dir() else path.parent)
    except ModelError as error:
        raise LoadTestError(str(error)) from error


def _images(model: ModelDir | None) -> list[bytes]:
    """Images to send: the model's golden ones, or bundled digits."""
    if model is None:
        return [path.read_bytes() for path in sorted(BUNDLED.glob("*.png"))]
    if not model.manifest.golden:
        raise LoadTestError(f"{model.path} has no golden images to send: export or import the model again.")
    try:
        return model.golden_images()
    except ModelEnvironmentError as error:
        raise LoadEnvironmentError(str(error)) from error
    except ModelError as error:
        raise LoadTestError(str(error)) from error


def _groups(images: int, size: int) -> list[list[int]]:
    """Which images go into each prepared request: every image comes first once, the next ones follow."""
    return [[(first + i) % images for i in range(size)] for first in range(images)]


def _rest_endpoint(
    options: TargetOptions, headers: Fields, wire: Wire, spec: PayloadSpec, batches: list[list[bytes]]
) -> Callable[[str], Made]:
    """What makes an endpoint of a URL."""
    built = [wire.rest_predict(options.model, batch, options.payload, spec) for batch in batches]

    def make(url: str) -> Made:
        address, name = _rest_address(url, wire.default_rest_port)
        whole = [request_bytes(r.method, r.path, name, r.content_type, r.body, headers) for r in built]
        return address, [PreparedRequest(each) for each in whole]

    return make


def _grpc_endpoint(
    options: TargetOptions, metadata: Fields, wire: Wire, spec: PayloadSpec, batches: list[list[bytes]]
) -> Callable[[str], Made]:
    """What makes an endpoint of host[:port], or of a URL."""
    built = [wire.grpc_predict(options.model, batch, options.payload, spec) for batch in batches]
    data = [message_bytes(r.body) for r in built]

    def make(text: str) -> Made:
        host, port, secure = split_url(text, wire.default_grpc_port)
        address = resolve(host, port, tls_context("h2") if secure else None)
        scheme = "https" if secure else "http"
        headers = request_headers(scheme, authority(host, port), built[0].path, options.timeout_s, metadata)
        return address, [PreparedRequest(headers, each) for each in data]

    return make


def _grpc_targets(options: TargetOptions, default_port: int) -> Sequence[str]:
    """As given, or the hosts with the engine's own port for gRPC."""
    if options.grpc_targets:
        return options.grpc_targets
    parts = [split_url(url, 0) for url in options.hosts]
    return [f"{'https' if secure else 'http'}://{authority(host, default_port)}" for host, _, secure in parts]


def _plain_target(options: TargetOptions, plain: PlainRequest, headers: Fields) -> Target:
    def make(url: str) -> Made:
        address, name = _rest_address(url, None)
        whole = request_bytes(plain.method, plain.path, name, plain.content_type, plain.body, headers)
        return address, [PreparedRequest(whole)]

    return _target(options.hosts, make, grpc=False, check=_accept, checked=False)


def _accept(_image: int, _body: bytes) -> tuple[int, int, str]:
    return jobs.OK, jobs.UNCHECKED, ""


def _rest_address(url: str, default_port: int | None) -> tuple[ResolvedAddress, str]:
    host, port, secure = split_url(url, default_port)
    return resolve(host, port, tls_context("http/1.1") if secure else None), authority(host, port)


def read_body(path: Path) -> tuple[bytes, str]:
    """Body and content type for engine http."""
    try:
        body = path.read_bytes()
    except OSError as error:
        raise LoadTestError(f"--http-body-file {path} cannot be read: {error.strerror}.") from error
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return body, "application/octet-stream"
    return body, "application/json"
