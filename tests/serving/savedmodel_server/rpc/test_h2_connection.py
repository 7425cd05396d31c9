"""The gRPC transport on the event loop, frame by frame: what a peer may send, and what it may not."""

import gzip
import socket
import struct
import threading

import grpc
import numpy as np
import pytest
import requests
from hpack import Decoder, Encoder

from serving import http2_frames as h2
from tests.serving.savedmodel_server.server_process import LABELS_AT_START, start_server

pytestmark = pytest.mark.system
PATH = "/tensorflow.serving.PredictionService/Predict"
PREDICT = [
    (":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "x"),
    ("te", "trailers"), ("content-type", "application/grpc"),
]  # fmt: skip


def predict_message(*values, model="half_plus_two", signature=""):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    tensor = request.inputs["x"]
    tensor.dtype = 1
    tensor.tensor_content = np.array(values, np.float32).tobytes()
    tensor.tensor_shape.dim.add(size=len(values))
    return request.SerializeToString()


def framed(message, flag=0):
    return bytes([flag]) + struct.pack(">I", len(message)) + message


class Peer:
    """A client that can send anything."""

    def __init__(self, target, greet=True):
        host, port = target.rsplit(":", 1)
        self.sock = socket.create_connection((host, int(port)), timeout=30)
        self.stream = self.sock.makefile("rb")
        self.encoder, self.decoder = Encoder(), Decoder()
        if greet:
            self.sock.sendall(h2.PREFACE + h2.settings({}))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.sock.close()

    def send(self, *frames):
        self.sock.sendall(b"".join(frames))

    def head(self, stream, headers=None, flags=h2.END_HEADERS):
        return h2.frame(h2.HEADERS, flags, stream, self.encoder.encode(headers or PREDICT))

    def call(self, stream, message, headers=None):
        return self.head(stream, headers) + h2.frame(h2.DATA, h2.END_STREAM, stream, framed(message))

    def frame(self):
        head = self.stream.read(9)
        if len(head) < 9:
            return None
        high, low, kind, flags, stream = h2.HEADER.unpack(head)
        return kind, flags, stream, self.stream.read(high << 16 | low)

    def answer(self, stream):
        """(headers and trailers, data) of one stream."""
        fields, data = {}, b""
        while True:
            kind, flags, number, payload = self.frame()
            if kind == h2.HEADERS:
                found = dict(self.decoder.decode(payload))
                if number == stream:
                    fields.update(found)
            elif kind == h2.DATA and number == stream:
                data += payload
            if number == stream and flags & h2.END_STREAM:
                return fields, data

    def goodbye(self):
        """The code of the GOAWAY that ends the connection."""
        code = None
        while (found := self.frame()) is not None:
            if found[0] == h2.GOAWAY:
                code = int.from_bytes(found[3][4:8], "big")
        return code


def outputs(data):
    from tensorflow_serving.apis import predict_pb2

    return list(predict_pb2.PredictResponse.FromString(data[5:]).outputs["y"].float_val)


def answered(server):
    with Peer(server.target) as peer:
        peer.send(peer.call(1, predict_message(1.0)))
        return outputs(peer.answer(1)[1]) == [2.5]


def test_streams_of_one_connection_are_answered_each_by_its_own(server):
    with Peer(server.target) as peer:
        peer.send(*(peer.call(2 * i + 1, predict_message(float(i))) for i in range(50)))
        found = {}
        while len(found) < 50:
            kind, _, number, payload = peer.frame()
            if kind == h2.DATA:
                found[number] = outputs(payload)
    assert found == {2 * i + 1: [i / 2 + 2] for i in range(50)}


def test_single_bytes_padding_priority_and_continuation_are_read(server):
    with Peer(server.target, greet=False) as peer:
        block = peer.encoder.encode(PREDICT)
        message = framed(predict_message(1.0))
        padded = bytes([7]) + message + bytes(7)
        wire = (
            h2.PREFACE + h2.settings({})
            + h2.frame(h2.HEADERS, h2.HAS_PRIORITY | h2.PADDED, 1, b"\x03" + bytes(5) + block[:10] + bytes(3))
            + h2.frame(h2.CONTINUATION, 0, 1, block[10:20])
            + h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[20:])
            + h2.frame(h2.PRIORITY, 0, 1, bytes(5))
            + h2.frame(0xBB, 0, 0, b"unknown")
            + h2.frame(h2.DATA, h2.END_STREAM | h2.PADDED, 1, padded)
        )  # fmt: skip
        for byte in wire:
            peer.send(bytes([byte]))
        assert outputs(peer.answer(1)[1]) == [2.5]


def test_a_head_that_is_sent_again_is_understood_whatever_the_table_did_meanwhile(server):
    with Peer(server.target) as peer:
        for i in range(40):
            extra = [(f"x-{i % 7}", "v" * (i * 40))]
            peer.send(peer.call(2 * i + 1, predict_message(float(i)), PREDICT + (extra if i % 3 else [])))
            assert outputs(peer.answer(2 * i + 1)[1]) == [i / 2 + 2]


def test_a_reply_waits_for_the_clients_windows(server):
    values = [float(i) for i in range(50_000)]
    with Peer(server.target, greet=False) as peer:
        peer.send(h2.PREFACE, h2.settings({h2.INITIAL_WINDOW_SIZE: 1000}))
        message = framed(predict_message(*values))
        pieces = [message[i : i + h2.MAX_FRAME_BYTES] for i in range(0, len(message), h2.MAX_FRAME_BYTES)]
        peer.send(peer.head(1), *(h2.frame(h2.DATA, 0, 1, p) for p in pieces), h2.frame(h2.DATA, h2.END_STREAM, 1))
        data, allowed = b"", 1000
        while True:
            kind, flags, _, payload = peer.frame()
            if kind == h2.DATA:
                data += payload
                assert len(data) <= allowed
                if len(data) == allowed:
                    peer.send(h2.window_update(1, 30_000), h2.window_update(0, 30_000))
                    allowed += 30_000
            if kind == h2.HEADERS and flags & h2.END_STREAM:
                break
    assert outputs(data)[-1] == 49_999 / 2 + 2


def test_a_message_larger_than_a_streams_window_is_taken(server):
    values = np.zeros(3_000_000, np.float32)
    with grpc.insecure_channel(server.target, options=[("grpc.max_receive_message_length", -1)]) as channel:
        reply = channel.unary_unary(PATH)(predict_message(*values), timeout=60)
    assert len(reply) > 3_000_000


def test_gzip_is_inflated_and_a_bomb_is_refused(server):
    headers = [*PREDICT, ("grpc-encoding", "gzip")]

    def zipped(peer, stream, data):
        body = framed(gzip.compress(data), 1)
        frames = [body[i : i + h2.MAX_FRAME_BYTES] for i in range(0, len(body), h2.MAX_FRAME_BYTES)]
        peer.send(peer.head(stream, headers), *(h2.frame(h2.DATA, 0, stream, f) for f in frames))
        peer.send(h2.frame(h2.DATA, h2.END_STREAM, stream))
        return peer.answer(stream)

    with Peer(server.target) as peer:
        assert outputs(zipped(peer, 1, predict_message(1.0))[1]) == [2.5]
        assert zipped(peer, 3, bytes(80 << 20))[0]["grpc-status"] == "8"
        assert zipped(peer, 5, b"x")[0]["grpc-status"] != "0"


@pytest.mark.parametrize("cut", [1, 4, 8, 20])
def test_a_gzip_message_that_is_cut_off_or_followed_by_more_is_refused(server, cut):
    whole = gzip.compress(predict_message(1.0))
    with Peer(server.target) as peer:
        for number, data in enumerate([whole[:-cut], whole + b"x" * cut]):
            stream = 2 * number + 1
            peer.send(peer.head(stream, [*PREDICT, ("grpc-encoding", "gzip")]))
            peer.send(h2.frame(h2.DATA, h2.END_STREAM, stream, framed(data, 1)))
            assert peer.answer(stream)[0]["grpc-status"] == "13"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "13"),
        (b"\x00\x00\x00\x00\x05abc", "13"),
        (framed(b"\xff\xff"), "13"),
        (framed(b"") + framed(b""), "13"),
        (framed(b"", 1), "12"),
    ],
)
def test_a_body_that_is_not_one_message_is_refused_and_the_connection_lives(server, body, status):
    with Peer(server.target) as peer:
        peer.send(peer.head(1), h2.frame(h2.DATA, h2.END_STREAM, 1, body))
        assert peer.answer(1)[0]["grpc-status"] == status
        peer.send(peer.call(3, predict_message(1.0)))
        assert outputs(peer.answer(3)[1]) == [2.5]


@pytest.mark.parametrize(
    ("headers", "field", "value"),
    [
        ([(":method", "GET"), *PREDICT[1:]], ":status", "405"),
        ([*PREDICT[:-1], ("content-type", "text/html")], ":status", "415"),
        ([*PREDICT[:2], (":path", "/nope"), *PREDICT[3:]], "grpc-status", "12"),
    ],
)
def test_a_request_that_is_no_call_of_ours_is_refused(server, headers, field, value):
    with Peer(server.target) as peer:
        peer.send(peer.call(1, predict_message(1.0), headers))
        assert peer.answer(1)[0][field] == value


BROKEN = {
    "http/1.1": (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", h2.PROTOCOL_ERROR),
    "too large a frame": (b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", h2.FRAME_SIZE_ERROR),
    "data on an idle stream": (h2.frame(h2.DATA, 0, 5, b"x"), h2.PROTOCOL_ERROR),
    "an even stream": (h2.frame(h2.HEADERS, h2.END_HEADERS, 2, b"\x83"), h2.PROTOCOL_ERROR),
    "a head of nonsense": (h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff\xff\xff\xff\xff"), h2.COMPRESSION_ERROR),
    "padding beyond the frame": (h2.frame(h2.HEADERS, h2.PADDED, 1, b"\xff"), h2.PROTOCOL_ERROR),
    "no continuation": (h2.frame(h2.HEADERS, 0, 1, b"\x83") + h2.settings({}), h2.PROTOCOL_ERROR),
    "a continuation of nothing": (h2.frame(h2.CONTINUATION, 0, 1, b""), h2.PROTOCOL_ERROR),
    "a window of nothing": (h2.window_update(0, 0), h2.PROTOCOL_ERROR),
    "too large a window": (h2.window_update(0, h2.MAX_WINDOW) * 2, h2.FLOW_CONTROL_ERROR),
    "too large an initial window": (h2.settings({h2.INITIAL_WINDOW_SIZE: 2**31}), h2.FLOW_CONTROL_ERROR),
    "settings cut short": (h2.frame(h2.SETTINGS, 0, 0, b"abc"), h2.FRAME_SIZE_ERROR),
    "ping cut short": (h2.frame(h2.PING, 0, 0, b"abc"), h2.FRAME_SIZE_ERROR),
    "a push": (h2.frame(h2.PUSH_PROMISE, 0, 1, b""), h2.PROTOCOL_ERROR),
    "a flood of pings": (h2.frame(h2.PING, 0, 0, bytes(8)) * 3000, h2.ENHANCE_YOUR_CALM),
    "a flood of empty data": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, Encoder().encode(PREDICT)) + h2.frame(h2.DATA, 0, 1) * 3000,
        h2.ENHANCE_YOUR_CALM,
    ),
    "a flood of empty data on a stream that is over": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, Encoder().encode(PREDICT)) + h2.window_update(1, 0)
        + h2.frame(h2.DATA, 0, 1) * 3000,
        h2.ENHANCE_YOUR_CALM,
    ),
    "a flood of settings": (h2.settings({}) * 3000, h2.ENHANCE_YOUR_CALM),
    "an endless head": (
        h2.frame(h2.HEADERS, 0, 1, b"") + h2.frame(h2.CONTINUATION, 0, 1, b"\x00" * 16000) * 5, h2.ENHANCE_YOUR_CALM,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_protocol_ends_the_connection_with_its_code_and_harms_nobody(server, case):
    wire, code = BROKEN[case]
    with Peer(server.target, greet=case != "http/1.1") as peer:
        try:
            peer.send(wire)
            assert peer.goodbye() == code
        except ConnectionError:
            pass  # closed while we wrote on
    assert answered(server)


def test_frames_before_the_first_settings_end_the_connection(server):
    with Peer(server.target, greet=False) as peer:
        peer.send(h2.PREFACE, h2.frame(h2.PING, 0, 0, bytes(8)))
        assert peer.goodbye() == h2.PROTOCOL_ERROR
    assert answered(server)


def test_a_flood_of_complete_calls_that_are_reset_ends_the_connection(server):
    with Peer(server.target) as peer:
        try:
            for i in range(3000):
                peer.send(peer.call(2 * i + 1, predict_message(1.0)), h2.rst_stream(2 * i + 1, 8))
            assert peer.goodbye() == h2.ENHANCE_YOUR_CALM
        except ConnectionError:
            pass  # closed while we wrote on
        else:
            assert answered(server)
            return
    assert answered(server)


def test_a_flood_of_calls_that_make_us_reset_them_ends_the_connection(server):
    with Peer(server.target) as peer:
        frames = [peer.head(2 * i + 1) + h2.window_update(2 * i + 1, 0) for i in range(1100)]
        peer.send(*frames)
        assert peer.goodbye() == h2.ENHANCE_YOUR_CALM
    assert answered(server)


def test_calls_that_are_answered_make_room_for_resets(server):
    with Peer(server.target) as peer:
        peer.send(h2.window_update(0, 1 << 20))
        for i in range(3):
            for k in range(400):
                stream = 2 * (1000 * i + k) + 1
                peer.send(peer.head(stream), h2.rst_stream(stream, 8))
            calls = [2 * (1000 * i + 400 + k) + 1 for k in range(400)]
            peer.send(*(peer.call(stream, predict_message(1.0)) for stream in calls))
            found = set()
            while len(found) < len(calls):
                kind, flags, number, _ = peer.frame()
                assert kind != h2.GOAWAY
                if kind == h2.HEADERS and flags & h2.END_STREAM:
                    found.add(number)
            assert found == set(calls)


def spin_message(turns):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "zoo", "spin"
    request.inputs["turns"].dtype = 3
    request.inputs["turns"].int_val.append(turns)
    request.inputs["turns"].tensor_shape.dim.add(size=1)
    return request.SerializeToString()


@pytest.mark.parametrize("path", [PATH, PATH.replace("Predict", "Classify")])
def test_a_call_whose_deadline_has_passed_when_it_is_complete_is_not_run(server, path):
    before = counted(server)
    headers = [*PREDICT[:2], (":path", path), *PREDICT[3:], ("grpc-timeout", "1n")]
    with Peer(server.target) as peer:
        peer.send(peer.call(1, predict_message(1.0), headers))
        assert peer.answer(1)[0]["grpc-status"] == "4"
        peer.send(peer.call(3, predict_message(1.0), [*PREDICT, ("grpc-timeout", "99999999H")]))
        assert outputs(peer.answer(3)[1]) == [2.5]
    assert counted(server) == before + 1


def counted(server):
    """Runs in TensorFlow so far."""
    page = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=20).text
    lines = [line for line in page.splitlines() if line.startswith(":tensorflow:serving:runtime_latency_count")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_a_call_that_runs_or_arrives_beyond_its_deadline_ends_with_it(server):
    with Peer(server.target) as peer:
        peer.send(peer.call(1, spin_message(200_000), [*PREDICT, ("grpc-timeout", "200m")]))
        assert peer.answer(1)[0]["grpc-status"] == "4"
        peer.send(peer.head(3, [*PREDICT, ("grpc-timeout", "200m")]), h2.frame(h2.DATA, 0, 3, b"\x00"))
        assert peer.answer(3)[0]["grpc-status"] == "4"
        peer.send(peer.call(5, predict_message(1.0), [*PREDICT, ("grpc-timeout", "soon")]))
        assert peer.answer(5)[0][":status"] == "400"
    assert answered(server)


def test_a_flood_of_resets_does_not_stop_others(server):
    with Peer(server.target) as peer:
        for i in range(500):
            peer.send(peer.head(2 * i + 1), h2.rst_stream(2 * i + 1, 8))
        assert answered(server)


def test_a_stream_beyond_the_limit_is_refused_and_the_others_live(server):
    with Peer(server.target) as peer:
        for i in range(1025):
            peer.send(peer.head(2 * i + 1))
        while True:
            kind, _, number, payload = peer.frame()
            if kind == h2.RST_STREAM:
                break
        assert (number, int.from_bytes(payload, "big")) == (2049, h2.REFUSED_STREAM)
        peer.send(h2.frame(h2.DATA, h2.END_STREAM, 1, framed(predict_message(1.0))))
        assert outputs(peer.answer(1)[1]) == [2.5]


def test_a_ping_is_answered(server):
    with Peer(server.target) as peer:
        peer.send(h2.frame(h2.PING, 0, 0, b"12345678"))
        while (found := peer.frame())[0] != h2.PING:
            pass
        assert found == (h2.PING, h2.ACK, 0, b"12345678")


def test_the_error_text_of_a_call_keeps_its_characters(server):
    with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(PATH)(predict_message(1.0, model="né 100%"), timeout=20)
    assert caught.value.details() == "Servable not found for request: Latest(né 100%)"


def test_health_watch_tells_the_state_and_then_each_change(server):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(server.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="half_plus_two"), timeout=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="nope"), timeout=30)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_message_over_the_limit_and_a_slow_one_are_refused(zoo, tmp_path):
    server = start_server(
        tmp_path, f"--model_config_file={zoo / 'models.config'}", LABELS_AT_START, "--max_request_bytes=1000",
        "--rest_api_timeout_in_ms=1000",
    )  # fmt: skip
    try:
        server.wait_ready("zoo")
        with Peer(server.target) as peer:
            peer.send(peer.head(1), h2.frame(h2.DATA, 0, 1, framed(bytes(2000))))
            assert peer.answer(1)[0]["grpc-status"] == "8"
            peer.send(peer.head(3), h2.frame(h2.DATA, 0, 3, b"\x00"))
            assert peer.answer(3)[0]["grpc-status"] == "4"
            for stream in range(5, 45, 2):  # of 2000 bytes, which is what all unfinished requests may keep
                peer.send(peer.head(stream), h2.frame(h2.DATA, 0, stream, framed(bytes(200))[:150]))
            refused = {peer.answer(stream)[0]["grpc-status"] for stream in range(31, 45, 2)}
            assert refused == {"14"}
        with Peer(server.target, greet=False) as closed:
            closed.send(h2.PREFACE, h2.settings({h2.INITIAL_WINDOW_SIZE: 0}), closed.call(1, predict_message(1.0)))
            while (found := closed.frame())[0] != h2.RST_STREAM:
                pass
            assert (found[2], int.from_bytes(found[3], "big")) == (1, h2.CANCEL)
        with Peer(server.target) as endless:
            endless.send(h2.frame(h2.HEADERS, 0, 1, endless.encoder.encode(PREDICT)))
            assert endless.goodbye() == h2.ENHANCE_YOUR_CALM
        with Peer(server.target, greet=False) as silent:
            assert silent.sock.recv(1000)
            while silent.sock.recv(1000):
                pass
    finally:
        server.stop()


def test_calls_under_way_are_answered_while_sigterm_drains(zoo, tmp_path):
    from tensorflow_serving.apis import predict_pb2

    server = start_server(tmp_path, "--model_name=zoo", f"--model_base_path={zoo / 'zoo'}")
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "zoo", "spin"
    request.inputs["turns"].dtype = 3
    request.inputs["turns"].int_val.append(20_000)
    request.inputs["turns"].tensor_shape.dim.add(size=1)
    try:
        server.wait_ready("zoo")
        with grpc.insecure_channel(server.target) as channel:
            future = channel.unary_unary(PATH).future(request.SerializeToString(), timeout=60)
            threading.Event().wait(0.3)
            server.process.terminate()
            assert predict_pb2.PredictResponse.FromString(future.result()).outputs["y"].float_val
    finally:
        code = server.stop()
    assert code == 0
