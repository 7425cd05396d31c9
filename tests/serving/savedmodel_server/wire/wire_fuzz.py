"""Sends framing to a server, good and forbidden, and compares what comes back with what the RFCs demand."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from hpack import Decoder

from serving import http2_frames as h2
from tests.serving.savedmodel_server.wire import http2_inputs
from tests.serving.savedmodel_server.wire.rfc9112_judge import Judged, Request, judge

CONNECTIONS = 8
ANSWER_S = 60
"""For all answers of a connection."""


@dataclass
class Found:
    """What a round of fuzzing found."""

    outcomes: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    """Inputs that were accepted though they must be refused."""
    mixed_up: list[str] = field(default_factory=list)
    """Requests that were answered with another's bytes."""
    wrong: list[str] = field(default_factory=list)
    """Any other fault: a good request that was refused or not answered."""

    def faults(self) -> list[str]:
        named = ((self.accepted, "accepted"), (self.mixed_up, "another's answer"), (self.wrong, "wrong"))
        return [f"{name}: {fault}" for faults, name in named for fault in faults]


async def over_http1(address: tuple[str, int], inputs: Iterable[bytes]) -> Found:
    """One connection for each input."""
    found = Found()
    await _each(inputs, lambda data: _http1(address, data, found))
    return found


async def over_http2(address: tuple[str, int], inputs: Iterable[http2_inputs.Sequence]) -> Found:
    """One connection for each sequence."""
    found = Found()
    await _each(inputs, lambda sequence: _http2(address, sequence, found))
    return found


async def _each(inputs: Iterable, run: Callable[..., Awaitable[None]]) -> None:
    queue = iter(inputs)

    async def work() -> None:
        for one in queue:
            await run(one)

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))


async def _http1(address: tuple[str, int], data: bytes, found: Found) -> None:
    judged = judge(data)
    reader, writer = await asyncio.open_connection(*address)
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write(data)
            await _judged_answers(reader, data, judged, found)
    except TimeoutError:
        (found.accepted if judged.refused else found.wrong).append(f"no answer ({judged.refused}): {data!r}")
    except (OSError, asyncio.IncompleteReadError) as error:
        found.wrong.append(f"{error!r}: {data!r}")
    finally:
        writer.close()


async def _judged_answers(reader: asyncio.StreamReader, data: bytes, judged: Judged, found: Found) -> None:
    answers = []
    for request in judged.requests:
        answers.append(await _answer(reader, request.method))
        if answers[-1] is None or _ends(request):
            break
    _compare(data, judged.requests, answers, found)
    if answers and _ends(judged.requests[len(answers) - 1]):
        if await _read(reader):
            found.accepted.append(f"something after the end: {data!r}")
        found.outcomes["HTTP/1.1 closed"] += 1
        return
    if not judged.refused:
        found.outcomes["HTTP/1.1 good, or not complete"] += 1
        return
    last = await _answer(reader, b"POST")
    if last is None:
        found.outcomes["HTTP/1.1 closed"] += 1  # after `Connection: close` the rest is not looked at
    elif last[0] < 400 or await reader.read(1):
        found.accepted.append(f"{judged.refused}: {data!r}: {last}")
    else:
        found.outcomes[f"HTTP/1.1 refused, {last[0]}"] += 1


async def _answer(reader: asyncio.StreamReader, method: bytes) -> tuple[int, bytes] | None:
    """Status and body; None at the end of the connection."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return None
        status = int(head.split(b" ", 2)[1])
        if status != 100:
            break
    length = int(re.search(rb"(?i)\ncontent-length: *(\d+)", head)[1])
    return status, b"" if method == b"HEAD" else await reader.readexactly(length)


def _compare(data: bytes, requests: list[Request], answers: list[tuple[int, bytes] | None], found: Found) -> None:
    wanted = [_wanted(request) for request in requests]
    for number, answer in enumerate(answers):
        if answer is None:
            found.wrong.append(f"request {number} is not answered: {data!r}")
        elif answer[0] == 200 and answer[1] != wanted[number] and answer[1] in wanted:
            found.mixed_up.append(f"request {number} is answered with {answer[1]!r}: {data!r}")
        elif answer[0] == 200 and answer[1] != wanted[number] and wanted[number]:
            found.wrong.append(f"request {number} is answered with {answer[1]!r}: {data!r}")
        elif wanted[number] and answer[0] != 200:
            found.wrong.append(f"request {number} is answered with {answer}: {data!r}")
        else:
            found.outcomes[f"HTTP/1.1 answered, {answer[0]}"] += 1


def _ends(request: Request) -> bool:
    """True for a path outside of the API, after whose answer the connection ends."""
    return not request.target.lower().startswith(b"/v1/")


def _wanted(request: Request) -> bytes:
    """The body of the answer to a request that nothing is wrong with; empty where that is not known."""
    try:
        body = request.body
        if any(b"gzip" in value.lower() for value in request.values(b"content-encoding")):
            body = unpacked(body)
        document, _ = json.JSONDecoder().raw_decode(body.decode())  # what follows the document is ignored
        if request.target not in (b"/v1/models/half_plus_two:predict", b"/v1/models/h%61lf_plus_two:predict"):
            return b""
        if request.method != b"POST" or document.keys() != {"instances"} or len(document["instances"]) != 1:
            return b""
        value = float(document["instances"][0]) * 0.5 + 2
        return b'{\n    "predictions": [%s\n    ]\n}' % json.dumps(value).encode() if value < 1e6 else b""
    except (ValueError, OSError, EOFError, zlib.error, AttributeError, TypeError, LookupError):
        return b""


def unpacked(data: bytes) -> bytes:
    """All members of a gzip body, after which nothing may follow (RFC 1952): gzip itself ignores zeros there."""
    out = b""
    while data:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        out += member.decompress(data)
        if not member.eof:
            raise EOFError
        data = member.unused_data
    return out


async def _http2(address: tuple[str, int], sequence: http2_inputs.Sequence, found: Found) -> None:
    reader, writer = await asyncio.open_connection(*address)
    name = sequence.forbidden
    case = f"{name}: {sequence.values} {sequence.wire!r}"
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write(sequence.wire)
            answers, refused = await _answers(reader, sequence)
    except TimeoutError:
        (found.accepted if name else found.wrong).append(f"no answer: {case}")
        return
    finally:
        writer.close()
    own = {number: predicted(value) for number, value in sequence.values.items()}
    for number, data in answers.items():
        if number in own and data != own[number]:
            (found.mixed_up if data in own.values() else found.wrong).append(f"stream {number}, {data!r}: {case}")
    if name and not refused:
        found.accepted.append(case)
    elif not name and (refused or answers.keys() != own.keys()):
        found.wrong.append(f"{refused}, answered {sorted(answers)}: {case}")
    found.outcomes[f"HTTP/2 {refused or 'good'}"] += 1


async def _answers(reader: asyncio.StreamReader, sequence: http2_inputs.Sequence) -> tuple[dict[int, bytes], str]:
    """The data of each stream that was answered with OK, and how the forbidden thing was refused."""
    decoder, data, answers = Decoder(), dict[int, bytes](), dict[int, bytes]()
    refused, end_seen, buffer = "", False, b""
    while received := await _read(reader):
        frames, buffer = _split(buffer + received)
        for kind, flags, number, payload in frames:
            if kind == h2.GOAWAY:
                refused = f"GOAWAY {int.from_bytes(payload[4:8], 'big')}"
            elif kind == h2.RST_STREAM and number == sequence.stream:
                refused = f"RST_STREAM {int.from_bytes(payload, 'big')}"
            elif kind == h2.DATA:
                data[number] = data.get(number, b"") + payload
            elif kind == h2.HEADERS:
                fields = dict(decoder.decode(payload))
                if flags & h2.END_STREAM and fields.get("grpc-status") == "0":
                    answers[number] = data.pop(number, b"")
            elif kind == h2.PING and payload == http2_inputs.PING_DATA:
                end_seen = True
            if end_seen and (sequence.forbidden or answers.keys() == sequence.values.keys()):
                return answers, refused  # what comes after the end is too late to count as a refusal
    return answers, refused or "connection closed"


def _split(data: bytes) -> tuple[list[tuple[int, int, int, bytes]], bytes]:
    """Type, flags, stream and payload of each whole frame, and what is left."""
    frames, at = [], 0
    while len(data) - at >= h2.HEADER_BYTES:
        high, low, kind, flags, number = h2.HEADER.unpack_from(data, at)
        end = at + h2.HEADER_BYTES + (high << 16 | low)
        if end > len(data):
            break
        frames.append((kind, flags, number, data[at + h2.HEADER_BYTES : end]))
        at = end
    return frames, data[at:]


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Some bytes; none at the end of the connection."""
    try:
        return await reader.read(1 << 16)
    except ConnectionResetError:
        return b""


def predicted(value: float) -> bytes:
    """The framed PredictResponse of half_plus_two's version 2 for one number."""
    from tensorflow_serving.apis import predict_pb2

    response = predict_pb2.PredictResponse()
    response.model_spec.name, response.model_spec.signature_name = "half_plus_two", "serving_default"
    response.model_spec.version.value = 2
    tensor = response.outputs["y"]
    tensor.dtype = 1
    tensor.tensor_shape.dim.add(size=1)
    tensor.float_val.append(value * 0.5 + 2)
    return http2_inputs.framed(response.SerializeToString())
