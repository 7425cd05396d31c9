"""Predictions whose answers show whose they are and which version gave them, and what an answer is worth.

Version v answers a row x with x + v. The rows of a prediction are multiples of 16 that no other prediction has, and
versions are below 16, so that an answer divided by 16 gives its row and the version. All are exact in float32.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clients import Reply, rest_request

STEP = 16
"""Between two rows; versions are below it."""
MOST_ROWS = 4
LABEL = "stable"


@dataclass
class Presence:
    """One time that a version was served, in seconds of the monotonic clock."""

    from_s: float
    """From here on it may answer: the change that brings it begins."""
    surely_from_s: float = math.inf
    """From here on it must: the server has reported it AVAILABLE."""
    surely_until_s: float = math.inf
    """Until here it must: the change that takes it away begins."""
    until_s: float = math.inf
    """Until here it may: the server has reported its END."""


@dataclass(frozen=True)
class Asked:
    """One prediction: `number` makes its rows its own."""

    number: int
    rows: int
    version: int | None = None
    by_label: bool = False

    @classmethod
    def choose(cls, number: int, rng: random.Random) -> Asked:
        """Six of ten name no version, three a version, one the label."""
        kind, rows = rng.random(), rng.randint(1, MOST_ROWS)
        if kind < 0.6:
            return cls(number, rows)
        return cls(number, rows, version=rng.randint(1, STEP - 1)) if kind < 0.9 else cls(number, rows, by_label=True)

    def values(self) -> list[float]:
        """The rows."""
        return [float(STEP * (MOST_ROWS * self.number + row)) for row in range(self.rows)]


def rest_prediction(asked: Asked) -> bytes:
    """The request over REST."""
    where = f"/versions/{asked.version}" if asked.version else f"/labels/{LABEL}" if asked.by_label else ""
    return rest_request("POST", f"/v1/models/m{where}:predict", json.dumps({"instances": asked.values()}).encode())


def rest_answer(reply: Reply) -> list[float]:
    """The numbers of an answer; none where it is an error."""
    return [float(value) for value in json.loads(reply.body)["predictions"]] if reply.status == "200" else []


def rpc_prediction(asked: Asked) -> bytes:
    """The PredictRequest."""
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = "m"
    if asked.version:
        request.model_spec.version.value = asked.version
    elif asked.by_label:
        request.model_spec.version_label = LABEL
    tensor = request.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=asked.rows)
    tensor.float_val.extend(asked.values())
    message: bytes = request.SerializeToString()
    return message


def rpc_answer(reply: Reply) -> list[float]:
    """The numbers of an answer; none where it is an error, and NaN where it names another version than gave it."""
    from tensorflow_serving.apis import predict_pb2

    if reply.status != "OK":
        return []
    response = predict_pb2.PredictResponse.FromString(reply.body)
    values = [float(value) for value in response.outputs["y"].float_val]
    named = response.model_spec.version.value
    return values if all(value % STEP == named for value in values) else [math.nan]


def judge(
    asked: Asked,
    status: str,
    values: Sequence[float],
    presence: Mapping[int, Sequence[Presence]],
    between_s: tuple[float, float],
) -> str:
    """'right', 'not served', 'unanswered', "another's", 'absent version' or 'status' (another than documented).

    `between_s`: when the request was sent, and when its answer had come.
    """
    if not status:
        return "unanswered"
    if status in ("404", "NOT_FOUND"):
        named = presence.get(asked.version, ()) if asked.version else ()
        may_be_gone = asked.by_label or (asked.version is not None and not _surely(named, between_s))
        return "not served" if may_be_gone else "status"
    return _judge_values(asked, values, presence, between_s) if status in ("200", "OK") else "status"


def _judge_values(
    asked: Asked,
    values: Sequence[float],
    presence: Mapping[int, Sequence[Presence]],
    between_s: tuple[float, float],
) -> str:
    versions = {int(value % STEP) for value in values if not math.isnan(value)}
    if len(versions) != 1:
        return "another's"
    (version,) = versions
    if list(values) != [value + version for value in asked.values()]:
        return "another's"
    if asked.version not in (None, version) or not _possibly(presence.get(version, ()), between_s):
        return "absent version"
    return "right"


def _surely(times: Sequence[Presence], between_s: tuple[float, float]) -> bool:
    sent_s, done_s = between_s
    return any(one.surely_from_s <= sent_s and done_s <= one.surely_until_s for one in times)


def _possibly(times: Sequence[Presence], between_s: tuple[float, float]) -> bool:
    sent_s, done_s = between_s
    return any(one.from_s <= done_s and sent_s <= one.until_s for one in times)
