"""The HTTP/1.1 reader against a second reader of RFC 9112, and against what each rule forbids."""

import random

import pytest

from serving.savedmodel_server.rest.request_head import LARGEST_HEAD_BYTES, HeadReader, RequestRefused
from serving.savedmodel_server.rest.request_reader import RequestReader
from serving.savedmodel_server.rest.rest_path import parse_path
from tests.serving.savedmodel_server.wire import http1_inputs
from tests.serving.savedmodel_server.wire.rfc9112_judge import judge

GOOD = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class NoModels:
    def predict_target(self, url):
        return None if b":predict" not in url else parse_path("POST", "/v1/models/m:predict")


class Recorder:
    """Collects requests as (head, body)."""

    def __init__(self):
        self.requests = []

    def on_head(self, head):
        self.head, self.body = head, b""

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.requests.append((self.head, self.body))


def read(pieces, max_bytes=1 << 20):
    """The requests in these bytes, and the refusal of what follows them (None where nothing is refused)."""
    recorder = Recorder()
    reader = RequestReader(recorder, HeadReader(NoModels(), max_bytes))
    try:
        for piece in pieces:
            reader.feed(piece)
    except RequestRefused as refusal:
        return recorder.requests, refusal
    return recorder.requests, None


def in_pieces(data, rng):
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.choice([0, 1, 5, len(data)])))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def test_the_reader_and_the_judge_agree_about_any_bytes_however_they_are_cut():
    rng = random.Random(5)
    refused = 0
    for data in http1_inputs.connections(seed=5, count=4000):
        judged = judge(data)
        requests, refusal = read(in_pieces(data, rng))
        assert [body for _, body in requests] == [request.body for request in judged.requests], data
        assert [head.target for head, _ in requests] == [request.target for request in judged.requests], data
        assert bool(judged.refused) <= (refusal is not None), (judged.refused, data)
        if refusal is not None and not judged.refused:  # refused before the end of the line or the body
            assert judge(data + b"\r\n" * 3 + b"0\r\n\r\n" * 9 + bytes(3000)).refused, (refusal.message, data)
        refused += refusal is not None
    assert refused > 1000


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (GOOD.replace(b"Host: x\r\n", b""), 400),
        (GOOD.replace(b"Host: x\r\n", b"Host: x\r\nHost: x\r\n"), 400),
        (GOOD.replace(b"Host: x\r\n", b"Host: x\r\nhost: y\r\n"), 400),
        (GOOD.replace(b"Host: x", b"Host: x y"), 400),
        (GOOD.replace(b"HTTP/1.1", b"HTTP/1.2"), 400),
        (GOOD.replace(b"HTTP/1.1", b"HTTP/0.9"), 400),
        (GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"), 505),
        (b"GET /\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (GOOD.replace(b"POST", b"BREW"), 501),
        (GOOD.replace(b"POST /a", b"CONNECT x:80"), 501),
        (GOOD.replace(b"POST", b"TRACE"), 501),
        (GOOD.replace(b"Content-Length: 2", b"Content-Length: 2\r\nContent-Length: 2"), 400),
        (GOOD.replace(b"Content-Length: 2", b"Content-Length: " + b"9" * 5000), 413),
        (GOOD.replace(b"/a", b"/a#b#c"), 400),
        (GOOD.replace(b"/a", b"/%a"), 400),
        (GOOD.replace(b"/a", b"/" + b"a" * 9000), 414),
        (b"GET /" + b"a" * 9000, 414),
        (CHUNKED.replace(b"chunked", b"gzip, chunked"), 501),
        (CHUNKED.replace(b"chunked", b"gzip"), 400),
        (CHUNKED.replace(b"chunked", b"chunked, gzip"), 400),
        (CHUNKED.replace(b"chunked", b"identity"), 400),
        (CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
        (CHUNKED.replace(b"Host: x", b"Host: x\r\nContent-Length: 2"), 400),
        (CHUNKED + b"2\r\nabc", 400),
        (CHUNKED + b"2;" + b"a" * 5000, 400),
        (CHUNKED + b"0\r\n" + b"A: b\r\n" * 20_000, 431),
    ],
)
@pytest.mark.parametrize("size", [1 << 20, 7])
def test_what_the_rfc_forbids_is_refused_with_its_status(data, status, size):
    requests, refusal = read(data[i : i + size] for i in range(0, len(data), size))
    assert not requests
    assert refusal is not None and refusal.status == status, refusal and refusal.message


@pytest.mark.parametrize("size", [1 << 20, 999, 1])
@pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False)])
def test_a_head_of_64_kib_is_read_and_a_byte_more_is_refused(size, extra, fits):
    head = b"GET / HTTP/1.1\r\nHost: x\r\nA: %b\r\n\r\n"
    head %= b"a" * (LARGEST_HEAD_BYTES - len(head) + 2 + extra)
    requests, refusal = read(head[i : i + size] for i in range(0, len(head), size))
    assert (len(requests) == 1) is fits
    assert fits or refusal.status == 431


def test_a_request_for_an_upgrade_keeps_its_body_and_the_next_request_is_its_own():
    upgrade = GOOD.replace(b"Host: x", b"Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket")
    requests, refusal = read([upgrade + GOOD])
    assert refusal is None and [body for _, body in requests] == [b"ab", b"ab"]


@pytest.mark.parametrize(
    ("data", "is_page"),
    [
        (GOOD.replace(b"/a", b"/%zz"), True),
        (GOOD.replace(b"/a", b"/a%2"), True),
        (GOOD.replace(b"/a", b"http://x:y/a"), True),
        (GOOD.replace(b"POST", b"TRACE"), True),
        (GOOD.replace(b"POST", b"post"), True),
        (GOOD.replace(b"Host: x\r\n", b""), False),
    ],
)
def test_what_the_real_server_refuses_with_a_page_is(data, is_page):
    assert read([data])[1].html is is_page


def test_a_query_and_a_fragment_are_parts_of_the_target():
    requests, refusal = read([GOOD.replace(b"/a", b"/a?b=c/d?e#f?g")])
    assert refusal is None and requests[0][0].target == b"/a?b=c/d?e#f?g"


def test_nothing_is_read_after_a_target_that_names_a_host():
    absolute = GOOD.replace(b"/a", b"HTTP://x:80/a")
    requests, refusal = read([absolute + GOOD])
    assert refusal is None and [head.target for head, _ in requests] == [b"/a"]


def test_nothing_is_read_after_the_last_request_of_a_connection():
    requests, refusal = read([GOOD.replace(b"Host: x", b"Host: x\r\nConnection: close") + GOOD, b"\x00"])
    assert refusal is None and len(requests) == 1


def test_a_head_is_remembered_only_as_long_as_its_bytes_are_the_same():
    heads = HeadReader(NoModels(), 100)
    first = heads.read(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
    assert heads.read(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n") is first
    assert heads.read(b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n").length == 3


def test_a_body_over_the_limit_is_refused_before_it_is_asked_for():
    head = GOOD.replace(b"Content-Length: 2", b"Expect: 100-continue\r\nContent-Length: 200")
    assert read([head], max_bytes=100)[1].status == 413
