"""How a server is asked: over TLS, at every address of its name, and with the real reason where there is no answer."""

import socket

import pytest

from servestorm.study.scraper import _target, scrape_once
from serving import connecting
from serving.addresses import ResolvedAddress, SocketAddress
from serving.connecting import ConnectFailure, connect
from serving.deployment import Endpoint
from serving.http_client import NoAnswer, connection_to, exchange, read_page
from serving.probe import http_get
from serving.running_server import RemoteServer
from serving.server_kind import ServerKind, server_kind
from serving.wire import RestRequest
from tests.stand_ins.tls_server import make_certificate, tls_server

ANSWERS = {
    "/models/cnn": (200, b"[]"),
    "/metrics": (200, b"requests_total 7\n"),
    "/metrics?name=a": (200, b"requests_total 8\n"),
    "/ping": (200, b'{"status": "Healthy"}'),
}
GET = RestRequest("GET", "/ping", "", b"")


def at(host, port):
    return SocketAddress(int(socket.AF_INET6 if ":" in host else socket.AF_INET), (host, port))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def url(certificate):
    with tls_server(certificate, ANSWERS) as port:
        yield f"https://localhost:{port}"


@pytest.fixture
def trusted(certificate, monkeypatch):
    """The machine trusts the server's certificate."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.mark.usefixtures("trusted")
def test_probe_settings_metrics_engine_and_the_answers_after_a_start_speak_tls(url):
    endpoint = Endpoint(0, url, "", f"{url}/metrics", url)
    assert http_get(f"{url}/ping", 30) == ANSWERS["/ping"]
    assert http_get(f"{url}/metrics?name=a", 30) == ANSWERS["/metrics?name=a"]
    assert RemoteServer(endpoint).manage("/models/cnn") == b"[]"
    assert [point.value for point in scrape_once(endpoint, 10)] == [7.0]
    assert server_kind(url, "cnn", 10) == ServerKind("torchserve", "")
    connection = connection_to(url, 10)
    for _ in range(2):  # on one connection, as a cold start is followed
        connection.request("GET", "/ping")
        assert connection.getresponse().read() == ANSWERS["/ping"][1]
    connection.close()


@pytest.mark.parametrize("ask", [lambda url: exchange(url, GET, 10), lambda url: read_page(f"{url}/metrics", 10)])
def test_a_certificate_that_is_not_trusted_is_the_reason(url, ask):
    with pytest.raises(OSError, match=r"CERTIFICATE_VERIFY_FAILED"):
        ask(url)


def test_prometheus_is_given_the_scheme():
    labels = _target("cell", Endpoint(0, "", "", "https://models.test/metrics"))["labels"]
    assert labels["__scheme__"] == "https"


def test_every_address_of_a_name_is_asked(monkeypatch, certificate, trusted, closed_port):
    with tls_server(certificate, ANSWERS) as port:
        found = [(one.family, 1, 6, "", one.sockaddr) for one in (at("::1", closed_port), at("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_options: found)
        assert exchange("https://localhost:1", GET, 10).status == 200


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        (lambda port: f"http://127.0.0.1:{port}", "connection refused"),
        (lambda _: "http://no-such-host.invalid", "host 'no-such-host.invalid' does not resolve"),
    ],
)
def test_the_reason_of_no_answer_is_the_real_one(of, reason, closed_port):
    with pytest.raises(NoAnswer) as caught:
        exchange(of(closed_port), GET, 10)
    assert str(caught.value) == reason
    assert http_get(of(closed_port)) is None


@pytest.fixture
def silent(monkeypatch):
    """A set of addresses from which no answer to a connect comes."""
    places, kept = set(), []
    begun = connecting._begin

    def begin(one):
        if one not in places:
            return begun(one)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            while True:
                ours.send(bytes(65_536))
        except BlockingIOError:
            kept.append(theirs)
            return ours

    monkeypatch.setattr(connecting, "_begin", begin)
    yield places
    for each in kept:
        each.close()


def test_a_silent_address_does_not_keep_the_next_one_from_being_tried(silent):
    silent.add(at("127.0.0.2", 1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        address = ResolvedAddress([at("127.0.0.2", 1), at("127.0.0.1", port)], "test")
        connect(address, 60).close()
    assert address.candidates[0] == at("127.0.0.1", port)


def test_what_each_address_answered_is_named(silent, closed_port):
    silent.add(at("127.0.0.2", 1))
    places = [at("127.0.0.1", closed_port), at("127.0.0.2", 1)]
    with pytest.raises(ConnectFailure) as caught:
        connect(ResolvedAddress(places, "test"), 0.2)
    assert str(caught.value) == f"127.0.0.1:{closed_port} connection refused, 127.0.0.2:1 no answer"
