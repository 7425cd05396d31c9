"""Cheap questions to a server on this machine: does it answer HTTP, and does it answer rightly yet."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from models.answers import AnswerNames
from models.manifest import ModelDir
from serving.authorisation import REMEDY, refuses, reply_named
from serving.deployment import Endpoint
from serving.errors import DeploymentError, WireError
from serving.headers import Fields
from serving.hidden_values import HiddenValues
from serving.http_client import NoAnswer, exchange
from serving.wire import USUAL, RestRequest, Tolerance, Wire, is_right, payload_spec

POLL_S = 0.005
RIGHT = "right"


def http_get(url: str, timeout_s: float = 1.0, headers: Fields = ()) -> tuple[int, bytes] | None:
    """Status and body of a GET, or None where nothing answers (in time)."""
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return http_send(f"{parts.scheme}://{parts.netloc}", RestRequest("GET", path, "", b""), timeout_s, headers)


def http_send(
    base_url: str, request: RestRequest, timeout_s: float = 10.0, headers: Fields = ()
) -> tuple[int, bytes] | None:
    """Status and body of `request`, on a connection of its own, or None where nothing answers (in time)."""
    try:
        reply = exchange(base_url, request, timeout_s, headers)
    except NoAnswer:
        return None
    return reply.status, reply.body


@dataclass(frozen=True)
class KnownRequest:
    """The first golden image of a model as a request, with the answer that it must get."""

    request: RestRequest
    _wire: Wire
    _names: AnswerNames
    _expected: NDArray[np.float64] | None
    """(1, values); None where the right answer of this engine's artifact is not known."""
    _tolerance: Tolerance = USUAL

    @classmethod
    def of(cls, wire: Wire, model: ModelDir) -> KnownRequest:
        """The model's request; raises DeploymentError without golden images, ModelError where they cannot be read."""
        spec = payload_spec(model.manifest)
        payload = "image" if spec.image_signature is not None else "tensor"
        if not model.manifest.golden:
            raise DeploymentError(f"{model.path} has no golden images to ask for: export or import it with images.")
        request = wire.rest_predict(model.name, model.golden_images()[:1], payload, spec)
        answers = model.manifest.answers_of(wire.artifact)
        expected = None if answers is None else np.array(answers[:1])
        return cls(request, wire, AnswerNames.of(model.manifest), expected, Tolerance.of(model.manifest))

    def verdict(self, status: int, body: bytes) -> str:
        """'right', or what is wrong with a reply; any answer is right where the right one is not known."""
        if status != http.client.OK:
            return reply_named(status, body)
        try:
            if self._expected is None:
                self._wire.check_rest(body)
                return RIGHT
            answer = self._wire.rest_answer(body, self._names)
        except WireError as error:
            return f"an unreadable answer: {str(error).rstrip('.')}"
        return RIGHT if is_right(answer, self._expected, self._tolerance) else "a wrong answer"


def first_answer(
    endpoint: Endpoint,
    wire: Wire,
    model: ModelDir,
    *,
    timeout_s: float,
    alive: Callable[[], bool] = lambda: True,
) -> int:
    """Ask for the first golden image every 5 ms until the answer is right; monotonic ns of that answer.

    Where the right answer is not known, any answer will do.

    Raises DeploymentError where no right answer came within `timeout_s`, or where `alive` reports that nobody is
    left to give one, and ModelError where the model directory cannot be read.
    """
    question, headers = KnownRequest.of(wire, model), endpoint.headers.read()
    deadline, last, answered, remedy = time.monotonic() + timeout_s, "no answer", False, "see its log"
    while (left_s := deadline - time.monotonic()) > 0:
        try:
            reply = exchange(endpoint.rest_url, question.request, left_s, headers)
        except NoAnswer as error:
            # what was wrong with an answer says more than that there is none now
            last = last if answered else str(error)
        else:
            now_ns, answered = time.monotonic_ns(), True
            last = question.verdict(reply.status, reply.body)
            if last == RIGHT:
                return now_ns
            remedy = REMEDY if refuses(reply.status, reply.body) else "see its log"
        if not alive():
            raise DeploymentError(f"the server at {endpoint.rest_url} ended before its first right answer.")
        time.sleep(POLL_S)
    last = HiddenValues.of(endpoint.headers, headers).out_of(last)
    raise DeploymentError(f"{endpoint.rest_url} gave no right answer within {timeout_s:g} s (last: {last}): {remedy}.")
