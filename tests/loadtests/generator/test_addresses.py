"""Names of endpoints: every address of a name is tried, and what a person types is made into a URL."""

import errno
import socket

import pytest

from loadtests.errors import LoadEnvironmentError, LoadTestError
from loadtests.generator import connections, jobs
from loadtests.generator.addresses import endpoint_url, resolve
from loadtests.generator.connections import PreparedRequest
from loadtests.generator.load import Target
from loadtests.generator.targets import detect_engine
from loadtests.generator.wire_http1 import request_bytes
from serving.addresses import ResolvedAddress, SocketAddress
from serving.socket_errors import TOO_FEW_DESCRIPTORS

from .loads import accept_all, known_server, load, outcomes, run


def at(host, port):
    return SocketAddress(int(socket.AF_INET6 if ":" in host else socket.AF_INET), (host, port))


def loaded(address, requests=20):
    request = PreparedRequest(request_bytes("POST", "/", "test", "image/png", b""))
    return run(Target([address], [[request]], False, accept_all), load([i * 2_000_000 for i in range(requests)]))


@pytest.fixture
def resolver(monkeypatch):
    """Give a name these addresses, in this order."""

    def answer_with(*addresses):
        found = [(one.family, socket.SOCK_STREAM, 6, "", one.sockaddr) for one in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)

    return answer_with


def test_the_address_that_accepts_is_tried_first(resolver, closed_port):
    with known_server() as port:
        resolver(at("::1", port), at("127.0.0.1", closed_port), at("127.0.0.1", port), at("127.0.0.1", port))
        address = resolve("localhost", port, None)
        assert address.candidates == (at("127.0.0.1", port), at("::1", port), at("127.0.0.1", closed_port))
        samples, generator = loaded(address)
    assert outcomes(samples) == {"ok": 20}
    assert not generator.reasons


def test_a_request_goes_to_the_next_address_when_one_refuses(closed_port):
    with known_server() as port:
        address = ResolvedAddress([at("::1", closed_port), at("127.0.0.1", closed_port), at("127.0.0.1", port)], "test")
        samples, generator = loaded(address)
    assert outcomes(samples) == {"ok": 20}
    assert not generator.reasons
    assert address.candidates[0] == at("127.0.0.1", port), "later connections try first what accepted"


def test_an_address_that_cannot_be_tried_at_all_is_passed_over():
    with known_server() as port:
        # a scope that no interface has: the connect fails at once
        nowhere = SocketAddress(int(socket.AF_INET6), ("fe80::1", port, 0, 0))
        samples, _ = loaded(ResolvedAddress([nowhere, at("127.0.0.1", port)], "test"))
    assert outcomes(samples) == {"ok": 20}


def test_the_failure_names_every_address_that_was_tried(closed_port):
    address = ResolvedAddress([at("::1", closed_port), at("127.0.0.1", closed_port)], "test")
    samples, generator = loaded(address)
    assert set(samples["outcome"]) == {jobs.CONNECTION_ERROR}
    refused = f"[::1]:{closed_port} connection refused, 127.0.0.1:{closed_port} connection refused"
    assert dict(generator.reasons) == {refused: 20}


def test_a_missing_descriptor_is_the_generator_s_fault_and_no_address_s(closed_port, monkeypatch):
    opened = connections.open_socket

    def refuse_the_second(family, sockaddr):
        if family == socket.AF_INET:
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(family, sockaddr)

    monkeypatch.setattr(connections, "open_socket", refuse_the_second)
    _, generator = loaded(ResolvedAddress([at("::1", closed_port), at("127.0.0.1", closed_port)], "test"))
    assert dict(generator.reasons) == {TOO_FEW_DESCRIPTORS: 20}


def test_one_address_fails_by_its_reason_alone(closed_port):
    _, generator = loaded(ResolvedAddress([at("127.0.0.1", closed_port)], "test"))
    assert dict(generator.reasons) == {"connection refused": 20}


def test_an_engine_that_cannot_be_asked_is_reported_with_the_addresses(resolver, closed_port):
    resolver(at("::1", closed_port), at("127.0.0.1", closed_port))
    expected = rf"\(\[::1\]:{closed_port} connection refused, 127.0.0.1:{closed_port} connection refused\)"
    with pytest.raises(LoadEnvironmentError, match=expected):
        detect_engine(f"http://localhost:{closed_port}", "cnn")


def test_an_engine_is_asked_without_the_proxy_of_the_environment(monkeypatch, closed_port):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with known_server() as port, pytest.raises(LoadTestError, match="is neither TensorFlow Serving"):
        detect_engine(f"http://127.0.0.1:{port}", "cnn")


def test_a_name_that_does_not_resolve_is_the_reason_given():
    with pytest.raises(LoadEnvironmentError, match=r"host 'no-such-host.invalid' does not resolve"):
        detect_engine("http://no-such-host.invalid:8501", "cnn")


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("http://localhost:8501", "http://localhost:8501"),
        ("http://localhost:8501/", "http://localhost:8501"),
        ("localhost:8501", "http://localhost:8501"),
        (" 10.0.0.7 ", "http://10.0.0.7"),
        ("HTTPS://Example.test", "https://example.test"),
        ("http://[::1]:8501", "http://[::1]:8501"),
        ("[::1]", "http://[::1]"),
    ],
)
def test_what_a_person_types_becomes_a_url(typed, url):
    assert endpoint_url(typed) == url


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("http://host:8501/v1/models", "has a path"),
        ("http://host:8501?x=1", "has a path"),
        ("ftp://host", "has the scheme 'ftp'"),
        ("http://host:99999", "no usable port"),
        ("http://host:port", "no usable port"),
        ("::1:8501", "without brackets"),
        ("http://", "is not a URL"),
        ("http://[::1:8501", "is not a URL"),
        ("http://two words:80", "is not a URL"),
    ],
)
def test_what_is_no_endpoint_is_refused_with_the_real_reason(typed, reason):
    with pytest.raises(LoadTestError, match=reason):
        endpoint_url(typed)


@pytest.mark.parametrize("typed", ["http://user:geheim@host:8501", "user:geheim@host", "http://user:geheim/x@host"])
def test_a_password_is_refused_and_not_repeated(typed):
    with pytest.raises(LoadTestError, match="never sent") as refused:
        endpoint_url(typed)
    assert "geheim" not in str(refused.value)
