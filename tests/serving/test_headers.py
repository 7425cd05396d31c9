"""Headers as a person writes them: checked, read where they are sent, and never repeated."""

from __future__ import annotations

import base64
import json

import pytest

from serving.authorisation import grpc_refuses, refuses, reply_named
from serving.errors import ServingError
from serving.headers import Header, Headers, HeaderUnreadable, merged, without_values

SECRET = "s3cr3t-t0k3n"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The secret in a variable, in a file and in a JSON file; the working directory is theirs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", f"{SECRET}\n")
    (tmp_path / "token").write_text(f"{SECRET}\r\n")
    (tmp_path / "keys.json").write_text(json.dumps({"a/b": {"key": SECRET}, "list": ["x", SECRET], "number": 3}))
    return tmp_path


def read(*texts):
    return list(Headers.of_options(texts).read())


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("X-Team=vision", ("X-Team", "vision")),
        ("X-Query=a=b, c", ("X-Query", "a=b, c")),
        ("X-Empty=", ("X-Empty", "")),
        ("X-Time= 12:30 ", ("X-Time", "12:30")),
        ("Authorization=env:TOKEN", ("Authorization", SECRET)),
        ("Authorization=Bearer env:TOKEN", ("Authorization", f"Bearer {SECRET}")),
        ("Authorization=Bearer file:token", ("Authorization", f"Bearer {SECRET}")),
        ("Authorization=Bearer file:keys.json#/a~1b/key", ("Authorization", f"Bearer {SECRET}")),
        ("X-Key=file:keys.json#/list/1", ("X-Key", SECRET)),
    ],
)
def test_a_value_is_literal_or_read_where_it_is_referred_to(text, sent, places):
    assert read(text) == [sent]


@pytest.mark.parametrize(
    "name",
    [
        *("Content-Length", "transfer-encoding", "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer"),
        *("Upgrade", "HTTP2-Settings", "Expect"),
    ],
)
def test_what_belongs_to_the_connection_or_the_message_is_refused(name):
    with pytest.raises(ServingError, match=f"--header {name} is refused: .*leave it out"):
        Headers.of_options([f"{name}=1"])


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}==",
        f"X-A B={SECRET}",
        f":authority={SECRET}",
        f"={SECRET}",
        f"Authorization {SECRET}",
        f"X-A={SECRET}\r\nX-B: 1",
        f"X-A={SECRET}\n1",
        f"X-A={SECRET}\0",
        f"X-A={SECRET}\x7f",
        f"X-A=é{SECRET}",
    ],
)
def test_what_is_no_header_is_refused_in_a_sentence_without_the_value(text):
    with pytest.raises(ServingError) as refused:
        Headers.of_options([text])
    sentence = str(refused.value)
    assert SECRET not in sentence
    assert sentence.startswith("--header")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("content", "reason"), [("", "holds nothing"), (f"{SECRET}\nnext", "line break"), ("\xff\xfe", "it is no text")]
)
def test_a_file_that_holds_no_value_is_named_and_what_it_holds_is_not(content, reason, places):
    (places / "other").write_bytes(content.encode("latin-1"))
    with pytest.raises(ServingError, match=reason) as refused:
        read("Authorization=Bearer file:other")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("pointer", ["nowhere", "number", "a~1b", "list/7", "list/x", ""])
def test_a_place_in_a_json_file_without_a_text_is_named(pointer, places):
    with pytest.raises(HeaderUnreadable, match=f"keys.json, which holds no text at #/{pointer}:"):
        read(f"X-Key=file:keys.json#/{pointer}")


def test_a_variable_that_is_not_set_and_a_file_that_is_not_there_are_named(places, monkeypatch):
    monkeypatch.delenv("TOKEN")
    with pytest.raises(ServingError, match="env:TOKEN, which is not set here: export TOKEN first") as refused:
        read("Authorization=Bearer env:TOKEN")
    assert not isinstance(refused.value, HeaderUnreadable)
    with pytest.raises(HeaderUnreadable, match=r"file:gone, which cannot be read \(No such file or directory\)"):
        read("Authorization=Bearer file:gone")
    for text in ("X-A=env:", "X-A=env:A B", "X-A=file:"):
        with pytest.raises(ServingError, match="does not name a"):
            Headers.of_options([text])


def test_a_name_that_is_given_twice_is_refused():
    with pytest.raises(ServingError, match=r"--header x-team is given twice|--header X-Team is given twice"):
        Headers.of_options(["X-Team=a", "x-team=b"])


def test_headers_over_what_servers_take_are_refused(places):
    (places / "long").write_text("x" * 17_000)
    with pytest.raises(ServingError, match="17,007 bytes in all, over 16,000"):
        read("X-A=file:long")


def test_grpc_has_lower_case_names_and_keeps_its_own(places):
    metadata = Headers.of_options(["Authorization=Bearer env:TOKEN", "Host=models.example", "X-Team=v"]).metadata()
    assert list(metadata) == [("authorization", f"Bearer {SECRET}"), ("host", "models.example"), ("x-team", "v")]
    for name in ("grpc-timeout", "Grpc-Encoding", "Content-Type", "x!y"):
        headers = Headers.of_options([f"{name}=1"])
        with pytest.raises(ServingError, match=f"--header {name} is refused over gRPC"):
            headers.metadata()
        with pytest.raises(ServingError, match="is refused over gRPC"):
            headers.check_for_grpc()


def test_binary_metadata_is_sent_in_base64(places):
    (places / "trace").write_bytes(b"\0\xff\n")
    headers = Headers.of_options(["X-Trace-Bin=file:trace", "X-Name-bin=abcd"])
    assert list(headers.metadata()) == [("x-trace-bin", "AP8K"), ("x-name-bin", "YWJjZA")]
    assert base64.b64decode("YWJjZA==") == b"abcd"
    assert dict(headers.read())["X-Trace-Bin"] == "AP8K"


def test_references_stay_references_for_another_process_and_nothing_shows_a_value(places):
    headers = Headers.of_options(
        ["Authorization=Bearer env:TOKEN", "X-Key=file:keys.json#/a~1b/key", f"Cookie=id={SECRET}", "X-Team=vision"]
    )
    assert headers.written[:2] == ["Authorization=Bearer env:TOKEN", f"X-Key=file:{places}/keys.json#/a~1b/key"]
    assert list(Headers.of_options(headers.written).read()) == list(headers.read())
    assert SECRET not in repr(headers)
    (warning,) = headers.exposed
    assert warning.startswith("--header Cookie has its value on the command line")
    assert SECRET not in warning


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "Proxy-Authorization", "X-Auth", "Cookie", "X-Api-Key", "apikey", "X-Auth-Token"),
        *("X-Session-Id", "Ocp-Apim-Subscription-Key"),
    ],
)
def test_a_secret_must_not_stand_in_a_plan(name, places):
    with pytest.raises(ServingError, match=f"header {name} has its value in the plan") as refused:
        Headers.of_mapping({name: f"Bearer {SECRET}"}, "header")
    assert SECRET not in str(refused.value)
    assert Headers.of_mapping({name: "Bearer env:TOKEN", "X-Team": "vision"}, "header").each[1].read() == "vision"


@pytest.mark.parametrize("name", ["X-Author", "X-Max-Tokens", "Idempotency-Key", "Accept-Language", "Host"])
def test_other_values_may_stand_in_a_plan(name):
    assert Headers.of_mapping({name: "v"}, "header").read() == [(name, "v")]


def test_given_headers_take_the_place_of_ours():
    own = [("Host", "a:1"), ("Accept", "*/*")]
    assert merged(own, [("x-team", "v"), ("host", "b")]) == [("Host", "b"), ("Accept", "*/*"), ("x-team", "v")]
    assert merged(own, []) == own


def test_a_report_of_a_fault_shows_no_value():
    arguments = ["wait", "http://a", "--header", f"X-A={SECRET}", f"--header=X-B={SECRET}", "--header", SECRET]
    shown = without_values([*arguments, f"--header=Authorization: {SECRET}==", "--timeout", "3"])
    assert shown[2:] == [
        *("--header", "X-A=...", "--header=X-B=...", "--header", "...", "--header=...", "--timeout", "3")
    ]


def test_a_report_of_a_fault_shows_no_password_of_an_address():
    shown = without_values(["load", "steady", f"--host=http://user:{SECRET}@a:1,http://b", f"http://:{SECRET}@c"])
    assert shown == ["load", "steady", "--host=http://...@a:1,http://b", "http://...@c"]


def test_a_header_of_another_option_names_that():
    with pytest.raises(ServingError, match=r"^header Connection is refused"):
        Header.parse("Connection", "close", "header")


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (401, b"", True),
        (403, b"", True),
        (400, b'{"code": 400, "type": "InvalidKeyException"}', True),
        (400, b'{"code": 400, "type": "BadRequestException"}', False),
        (404, b"InvalidKey", False),
        (500, b"", False),
        (503, b"", False),
        (200, b"InvalidKey", False),
    ],
)
def test_replies_that_refuse_authorisation_are_told_from_others(status, body, refused):
    assert refuses(status, body) == refused
    assert reply_named(status, body) == (f"refused authorisation (HTTP {status})" if refused else f"HTTP {status}")


def test_grpc_refuses_authorisation_by_its_status_or_by_that_of_a_proxy():
    assert [status for status in range(17) if grpc_refuses(status)] == [7, 16]
    assert grpc_refuses(2, 401) and grpc_refuses(2, 403)
    assert not grpc_refuses(2, 503) and not grpc_refuses(None)
