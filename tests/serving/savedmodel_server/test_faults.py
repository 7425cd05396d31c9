"""Whatever a client does, a real savedmodel-server answers what is documented and lives on."""

import http.client
import json
import socket
import struct
import time
import zlib
from base64 import b64encode
from urllib.parse import urlsplit

import pytest
import requests

from tests.serving.savedmodel_server.server_process import LABELS_AT_START, start_server

pytestmark = pytest.mark.system
BODY = b'{"instances": [1.0]}'
HEAD = b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"


def connected(server):
    host = urlsplit(server.url)
    return socket.create_connection((host.hostname, host.port), timeout=60)


def answered(server):
    reply = requests.post(f"{server.url}/v1/models/half_plus_two:predict", data=BODY, timeout=20)
    return reply.json() == {"predictions": [2.5]}


def read_reply(sock):
    response = http.client.HTTPResponse(sock)
    response.begin()
    return response.status, response.read(), response.getheader("connection")


@pytest.fixture(scope="module")
def strict(zoo, tmp_path_factory):
    """A server with small limits: 2 s for a request, 1 MB for a body."""
    running = start_server(
        tmp_path_factory.mktemp("strict"),
        f"--model_config_file={zoo / 'models.config'}",
        LABELS_AT_START,
        "--rest_api_timeout_in_ms=2000",
        "--max_request_bytes=1000000",
    )
    try:
        running.wait_ready("zoo")
        yield running
    finally:
        running.stop()


def test_a_request_in_single_bytes_is_answered(server):
    with connected(server) as sock:
        for byte in HEAD + BODY:
            sock.sendall(bytes([byte]))
        assert read_reply(sock)[:2] == (200, b'{\n    "predictions": [2.5\n    ]\n}')


def test_pipelined_requests_are_answered_in_order(server):
    bodies = [json.dumps({"instances": [float(i)]}).encode() for i in range(20)]
    requests_bytes = b"".join(
        b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(b), b)
        for b in bodies
    )
    with connected(server) as sock:
        sock.sendall(requests_bytes)
        stream = sock.makefile("rb")
        found = []
        for _ in bodies:
            length = 0
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            found.append(json.loads(stream.read(length))["predictions"][0])
    assert found == [i / 2 + 2 for i in range(20)]


def test_a_chunked_body_is_read(server):
    chunks = (BODY[i : i + 3] for i in range(0, len(BODY), 3))
    reply = requests.post(f"{server.url}/v1/models/half_plus_two:predict", data=chunks, timeout=20)
    assert reply.json() == {"predictions": [2.5]}


@pytest.mark.parametrize("piece_bytes", [1000, 300_000])
def test_a_large_body_in_pieces_is_read_whole(server, piece_bytes):
    body = json.dumps({"instances": [float(i) for i in range(200_000)]}).encode()
    pieces = (body[i : i + piece_bytes] for i in range(0, len(body), piece_bytes))
    reply = requests.post(f"{server.url}/v1/models/half_plus_two:predict", data=pieces, timeout=60)
    assert len(body) > 1 << 20 and reply.json()["predictions"] == [i / 2 + 2 for i in range(200_000)]


def test_expect_100_continue_is_answered_before_the_body(server):
    with connected(server) as sock:
        sock.sendall(HEAD[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(BODY)
        assert read_reply(sock)[0] == 200


def test_connection_close_is_kept(server):
    with connected(server) as sock:
        sock.sendall(HEAD[:-2] + b"Connection: close\r\n\r\n" + BODY)
        assert read_reply(sock)[2] == "close"
        assert sock.recv(10) == b""


def test_http_1_0_closes_after_the_answer(server):
    with connected(server) as sock:
        sock.sendall(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + BODY)
        assert read_reply(sock)[0] == 200
        assert sock.recv(10) == b""


def test_a_client_that_goes_away_in_the_middle_harms_nothing(server):
    for cut in (10, len(HEAD), len(HEAD) + 5):
        with connected(server) as sock:
            sock.sendall((HEAD + BODY)[:cut])
    with connected(server) as sock:
        sock.sendall(HEAD + BODY)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert answered(server)


def test_bytes_that_are_no_http_get_400_in_json(server):
    with connected(server) as sock:
        sock.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        status, body, _ = read_reply(sock)
    assert status == 400 and "error" in json.loads(body)


def test_an_endless_head_is_cut_off(server):
    with connected(server) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nX: ")
        for _ in range(1000):
            sock.sendall(b"a" * 1000)
        assert read_reply(sock)[0] == 431
        assert sock.recv(10) == b""
    assert answered(server)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_gets_413_at_once(strict, chunked):
    data = b"[" * 3_000_000
    body = iter([data[:500_000]] * 6) if chunked else data
    reply = requests.post(f"{strict.url}/v1/models/half_plus_two:predict", data=body, timeout=20)
    assert reply.status_code == 413 and "1000000 bytes" in reply.json()["error"]
    assert answered(strict)


@pytest.mark.parametrize("verb", ["classify", "regress"])
def test_the_limit_holds_for_examples_too(strict, verb):
    reply = requests.post(f"{strict.url}/v1/models/half_plus_two:{verb}", data=b"[" * 3_000_000, timeout=20)
    assert reply.status_code == 413


@pytest.mark.parametrize("sent", [HEAD[:30], HEAD, HEAD + BODY[:5]])
def test_a_slow_loris_is_closed_with_408(strict, sent):
    with connected(strict) as sock:
        sock.sendall(sent)
        assert read_reply(sock)[0] == 408


def test_a_call_that_takes_too_long_is_deadline_exceeded(strict):
    body = {"signature_name": "spin", "instances": [200_000]}
    reply = requests.post(f"{strict.url}/v1/models/zoo:predict", json=body, timeout=60)
    assert reply.status_code == 504 and "Timed out" in reply.json()["error"]
    assert answered(strict)


@pytest.mark.parametrize("deep", [b'{"instances": ' + b"[" * 500_000, b"[" * 500_000, b'{"a":' * 100_000])
def test_deep_nesting_is_refused(server, deep):
    reply = requests.post(f"{server.url}/v1/models/half_plus_two:predict", data=deep, timeout=20)
    assert reply.status_code == 400
    assert answered(server)


def bomb(width, height):
    """A PNG of a few KB whose pixels would fill gigabytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 << 20)) for _ in range(8)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image", [b"", b"no image", bomb(60_000, 60_000), b"\x89PNG\r\n\x1a\n" + b"\x00" * 100])
def test_bytes_that_are_no_fit_image_are_the_clients_fault(server, image):
    body = {"signature_name": "image", "instances": [{"b64": b64encode(image).decode()}]}
    reply = requests.post(f"{server.url}/v1/models/zoo:predict", json=body, timeout=60)
    assert reply.status_code == 400, reply.text[:300]
    assert answered(server)


def test_many_idle_connections_are_borne(server):
    held = [connected(server) for _ in range(200)]
    try:
        assert answered(server)
    finally:
        for sock in held:
            sock.close()


@pytest.mark.parametrize("path", ["/", "/x", "/../../etc", "/v1", "/v2/models", "/monitoring/prometheus/metrics/"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_a_path_outside_of_the_api_is_a_page_that_says_so_and_ends_the_connection(server, method, path):
    reply = requests.request(method, server.url + path, timeout=20)
    assert (reply.status_code, reply.headers["content-type"]) == (404, "text/html")
    assert reply.headers["connection"] == "close" and "<H1>Not Found</H1>" in reply.text


def test_names_that_are_no_utf_8_are_names_like_any_other(server):
    url = f"{server.url}/v1/models/half_plus_two:regress"
    good = b'{"signature_name": "regress_x_to_y", "examples": [{"x": 1.0, "\xff": 2.0}]}'
    reply = requests.post(url, data=good, timeout=20)
    assert (reply.status_code, reply.json()) == (200, {"results": [2.5]})
    for verb in ("regress", "classify", "predict"):
        unknown = b'{"signature_name": "\xff", "instances": [1], "examples": [{"x": 1.0}]}'
        reply = requests.post(url.replace("regress", verb), data=unknown, timeout=20)
        assert reply.status_code == 400 and "signature" in reply.json()["error"], reply.text


def test_the_memory_of_unknown_names_is_bounded_in_the_metrics(server):
    for name in [*(f"unknown{i}" for i in range(150)), "unknown" * 100]:
        requests.post(f"{server.url}/v1/models/{name}:predict", data=BODY, timeout=20)
    page = requests.get(f"{server.url}/monitoring/prometheus/metrics", timeout=20).text
    assert 0 < page.count("unknown") <= 100 and "unknownunknown" not in page
    (rest,) = [line for line in page.splitlines() if ':request_count{model_name="",status="NOT_FOUND"}' in line]
    assert int(rest.rpartition(" ")[2]) >= 51


def test_requests_while_sigterm_drains_are_answered(zoo, tmp_path):
    server = start_server(tmp_path, "--model_name=zoo", f"--model_base_path={zoo / 'zoo'}")
    try:
        server.wait_ready("zoo")
        body = json.dumps({"signature_name": "spin", "instances": [20_000]}).encode()
        with connected(server) as sock:
            sock.sendall(
                b"POST /v1/models/zoo:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            time.sleep(0.3)
            server.process.terminate()
            assert read_reply(sock)[0] == 200
    finally:
        code = server.stop()
    assert code == 0
