"""The HTTP/1.1 parser reads every framing, however the bytes are cut, and refuses what is no reply."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.generator import wire_http1
from loadtests.generator.wire_http1 import CHUNKED, UNTIL_CLOSE, MalformedReply, ReplyParser, read_head, request_bytes

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"
CHUNKS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n"
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH
UNTIL = b"HTTP/1.0 200 OK\r\n\r\nhello world"


@given(cuts=st.lists(st.integers(0, 200), max_size=8), reply=st.sampled_from([LENGTH, CHUNKS, CONTINUE]))
def test_a_reply_is_the_same_however_its_bytes_are_cut(cuts, reply):
    parser, edges = ReplyParser(), [0, *sorted(min(c, len(reply)) for c in cuts), len(reply)]
    whole = [parser.feed(reply[a:b]) for a, b in itertools.pairwise(edges) if a < b]
    assert whole[-1] is True
    assert not any(whole[:-1])
    assert (parser.head.status, parser.body) == (200, b"hello world")


def test_a_reply_without_length_ends_with_its_connection():
    parser = ReplyParser()
    assert parser.feed(UNTIL) is False
    assert parser.eof() is True
    assert parser.body == b"hello world"
    assert not parser.head.keep_alive


@pytest.mark.parametrize("reply", [LENGTH[:-1], CHUNKS[:-2], LENGTH[:20]])
def test_a_reply_that_is_cut_short_does_not_end_with_its_connection(reply):
    parser = ReplyParser()
    assert parser.feed(reply) is False
    assert parser.eof() is False


@pytest.mark.parametrize(
    ("head", "length", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 3", 3, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: Close", 3, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3", 3, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"0" * 5_000 + b"3", 3, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive", 3, True),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked", CHUNKED, True),
        (b"HTTP/1.1 200 OK", UNTIL_CLOSE, False),
        (b"HTTP/1.1 204 No Content", 0, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99", 0, True),
    ],
)
def test_the_head_says_how_long_the_body_is_and_whether_the_connection_stays(head, length, keep_alive):
    found = read_head(head + b"\r\n\r\n")
    assert (found.length, found.keep_alive) == (length, keep_alive)


@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nmore",
        b"x" * 70_000,
    ],
)
def test_what_is_no_reply_is_refused(reply):
    with pytest.raises(MalformedReply):
        ReplyParser().feed(reply)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_do_worse_than_malformed(data):
    parser = ReplyParser()
    try:
        parser.feed(data)
        parser.eof()
    except MalformedReply:
        pass


def test_a_request_is_one_block_of_bytes_with_its_length():
    request = request_bytes("POST", "/p", "[::1]:80", "image/png", b"abc")
    assert request.startswith(b"POST /p HTTP/1.1\r\nHost: [::1]:80\r\n")
    assert request.endswith(b"Content-Type: image/png\r\nContent-Length: 3\r\n\r\nabc")
    assert b"Content-Length: 0" in request_bytes("POST", "/", "h", None, b"")
    assert b"Content-Length" not in request_bytes("GET", "/", "h", None, b"")


def test_trailer_fields_without_an_end_are_refused():
    parser = ReplyParser()
    assert parser.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n") is False
    with pytest.raises(MalformedReply, match="trailer fields over 64 KiB"):
        for _ in range(200):
            parser.feed(b"X-More: " + b"x" * 1_000 + b"\r\n")


def test_long_heads_are_not_remembered():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Long: %s\r\n\r\n"
    for size, remembered in ((10, True), (50_000, False)):
        text = head % (b"x" * size)
        assert read_head(text).length == 2
        assert (text in wire_http1.known_heads) is remembered
