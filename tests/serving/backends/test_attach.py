"""Endpoints that run already: they are asked, and nothing else."""

from __future__ import annotations

import http.server
import threading
from pathlib import Path

import pytest

from serving.backend import DeploymentOrder
from serving.backends.attach import AttachBackend, ReplicaAddress
from serving.deployment import Batching, Budget, EventLog
from serving.engines import ENGINES
from serving.errors import DeploymentError, ServingError
from serving.headers import Headers
from serving.ports import HOST, free_ports
from serving.probe import first_answer
from serving.wire import WIRES
from tests.stand_ins.gateway import INVALID_KEY, gateway

ANSWER = b'{"predictions": [[0.25, 0.75]]}'


@pytest.fixture
def serve():
    """An endpoint that answers POST with these (status, body) in turn, the last of them for ever; its requests."""
    servers = []

    def start(*replies):
        waiting, asked = list(replies), []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                asked.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
                status, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args):
                pass

        server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://{HOST}:{server.server_address[1]}", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def attach(toy_model, tmp_path):
    def start(*addresses, engine="torchserve", replicas=None):
        events = EventLog()
        deployment = AttachBackend({"torchserve": addresses}).start(
            DeploymentOrder(
                ENGINES[engine],
                toy_model,
                replicas=len(addresses) if replicas is None else replicas,
                budget=Budget(cpus=(0,)),
                batching=Batching(),
                workdir=Path(tmp_path / "nowhere"),
                events=events,
            )
        )
        return deployment, events

    return start


def test_it_is_ready_once_it_serves_the_model(attach, serve):
    url, asked = serve((404, b""), (503, b"busy"), (200, ANSWER))
    deployment, events = attach(ReplicaAddress(url))
    with deployment:
        deployment.wait_ready(30)
    assert len(asked) == 3
    assert asked[0] == ("/predictions/toy", b"image")
    assert events.events == []  # nothing was started, so no phase can be told


def test_every_endpoint_must_be_ready_and_the_one_that_is_not_is_named(attach, serve):
    good, _ = serve((200, ANSWER))
    bad, _ = serve((404, b"no such model"))
    deployment, _ = attach(ReplicaAddress(good), ReplicaAddress(bad))
    with pytest.raises(DeploymentError, match=rf"{bad} did not serve model toy within 0.2 s \(HTTP 404\)"):
        deployment.wait_ready(0.2)


def test_an_address_where_nothing_listens_is_told(attach):
    (port,) = free_ports(1)
    deployment, _ = attach(ReplicaAddress(f"http://{HOST}:{port}"))
    with pytest.raises(DeploymentError, match=r"\(connection refused\): check that it runs"):
        deployment.wait_ready(0.1)


def test_addresses_are_passed_on_as_they_are(attach):
    one, two = ReplicaAddress("http://a:1/", "a:2", "http://a:3/m", "http://a:4"), ReplicaAddress("http://b:1")
    first, second = attach(one, two)[0].endpoints
    assert (first.replica, first.rest_url, first.grpc_target) == (0, "http://a:1", "a:2")
    assert (first.metrics_url, first.management_url) == ("http://a:3/m", "http://a:4")
    assert (second.replica, second.grpc_target, second.metrics_url, second.management_url) == (1, "", "", None)


def test_nothing_is_told_of_what_runs_elsewhere_and_it_is_left_running(attach, serve):
    url, _ = serve((200, ANSWER))
    deployment, events = attach(ReplicaAddress(url))
    used = deployment.use()
    assert set(vars(used).values()) == {None}
    assert url.removeprefix("http://") in deployment.logs()
    deployment.stop()
    deployment.stop()
    deployment.wait_ready(30)
    assert deployment.alive() and events.events == []


def test_it_cannot_be_scaled(attach):
    deployment, _ = attach(ReplicaAddress("http://a:1"))
    deployment.scale(1)
    with pytest.raises(ServingError, match="2 replicas are wanted of 1 endpoints that run already"):
        deployment.scale(2)
    with pytest.raises(ServingError, match="cannot be scaled"):
        attach(ReplicaAddress("http://a:1"), replicas=3)


def test_an_engine_without_an_endpoint_is_named(attach):
    with pytest.raises(ServingError, match="no endpoint of savedmodel is named"):
        attach(ReplicaAddress("http://a:1"), engine="savedmodel", replicas=1)


@pytest.fixture
def bearer(monkeypatch):
    monkeypatch.setenv("TOKEN", "s3cr3t")
    return Headers.of_mapping({"Authorization": "Bearer env:TOKEN", "Host": "models.example"}, "header")


def test_an_endpoint_that_asks_for_a_token_is_asked_with_it(attach, bearer, toy_model):
    with gateway("s3cr3t") as server:
        deployment, _ = attach(ReplicaAddress(server.url, management=server.url, headers=bearer))
        deployment.wait_ready(30)
        (endpoint,) = deployment.endpoints
        first_answer(endpoint, WIRES["torchserve"], toy_model, timeout_s=30)
        assert deployment.server(endpoint).manage("/models/toy") is not None
    assert [headers["Authorization"] for _, _, headers in server.asked] == ["Bearer s3cr3t"] * 3
    assert [headers["Host"] for _, _, headers in server.asked] == ["models.example"] * 3
    assert server.headers_of("/predictions/toy")["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("refusal", [(401, b""), (403, b""), (400, INVALID_KEY)])
def test_readiness_names_a_refusal_of_authorisation_and_the_remedy(attach, refusal, toy_model):
    with gateway("s3cr3t", refusal) as server:
        deployment, _ = attach(ReplicaAddress(server.url))
        sentence = rf"\(.*refused authorisation \(HTTP {refusal[0]}\)\): send the endpoint's token, such as --header"
        with pytest.raises(DeploymentError, match=sentence):
            deployment.wait_ready(0.1)
        with pytest.raises(DeploymentError, match=sentence):
            first_answer(deployment.endpoints[0], WIRES["torchserve"], toy_model, timeout_s=0.5)


def test_other_failures_keep_their_remedies(attach, toy_model):
    with gateway("s3cr3t", (400, b"no picture")) as server:
        deployment, _ = attach(ReplicaAddress(server.url))
        with pytest.raises(DeploymentError, match=r"\(HTTP 400\): check that it runs"):
            deployment.wait_ready(0.1)
        with pytest.raises(DeploymentError, match=r"\(last: HTTP 400\): see its log"):
            first_answer(deployment.endpoints[0], WIRES["torchserve"], toy_model, timeout_s=0.5)


def test_management_and_metrics_may_have_headers_of_their_own(bearer):
    own = Headers.of_mapping({"X-A": "1"}, "header")
    shared = ReplicaAddress("http://a:1", headers=bearer).endpoint(0)
    assert (shared.metrics_headers, shared.management_headers) == (bearer, bearer)
    split = ReplicaAddress("http://a:1", headers=bearer, metrics_headers=Headers(), management_headers=own).endpoint(0)
    assert (split.headers, split.metrics_headers, split.management_headers) == (bearer, Headers(), own)


@pytest.mark.parametrize("key", ["headers", "metrics_headers", "management_headers"])
def test_a_value_that_cannot_be_read_is_said_before_anything_is_asked(key, bearer, monkeypatch):
    monkeypatch.delenv("TOKEN")
    backend = AttachBackend(
        {"torchserve": [ReplicaAddress("http://a:1"), ReplicaAddress("http://b:1", **{key: bearer})]}
    )
    with pytest.raises(ServingError, match="header Authorization refers to env:TOKEN, which is not set here"):
        backend.check(ENGINES["torchserve"])
    assert backend.check(ENGINES["savedmodel"]) == "runs already"
