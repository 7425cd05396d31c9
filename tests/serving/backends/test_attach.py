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
from serving.ports import HOST, free_ports

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
    with pytest.raises(DeploymentError, match=r"nothing answers.*check that it runs"):
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
