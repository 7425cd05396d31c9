"""The gRPC client speaks to a real gRPC server: whatever it answers is told apart and counted."""

import socket
import threading
import time
from concurrent import futures
from contextlib import suppress

import grpc
import numpy as np
import pytest

from loadtests.generator.addresses import resolve
from loadtests.generator.connections import PreparedRequest
from loadtests.generator.load import Target
from loadtests.generator.targets import answer_check
from loadtests.generator.wire_grpc import Http2Client, message_bytes, request_headers, unframe
from serving.http2_frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    Http2Error,
    frame,
    goaway,
    literal,
    settings,
)
from serving.wire import WIRES
from serving.wire.protos import torchserve_pb2
from tests.loadtests.generator.loads import accept_all, load, outcomes, run

EVERY_5_MS = np.arange(0, 500_000_000, 5_000_000)
_METHODS = {"Echo": lambda request, context: request, "Sleep": lambda request, context: time.sleep(2) or request}


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, seen):
        self.seen = seen

    def service(self, details):
        name = details.method.rsplit("/", 1)[1]
        if name == "Fail":
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no image")
            )
        if name not in _METHODS:
            return None

        def answer(request, context):
            self.seen.append(request)
            return _METHODS[name](request, context)

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def server():
    seen = []
    running = grpc.server(futures.ThreadPoolExecutor(8), handlers=[_Handler(seen)], options=[("grpc.so_reuseport", 0)])
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield port, seen, running
    running.stop(None)


def target(port, method, message=b"hello", check=accept_all):
    headers = request_headers("http", f"127.0.0.1:{port}", f"/test.Service/{method}", 10)
    requests = [[PreparedRequest(headers, message_bytes(message))]]
    return Target([resolve("127.0.0.1", port, None)], requests, True, check)


def test_every_call_arrives_whole_and_its_reply_is_checked(server):
    port, seen, _ = server
    bodies = []
    check = lambda image, body: (bodies.append(body), accept_all(image, body))[1]  # noqa: E731
    samples, _ = run(target(port, "Echo", b"x" * 70_000, check), load(EVERY_5_MS, connections=2))
    assert outcomes(samples) == {"ok": 100}
    assert set(seen) == set(bodies) == {b"x" * 70_000}
    assert (samples["sent_ns"] < samples["first_byte_ns"]).all()


def test_a_message_larger_than_every_flow_control_window_arrives(server):
    port, seen, _ = server
    samples, _ = run(target(port, "Echo", b"y" * 3_000_000), load(EVERY_5_MS[:5], connections=1))
    assert outcomes(samples) == {"ok": 5}
    assert [len(message) for message in seen] == [3_000_000] * 5


def test_many_calls_share_one_connection_in_a_closed_loop(server):
    port, _, _ = server
    samples, _ = run(target(port, "Echo"), load([], closed_loop=16, duration_s=0.5, connections=1))
    assert set(outcomes(samples)) == {"ok"}
    events = sorted([(t, 1) for t in samples["sent_ns"]] + [(t, -1) for t in samples["done_ns"]])
    assert max(np.cumsum([change for _, change in events])) > 8


@pytest.mark.parametrize(("method", "reason"), [("Fail", "gRPC status 3"), ("Missing", "gRPC status 12")])
def test_an_error_status_is_named_with_its_code(server, method, reason):
    samples, generator = run(target(server[0], method), load(EVERY_5_MS[:20]))
    assert outcomes(samples) == {"grpc_error": 20}
    assert dict(generator.reasons) == {reason: 20}


def test_a_call_that_is_never_answered_times_out_and_the_others_go_on(server):
    samples, _ = run(target(server[0], "Sleep"), load(EVERY_5_MS[:3], timeout_s=0.3))
    assert outcomes(samples) == {"timeout": 3}


def test_a_server_that_stops_is_counted_and_the_load_ends(server):
    port, _, running = server
    stopped = threading.Event()

    def stop(generator):
        if generator.fired >= 40 and not stopped.is_set():
            stopped.set()
            running.stop(None)

    samples, _ = run(target(port, "Echo"), load(EVERY_5_MS, timeout_s=1.0), meanwhile=stop)
    found = outcomes(samples)
    assert sum(found.values()) == 100
    assert found["ok"] >= 30
    assert found["ok"] < 100


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x40\x01\x00\x00\x00\x00\x00\x00" + b"x" * 100,
        b"\x00\x00\x01\x09\x04\x00\x00\x00\x01\x00",
        b"\x00\x00\x02\x01\x04\x00\x00\x00\x01\xff\xff",
        b"\x00\x00\x00\x05\x00\x00\x00\x00\x01",
        b"\x00\x00\x01\x00\x08\x00\x00\x00\x01\x09",
        settings({MAX_FRAME_SIZE: 0}),
        settings({MAX_FRAME_SIZE: 1 << 24}),
        settings({INITIAL_WINDOW_SIZE: 1 << 31}),
    ],
    ids=[
        "frame too large",
        "continuation without headers",
        "bad header block",
        "push",
        "padding over the frame",
        "frames without a byte",
        "frames of 16 MiB",
        "a window of 2 GiB",
    ],
)
def test_a_peer_that_breaks_the_protocol_is_refused(data):
    connection = Http2Client()
    connection.start(b"", b"x")
    with pytest.raises(Http2Error):
        connection.receive(data)


@pytest.mark.parametrize("status", ["²".encode("latin-1"), b"9" * 5_000, b"99999999999", b"-1", b""])
def test_a_status_that_is_no_number_is_unknown(status):
    connection = Http2Client()
    stream = connection.start(b"", b"x")
    trailers = literal(b":status", status) + literal(b"grpc-status", status)
    ((_, reply),) = connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers))
    assert (reply.status, reply.http_status) == (2, 0)


def says_goodbye(connection):
    """Take one call, go away, and fall silent."""
    with suppress(OSError):
        connection.recv(65_536)
        connection.sendall(settings({}) + goaway(2**31 - 1, 0))
        while connection.recv(65_536):
            pass


def test_a_connection_that_goes_away_makes_room_once_its_calls_have_timed_out():
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept():
            with suppress(OSError):
                while True:
                    accepted.append(listener.accept()[0])
                    threading.Thread(target=says_goodbye, args=(accepted[-1],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        asked = load(EVERY_5_MS, timeout_s=0.1, connections=1)
        samples, generator = run(target(listener.getsockname()[1], "Echo"), asked)
        listener.shutdown(socket.SHUT_RDWR)
    for connection in accepted:
        connection.close()
    assert outcomes(samples) == {"timeout": 100}
    assert len(accepted) > 2, generator.reasons


@pytest.mark.parametrize("body", [b"\0\0\0", b"\0\0\0\0\x05abc", b"\1\0\0\0\x01a"])
def test_a_message_cut_short_or_compressed_is_refused(body):
    with pytest.raises(Http2Error):
        unframe(body)


def test_frames_are_understood_however_the_bytes_are_cut():
    limit = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x07"
    ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
    connection = Http2Client()
    connection.outgoing.clear()
    for byte in limit + ping:
        connection.receive(bytes([byte]))
    assert connection.max_streams == 7
    assert b"".join(map(bytes, connection.outgoing)) == (
        b"\x00\x00\x00\x04\x01\x00\x00\x00\x00" + b"\x00\x00\x08\x06\x01\x00\x00\x00\x0012345678"
    )


def test_an_error_that_a_handler_answered_with_status_ok_is_no_answer(server):
    port, _, _ = server
    error = b'{"code": 400, "type": "BadRequestException", "message": "no image"}'
    message = torchserve_pb2.PredictionResponse(prediction=error).SerializeToString()
    check = answer_check(WIRES["torchserve"], True, None, [[0]])
    samples, generator = run(target(port, "Echo", message, check), load(EVERY_5_MS[:10]))
    assert outcomes(samples) == {"bad_reply": 10}
    assert dict(generator.reasons) == {"the reply is an error: 400 BadRequestException no image": 10}
