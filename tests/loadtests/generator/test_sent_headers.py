"""Headers that a person names go with every request, over both protocols, and are assembled once."""

from __future__ import annotations

import base64
from concurrent import futures

import grpc
import numpy as np
import pytest

from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.generator.targets import PlainRequest, TargetOptions, build_target, detect_engine
from loadtests.generator.wire_http1 import request_bytes
from serving.headers import Header, Headers
from serving.wire.protos import torchserve_pb2
from tests.loadtests.generator.loads import load, outcomes, run
from tests.stand_ins.gateway import INVALID_KEY, gateway

TOKEN = "t0p-s3cr3t"
EVERY_5_MS = np.arange(0, 200_000_000, 5_000_000)
FIVE = ["X-Team=vision", "X-Request-Class=batch", "X-Region=eu", "X-Model-Version=3", "Accept-Language=de"]


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv("TOKEN", TOKEN)


def options(url="http://127.0.0.1:1", headers=(), **changes):
    plain = PlainRequest("POST", "/any?x=1", b"body", "text/plain")
    asked = {
        "hosts": [url],
        "grpc_targets": [],
        "engine": "savedmodel",
        "protocol": "rest",
        "model": "m",
        "payload": "image",
        "images_per_request": 1,
        "manifest": None,
        "timeout_s": 5.0,
        "plain": plain if changes.get("engine") == "http" else None,
    }
    return TargetOptions(**{**asked, "headers": Headers.of_options(headers), **changes})


def head_of(request):
    lines = request.head.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return lines[0], [tuple(line.split(": ", 1)) for line in lines[1:]]


@pytest.mark.parametrize("engine", ["savedmodel", "torchserve", "http"])
def test_every_prepared_request_carries_them_and_its_own_frame_is_as_before(engine):
    given = [*FIVE, "Authorization=Bearer env:TOKEN"]
    plain, sent = (build_target(options(engine=engine, headers=headers)) for headers in ((), given))
    for before, after in zip(plain.requests[0], sent.requests[0], strict=True):
        line, fields = head_of(after)
        own_line, own = head_of(before)
        assert line == own_line
        assert [field for field in fields if field in own] == own
        extra = [field for field in fields if field not in own]
        assert extra == [*(tuple(text.split("=")) for text in FIVE), ("Authorization", f"Bearer {TOKEN}")]
        assert after.head.partition(b"\r\n\r\n")[2] == before.head.partition(b"\r\n\r\n")[2]


def test_host_and_other_fields_of_ours_are_replaced_and_not_doubled():
    sent = request_bytes("POST", "/", "a:1", "image/png", b"12345", [("host", "models.example"), ("Accept", "text/x")])
    _, fields = head_of(type("Request", (), {"head": sent}))
    assert fields == [
        ("Host", "models.example"),
        ("User-Agent", "servestorm"),
        ("Accept", "text/x"),
        ("Content-Type", "image/png"),
        ("Content-Length", "5"),
    ]


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_values_are_read_once_for_a_load_and_not_for_a_request(protocol, monkeypatch):
    reads = []
    monkeypatch.setattr(Header, "read", lambda header: reads.append(header.name) or "v")
    with gateway() as server:
        target = build_target(options(server.url, FIVE, protocol=protocol, hosts=[server.url, server.url]))
        target.make(server.url)
        run(target, load(EVERY_5_MS, timeout_s=0.5))
    assert reads == [text.partition("=")[0] for text in FIVE]


def test_a_server_gets_them_with_every_request():
    with gateway(TOKEN) as server:
        target = build_target(options(server.url, [*FIVE, "Authorization=Bearer env:TOKEN", "Host=models.example"]))
        samples, _ = run(target, load(EVERY_5_MS))
    assert outcomes(samples) == {"ok": 40}
    assert len(server.asked) == 40
    wanted = {**dict(text.split("=") for text in FIVE), "Host": "models.example"}
    assert all(wanted.items() <= headers.items() for _, _, headers in server.asked)


@pytest.mark.parametrize(
    ("refusal", "named"),
    [
        ((401, b""), "refused authorisation (HTTP 401)"),
        ((403, b"no"), "refused authorisation (HTTP 403)"),
        ((400, INVALID_KEY), "refused authorisation (HTTP 400)"),
        ((400, b'{"type": "BadRequestException"}'), "HTTP 400"),
        ((503, b""), "HTTP 503"),
    ],
)
def test_a_refusal_of_authorisation_is_told_from_other_failures(refusal, named):
    with gateway(TOKEN, refusal) as server:
        target = build_target(options(server.url, ["Authorization=Bearer wrong"]))
        samples, generator = run(target, load(EVERY_5_MS))
    assert outcomes(samples) == {"http_error": 40}
    assert dict(generator.reasons) == {named: 40}


@pytest.mark.parametrize(
    "text", ["grpc-timeout=1S", "Content-Type=application/json", "Authorization=env:NO_SUCH_VARIABLE"]
)
def test_what_cannot_be_sent_is_refused_before_anything_is(text):
    with pytest.raises(LoadTestError, match="--header"):
        build_target(options(headers=[text], protocol="grpc"))


class Service(grpc.GenericRpcHandler):
    """Answers as TorchServe, or refuses with `status`; keeps the metadata of each call and its :authority."""

    def __init__(self):
        self.calls, self.status = [], None

    def service(self, details):
        def answer(_request, context):
            self.calls.append(dict(context.invocation_metadata()))
            if self.status:
                context.abort(self.status, "no")
            return torchserve_pb2.PredictionResponse(prediction=b"[0.5]").SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def grpc_service():
    service = Service()
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[service], options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", service
    server.stop(None)


def grpc_options(place, headers):
    return options(headers=headers, engine="torchserve", protocol="grpc", grpc_targets=[place])


def test_grpc_carries_them_as_metadata(grpc_service, tmp_path):
    place, service = grpc_service
    (tmp_path / "trace").write_bytes(b"\0\xff\x10")
    headers = [*FIVE, "Authorization=Bearer env:TOKEN", f"X-Trace-Bin=file:{tmp_path / 'trace'}", "User-Agent=mine"]
    samples, _ = run(build_target(grpc_options(place, headers)), load(EVERY_5_MS))
    assert outcomes(samples) == {"ok": 40}
    wanted = {**{name.lower(): value for name, value in (text.split("=") for text in FIVE)}}
    wanted |= {"authorization": f"Bearer {TOKEN}", "x-trace-bin": b"\0\xff\x10", "user-agent": "mine"}
    assert len(service.calls) == 40
    assert all(wanted.items() <= call.items() for call in service.calls)


def test_host_is_the_authority_of_grpc():
    from hpack import Decoder

    (requests,) = build_target(grpc_options("127.0.0.1:1", ["Host=models.example", "X-A=1"])).requests
    fields = Decoder().decode(requests[0].head)
    assert [value for name, value in fields if name in (":authority", "host")] == ["models.example"]
    assert [name for name, _ in fields][-1] == "x-a"
    before = Decoder().decode(build_target(grpc_options("127.0.0.1:1", [])).requests[0][0].head)
    assert dict(before)[":authority"] == "127.0.0.1:1"


def test_a_header_leaves_the_peer_s_table_of_names_as_it_is():
    from hpack import Decoder

    (requests,) = build_target(grpc_options("127.0.0.1:1", ["Authorization=Bearer env:TOKEN"])).requests
    decoder = Decoder()
    decoder.decode(requests[0].head)
    assert len(decoder.header_table.dynamic_entries) == 0


@pytest.mark.parametrize(
    ("status", "named"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "refused authorisation (gRPC status 16)"),
        (grpc.StatusCode.PERMISSION_DENIED, "refused authorisation (gRPC status 7)"),
        (grpc.StatusCode.UNAVAILABLE, "gRPC status 14"),
    ],
)
def test_grpc_names_a_refusal_of_authorisation(grpc_service, status, named):
    place, service = grpc_service
    service.status = status
    samples, generator = run(build_target(grpc_options(place, [])), load(EVERY_5_MS[:20]))
    assert outcomes(samples) == {"grpc_error": 20}
    assert dict(generator.reasons) == {named: 20}


def test_an_engine_is_detected_with_the_headers_and_a_refusal_is_named():
    with gateway(TOKEN) as server:
        assert detect_engine(server.url, "m", headers=[("Authorization", f"Bearer {TOKEN}")]) == "tfserving"
        with pytest.raises(LoadEnvironmentError, match=r"refused authorisation \(HTTP 401\).*--header Authorization"):
            detect_engine(server.url, "m")


def test_a_redirect_takes_no_header_to_another_server():
    with gateway() as other, gateway(redirect=f"{other.url}/v1/models/m") as server:
        with pytest.raises(LoadTestError, match="neither TensorFlow Serving"):
            detect_engine(server.url, "m", headers=[("X-Api-Key", TOKEN)])
        assert [path for _, path, _ in server.asked] == ["/v1/models/m", "/ping"]
        assert other.asked == []


def test_basic_credentials_are_sent_as_they_were_encoded(monkeypatch):
    monkeypatch.setenv("BASIC", base64.b64encode(b"user:pw").decode())
    target = build_target(options(headers=["Authorization=Basic env:BASIC"]))
    assert ("Authorization", "Basic dXNlcjpwdw==") in head_of(target.requests[0][0])[1]
