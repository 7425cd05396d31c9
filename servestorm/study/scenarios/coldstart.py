"""A cold start: the answers after the first, until they are steady."""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlsplit

from models.manifest import ModelDir
from serving.deployment import Endpoint
from serving.errors import DeploymentError
from serving.probe import Question
from serving.wire import Wire

_REQUEST_TIMEOUT_S = 10.0


def settle(
    endpoint: Endpoint, wire: Wire, model: ModelDir, *, most_requests: int = 300, most_s: float = 5.0
) -> list[tuple[int, float]]:
    """Ask one question after the other, on one connection: (monotonic ns of the answer, latency in ms) of each.

    Call it at once after the first right answer. Raises DeploymentError for a wrong answer, or none.
    """
    question = Question.of(wire, model)
    connection = http.client.HTTPConnection(urlsplit(endpoint.rest_url).netloc, timeout=_REQUEST_TIMEOUT_S)
    answers: list[tuple[int, float]] = []
    end_ns = time.monotonic_ns() + round(most_s * 1e9)
    try:
        connection.connect()
        while len(answers) < most_requests and time.monotonic_ns() < end_ns:
            answers.append(_ask(connection, question))
    except (OSError, http.client.HTTPException) as error:
        raise DeploymentError(
            f"{endpoint.rest_url} gave no answer after its first right one ({error}): see its log."
        ) from error
    finally:
        connection.close()
    return answers


def _ask(connection: http.client.HTTPConnection, question: Question) -> tuple[int, float]:
    request = question.request
    begin_ns = time.monotonic_ns()
    connection.request(request.method, request.path, request.body, {"Content-Type": request.content_type})
    response = connection.getresponse()
    body = response.read()
    done_ns = time.monotonic_ns()
    verdict = question.verdict(response.status, body)
    if verdict != "right":
        raise DeploymentError(f"the server answered {verdict} after its first right answer: see its log.")
    return done_ns, (done_ns - begin_ns) / 1e6
