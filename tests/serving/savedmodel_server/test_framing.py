"""How a real savedmodel-server reads its HTTP/1.1 connections: upgrades, packed bodies, limits that all share."""

import gzip
import json
import re
import select
import socket
import zlib
from contextlib import ExitStack
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from tests.serving.savedmodel_server.server_process import LABELS_AT_START, start_server

pytestmark = pytest.mark.system
PATH = "/v1/models/half_plus_two:predict"
MAX_BYTES = 1_000_000


@pytest.fixture(scope="module")
def small(zoo, tmp_path_factory):
    """A server for bodies of 1 MB, with CORS, and 2 s for a request."""
    running = start_server(
        tmp_path_factory.mktemp("small"), f"--model_config_file={zoo / 'models.config'}", LABELS_AT_START,
        f"--max_request_bytes={MAX_BYTES}", "--max_unfinished_request_bytes=1500000", "--rest_api_timeout_in_ms=2000",
        "--rest_api_enable_cors_support",
    )  # fmt: skip
    try:
        running.wait_ready("zoo")
        yield running
    finally:
        running.stop()


def connected(server):
    host = urlsplit(server.url)
    return socket.create_connection((host.hostname, host.port), timeout=60)


def predict(value, *fields, path=PATH):
    body = json.dumps({"instances": [value]}).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def replies(sock):
    """(status, body) of each reply until the connection ends."""
    stream, found = sock.makefile("rb"), []
    while line := stream.readline():
        status, length = int(line.split()[1]), 0
        while (line := stream.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        body = stream.read(length)
        if status != 100:
            found.append((status, json.loads(body) if body else None))
    return found


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
def test_a_request_for_an_upgrade_is_served_with_its_body_as_if_there_were_none(server, upgrade):
    fields = (f"Upgrade: {upgrade}", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAARAAAAA")
    smuggled = predict(7.0)
    body = b'{"instances": [1.0]}' + b" " * 10 + smuggled
    lines = [f"POST {PATH} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *fields]
    with connected(server) as sock:
        sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body + predict(3.0, *fields, "Connection: close"))
        assert replies(sock) == [(200, {"predictions": [2.5]}), (200, {"predictions": [3.5]})]


@pytest.mark.parametrize("path", [PATH, "/v1/models/half_plus_two:classify"])
def test_what_follows_a_good_request_and_is_none_is_refused_after_its_answer(server, path):
    with connected(server) as sock:
        sock.sendall(predict(1.0, path=path) + predict(2.0, path=path) + b"GET / HTTP/3\r\n\r\n")
        first, second, last = replies(sock)
    assert first[0] == second[0] and last[0] == 400
    if path == PATH:
        assert first[1] == {"predictions": [2.5]} and second[1] == {"predictions": [3.0]}


@pytest.mark.parametrize("path", ["/v1/models/half_plus_two:predict", "/v1/models/half_plus_two:classify"])
def test_a_request_that_breaks_in_its_body_is_refused_itself(server, path):
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with connected(server) as sock:
        sock.sendall(head + b"2\r\n{}\r\nx\r\n")
        ((status, body),) = replies(sock)
    assert status == 400 and "chunk" in body["error"]


def test_a_version_of_5000_digits_is_the_clients_fault(server):
    version = "9" * 5000
    where = f"{server.url}/v1/models/half_plus_two/versions/{version}"
    for reply in (
        requests.get(where, timeout=20), requests.get(f"{where}/metadata", timeout=20),
        requests.post(f"{where}:predict", data=b'{"instances": [1]}', timeout=20),
    ):  # fmt: skip
        assert reply.status_code == 400, reply.text[:200]
    assert "event=bug" not in server.log.read_text()


def test_a_preflight_is_answered_where_cors_is_on(small, server):
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    reply = requests.options(small.url + PATH, headers=asked, timeout=20)
    assert (reply.status_code, reply.content) == (200, b"")
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "POST" in reply.headers["access-control-allow-methods"]
    assert reply.headers["access-control-allow-headers"] == "Content-Type"
    assert requests.options(small.url + PATH, timeout=20).status_code == 400
    assert "access-control-allow-origin" not in requests.options(server.url + PATH, headers=asked, timeout=20).headers


def post(server, data, *, coding="gzip", verb="predict", model="half_plus_two"):
    return requests.post(
        f"{server.url}/v1/models/{model}:{verb}", data=data, headers={"Content-Encoding": coding}, timeout=60
    )


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("predict", {"instances": [1.0]}),
        ("regress", {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}]}),
    ],
)
def test_a_gzip_body_is_unpacked_within_the_limit_of_a_body(small, verb, body):
    plain = json.dumps(body).encode()
    packed = gzip.compress(plain)
    assert 2.5 in next(iter(post(small, packed, verb=verb).json().values()))
    assert 2.5 in next(iter(post(small, packed[:0] + gzip.compress(b" ") + packed, verb=verb).json().values()))
    full = gzip.compress(plain + b" " * (MAX_BYTES - len(plain)))
    assert post(small, full, verb=verb).status_code == 200
    over = post(small, gzip.compress(plain + b" " * (MAX_BYTES - len(plain) + 1)), verb=verb)
    assert over.status_code == 413 and "1000000 bytes" in over.json()["error"]
    assert post(small, gzip.compress(bytes(100 << 20)), verb=verb).status_code == 413
    for damaged in (packed[:-1], packed[:10], packed + b"x", packed + b"\x00", b"", plain, zlib.compress(plain)):
        reply = post(small, damaged, verb=verb)
        assert reply.status_code == 400 and "document is empty" in reply.json()["error"], damaged
    for coding in ("deflate", "br"):  # is not decoded
        assert post(small, plain, coding=coding, verb=verb).status_code == 200
        assert post(small, packed, coding=coding, verb=verb).status_code == 400


def test_a_packed_body_for_an_unknown_model_is_not_found(small):
    assert post(small, gzip.compress(b'{"instances": [1]}'), model="nope").status_code == 404


@pytest.mark.parametrize("verb", ["predict", "classify"])
def test_half_sent_bodies_of_all_connections_share_one_budget(small, verb):
    head = f"POST /v1/models/half_plus_two:{verb} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n".encode()
    with connected(small) as first, connected(small) as second:
        first.sendall(head + b" " * 900_000)
        second.sendall(head + b" " * 900_000)
        ((refused, *_), _, _) = select.select([first, second], [], [], 60)
        ((status, body),) = replies(refused)
        assert status == 503 and "1500000 bytes" in body["error"]
        assert requests.post(small.url + PATH, data=b'{"instances": [1]}', timeout=20).status_code == 200
        other = first if refused is second else second
        other.sendall(b" " * 99_999)
        assert other.recv(1000).split()[1] == b"400"  # empty, but complete
    big = b'{"instances": [1]}' + b" " * 900_000
    for _ in range(4):  # what the others held is free again
        assert requests.post(small.url + PATH, data=big, timeout=20).status_code == 200


def test_a_body_that_was_refused_is_not_kept(small):
    head = b"POST /v1/models/half_plus_two:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n"
    process = psutil.Process(small.process.pid)
    with ExitStack() as opened:
        waiting = set()
        before = process.memory_info().rss
        for _ in range(150):
            client = opened.enter_context(connected(small))
            client.sendall(head + b" " * 900_000)
            waiting.add(client)
            while len(waiting) > 1:  # the budget holds one of them, and two thirds of another
                refused, _, _ = select.select(waiting, [], [], 60)
                assert {one.recv(12) for one in refused} == {b"HTTP/1.1 503"}
                waiting.difference_update(refused)
        growth = process.memory_info().rss - before  # each connection is still open for some seconds
    assert growth < 40e6, f"{growth / 1e6:.0f} MB"


def test_a_client_that_does_not_read_its_answers_is_given_up(small):
    body = json.dumps({"signature_name": "any_rank", "inputs": [1.25] * 12_000}).encode()
    head = f"POST /v1/models/zoo:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with connected(small) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(120)
        try:
            for _ in range(2000):
                sock.sendall(head + body)
        except OSError:
            pass  # given up while we wrote on
        else:
            poll = select.poll()
            poll.register(sock, select.POLLHUP | select.POLLERR)
            assert poll.poll(120_000), "it is still connected"
    assert requests.post(small.url + PATH, data=b'{"instances": [1]}', timeout=20).status_code == 200


def asked(server, method, target, *fields, version="1.1", body=b'{"instances": [1.0]}'):
    """The answer to a request of these bytes (head in lower case, body), and whether the connection was left open."""
    lines = [f"{method} {target} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *fields]
    with connected(server) as sock:
        sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        stream = sock.makefile("rb")
        head = b"".join(iter(stream.readline, b"\r\n")).decode().lower()
        length = 0 if method == "HEAD" else int(head.partition("\r\ncontent-length:")[2].split("\r\n")[0])
        answer = stream.read(length)
        try:
            sock.sendall(predict(3.0, "Connection: close"))
            return head, answer, b'"predictions": [3.5' in stream.read()
        except (ConnectionResetError, BrokenPipeError):
            return head, answer, False


CLASSIFY = PATH.replace("predict", "classify")
METRICS = "/monitoring/prometheus/metrics"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", PATH), ("POST", CLASSIFY), ("GET", "/v1/models/zoo"), ("PUT", PATH), ("GET", "/x"), ("TRACE", PATH),
        ("GET", "/docs"), ("GET", METRICS), ("OPTIONS", PATH), ("GET", "/v1/%"),
    ],
)  # fmt: skip
def test_every_answer_has_a_date(server, method, target):
    head, _, _ = asked(server, method, target)
    assert re.search(r"\r\ndate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d gmt\r\n", head)


@pytest.mark.parametrize(("method", "target"), [("POST", PATH), ("POST", CLASSIFY), ("GET", "/v1/models/zoo")])
@pytest.mark.parametrize(
    ("fields", "stays"), [((), False), (("Connection: keep-alive",), True), (("Connection: Keep-Alive",), True)]
)
def test_http_1_0_is_answered_as_such_and_stays_open_where_that_is_asked(server, method, target, fields, stays):
    head, _, is_open = asked(server, method, target, *fields, version="1.0")
    assert head.startswith("http/1.0 ") and is_open is stays
    assert ("\r\nconnection: keep-alive\r\n" in head) is stays


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "FOO", "post", "get"])
@pytest.mark.parametrize("target", [PATH, "/v1/models/zoo", "/x"])
def test_a_method_that_is_none_is_told_with_a_page_and_the_connection_ends(server, method, target):
    head, answer, is_open = asked(server, method, target)
    assert head.startswith("http/1.1 501 ") and "\r\ncontent-type: text/html\r\n" in head
    assert b"<H1>Not Implemented</H1>" in answer and not is_open


@pytest.mark.parametrize(
    "target", ["/v1/models/a%zz", "/v1/models/a%2", "/v1/models/%:predict", "/x%", "/v1/models/m?%g"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_bad_percent_escape_is_told_with_a_page_and_the_connection_ends(server, method, target):
    head, answer, is_open = asked(server, method, target)
    assert head.startswith("http/1.1 400 ") and "\r\ncontent-type: text/html\r\n" in head
    assert b"<H1>Bad Request</H1>" in answer and not is_open


@pytest.mark.parametrize(("method", "target"), [("POST", PATH), ("POST", PATH + "?a#b"), ("GET", "/v1/models/zoo")])
def test_a_target_that_names_a_host_is_answered_and_the_connection_ends(server, method, target):
    plain, absolute = asked(server, method, target), asked(server, method, "http://x" + target)
    assert absolute[0].split("\r\n")[0] == plain[0].split("\r\n")[0] and absolute[1] == plain[1]
    assert plain[2] and not absolute[2]


def test_a_fragment_is_a_part_of_the_path(server):
    head, answer, is_open = asked(server, "POST", PATH + "#f")
    assert head.startswith("http/1.1 400 ") and is_open
    assert json.loads(answer) == {"error": f"Malformed request: POST {PATH}#f"}
    head, answer, is_open = asked(server, "GET", "/v1/models/zoo#f")
    assert head.startswith("http/1.1 404 ") and b"any versions of model zoo#f" in answer and is_open


def test_head_is_answered_without_a_body(server):
    head, _, is_open = asked(server, "HEAD", PATH)
    assert head.startswith("http/1.1 400 ") and is_open


def test_the_metrics_page_is_the_same_for_every_method_and_takes_no_query(server):
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        head, answer, is_open = asked(server, method, METRICS)
        assert head.startswith("http/1.1 200 ") and b":tensorflow:serving:request_count" in answer and is_open
    head, answer, is_open = asked(server, "GET", METRICS + "?x=1")
    assert (
        head.startswith("http/1.1 400 ") and answer == f"Unexpected path: {METRICS}?x=1. Should be {METRICS}".encode()
    )


@pytest.mark.parametrize("path", [PATH, CLASSIFY])
def test_a_body_that_is_there_is_not_asked_for(server, path):
    with connected(server) as sock:
        sock.sendall(predict(1.0, "Expect: 100-continue", "Connection: close", path=path))
        assert sock.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 400")
    whole = predict(1.0, "Expect: 100-continue", "Connection: close", path=path)
    head, body = whole.split(b"\r\n\r\n")
    with connected(server) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 400")
