"""Loads to a name with several addresses, some of which are silent, refuse, or change while the load runs."""

import itertools
import socket
import ssl
from concurrent import futures
from contextlib import ExitStack, suppress

import grpc
import pytest

from loadtests.generator import connections
from loadtests.generator.connections import PreparedRequest
from loadtests.generator.load import Target
from loadtests.generator.wire_grpc import message_bytes, request_headers
from loadtests.generator.wire_http1 import request_bytes
from serving.addresses import ResolvedAddress, SocketAddress
from tests.stand_ins.tls_server import make_certificate, tls_server

from .loads import accept_all, known_server, load, outcomes, run

EVERY_5_MS = [i * 5_000_000 for i in range(60)]


def at(host, port):
    return SocketAddress(int(socket.AF_INET), (host, port))


def loaded(address, *, schedule=EVERY_5_MS, meanwhile=lambda _generator: None, **more):
    request = PreparedRequest(request_bytes("POST", "/", "test", "image/png", b""))
    return run(Target([address], [[request]], False, accept_all), load(schedule, **more), meanwhile=meanwhile)


@pytest.fixture
def silent(monkeypatch):
    """A set of addresses from which no answer to a connect comes; `silent.most` sockets waited at once."""

    class Silent(set):
        most = 0

    places, ours, theirs = Silent(), [], []
    opened = connections.open_socket

    def open_or_wait(family, sockaddr):
        if sockaddr not in places:
            return opened(family, sockaddr)
        one, other = socket.socketpair()
        one.setblocking(False)
        with suppress(BlockingIOError):
            while True:  # a socket that never becomes writable is one whose connect is not answered
                one.send(bytes(65_536))
        ours.append(one)
        theirs.append(other)
        places.most = max(places.most, sum(each.fileno() >= 0 for each in ours))
        return one

    monkeypatch.setattr(connections, "open_socket", open_or_wait)
    yield places
    for each in [*ours, *theirs]:
        each.close()


def test_a_silent_address_does_not_keep_a_load_from_the_next_one(silent):
    silent.add(("127.0.0.2", 1))
    with known_server() as port:
        address = ResolvedAddress([at("127.0.0.2", 1), at("127.0.0.1", port)], "test")
        samples, generator = loaded(address)
    assert outcomes(samples) == {"ok": 60}
    assert not generator.reasons
    assert address.candidates[0] == at("127.0.0.1", port), "later connections try first what accepted"


def test_an_address_that_goes_silent_during_a_load_is_left_for_the_next_one(silent):
    with known_server("--misbehave", "close") as first, known_server("--host", "127.0.0.2") as second:
        address = ResolvedAddress([at("127.0.0.1", first), at("127.0.0.2", second)], "test")

        def go_silent(generator):
            if generator.fired >= 20:
                silent.add(("127.0.0.1", first))

        samples, _ = loaded(address, meanwhile=go_silent)
    assert outcomes(samples) == {"ok": 60}
    assert silent.most >= 1
    assert address.candidates[0] == at("127.0.0.2", second)


def test_arrivals_that_reach_no_address_time_out_and_name_what_each_answered(silent, closed_port):
    silent.add(("127.0.0.2", 1))
    address = ResolvedAddress([at("127.0.0.2", 1), at("127.0.0.1", closed_port)], "test")
    samples, generator = loaded(address, timeout_s=1.0, connections=100)
    assert outcomes(samples) == {"timeout": 60}
    named = f"timeout while connecting (127.0.0.2:1 no answer, 127.0.0.1:{closed_port} connection refused)"
    assert generator.reasons[named] == 60


def test_no_more_than_four_addresses_are_tried_at_once(silent):
    nowhere = [(f"127.0.0.{number}", 1) for number in range(2, 9)]
    silent.update(nowhere)
    with known_server() as port:
        address = ResolvedAddress([*itertools.starmap(at, nowhere), at("127.0.0.1", port)], "test")
        samples, generator = loaded(address, schedule=[0], connections=1)
    assert outcomes(samples) == {"ok": 1}
    assert silent.most == 5, "the oldest is closed once the fifth is open"
    assert generator._pool.sockets_beside == 0


def test_a_load_without_spare_descriptors_waits_for_the_address_that_it_tries(silent, monkeypatch):
    silent.add(("127.0.0.2", 1))
    monkeypatch.setattr("loadtests.generator.generator.spare_descriptors", lambda: 1)
    with known_server() as port:
        address = ResolvedAddress([at("127.0.0.2", 1), at("127.0.0.1", port)], "test")
        samples, generator = loaded(address, schedule=[0], connections=1, timeout_s=1.0)
    assert outcomes(samples) == {"timeout": 1}
    assert dict(generator.reasons) == {"timeout waiting to send": 1}


@pytest.mark.parametrize("misbehave", ["", "close"])
def test_every_reconnect_tries_the_addresses(misbehave, closed_port):
    with known_server(*(["--misbehave", misbehave] if misbehave else [])) as port:
        address = ResolvedAddress([at("127.0.0.1", closed_port), at("127.0.0.1", port)], "test")
        samples, _ = loaded(address)
    assert outcomes(samples) == {"ok": 60}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def accepting():
    """A port that accepts connections, and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield listener.getsockname()[1]


def test_tls_reaches_the_address_that_speaks_it(certificate, closed_port, accepting):
    trusting = ssl.create_default_context(cafile=certificate)
    with tls_server(certificate, {"/": (200, b"ok")}) as port:
        places = [at("127.0.0.1", closed_port), at("127.0.0.1", accepting), at("127.0.0.1", port)]
        address = ResolvedAddress(places, "localhost", trusting)
        samples, generator = loaded(address)
    assert outcomes(samples) == {"ok": 60}, generator.reasons
    assert address.candidates[0] == at("127.0.0.1", port)


def test_tls_that_fails_at_every_address_is_named_for_each(certificate, closed_port):
    with tls_server(certificate, {}) as port:
        places = [at("127.0.0.1", port), at("127.0.0.1", closed_port)]
        samples, generator = loaded(ResolvedAddress(places, "localhost", ssl.create_default_context()))
    assert outcomes(samples) == {"connection_error": 60}
    (reason,) = generator.reasons
    assert reason.startswith(f"127.0.0.1:{port} TLS handshake failed (CERTIFICATE_VERIFY_FAILED: ")
    assert reason.endswith(f"), 127.0.0.1:{closed_port} connection refused")


class _Echo(grpc.GenericRpcHandler):
    def service(self, _details):
        return grpc.unary_unary_rpc_method_handler(lambda request, _context: request)


@pytest.fixture
def echo():
    """A function that starts a gRPC server on an address and returns its port and the server."""
    with ExitStack() as stack:

        def start(host="127.0.0.1", credentials=None):
            server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[_Echo()], options=[("grpc.so_reuseport", 0)])
            port = (
                server.add_secure_port(f"{host}:0", credentials)
                if credentials
                else server.add_insecure_port(f"{host}:0")
            )
            server.start()
            stack.callback(server.stop, None)
            return port, server

        yield start


def called(address, scheme="http", schedule=EVERY_5_MS, meanwhile=lambda _generator: None):
    headers = request_headers(scheme, "localhost", "/test.Service/Echo", 10)
    target = Target([address], [[PreparedRequest(headers, message_bytes(b"hello"))]], True, accept_all)
    return run(target, load(schedule, connections=2), meanwhile=meanwhile)


def test_grpc_reaches_the_address_that_answers(echo, silent, closed_port):
    silent.add(("127.0.0.2", 1))
    port, _ = echo()
    places = [at("127.0.0.2", 1), at("127.0.0.1", closed_port), at("127.0.0.1", port)]
    samples, generator = called(ResolvedAddress(places, "localhost"))
    assert outcomes(samples) == {"ok": 60}, generator.reasons


def test_grpc_in_tls_reaches_the_address_that_speaks_it(echo, certificate, closed_port, accepting):
    pair = (certificate.with_name("key.pem").read_bytes(), certificate.read_bytes())
    port, _ = echo(credentials=grpc.ssl_server_credentials([pair]))
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.set_alpn_protocols(["h2"])
    places = [at("127.0.0.1", closed_port), at("127.0.0.1", accepting), at("127.0.0.1", port)]
    samples, generator = called(ResolvedAddress(places, "localhost", trusting), "https")
    assert outcomes(samples) == {"ok": 60}, generator.reasons


def test_grpc_goes_on_at_the_next_address_when_a_server_ends(echo):
    first, server = echo()
    second, _ = echo()
    address = ResolvedAddress([at("127.0.0.1", first), at("127.0.0.1", second)], "localhost")

    def end(generator):
        if generator.fired >= 20:
            server.stop(None)

    samples, _ = called(address, schedule=[i * 5_000_000 for i in range(400)], meanwhile=end)
    assert sum(outcomes(samples).values()) == 400, "no arrival is unaccounted for"
    assert samples["outcome"][samples["scheduled_ns"].argmax()] == 0
    assert address.candidates[0] == at("127.0.0.1", second)
