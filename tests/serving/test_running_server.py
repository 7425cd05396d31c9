"""Ways to look at a server that runs: its command line, its files and its management API."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading

import pytest

from serving.deployment import Endpoint
from serving.engines import ENGINES
from serving.headers import Headers
from serving.running_server import ContainerServer, LocalServer, RemoteServer
from serving.server_settings import Refusal
from tests.stand_ins.gateway import gateway


@pytest.fixture
def management():
    """A management API that describes one model."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = self.path.encode()
            self.send_response(200 if self.path == "/models/toy" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def process():
    """A process with a child, whose arguments are known; both run until the test ends."""
    child = "import sys; sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, '--of', 'child'])"
    with subprocess.Popen([sys.executable, "-c", parent, "--of=parent"], stdin=subprocess.PIPE) as started:
        yield started
        started.stdin.close()


def endpoint(management: int | None = None) -> Endpoint:
    return Endpoint(0, "http://h:1", "h:2", "", management and f"http://127.0.0.1:{management}/")


def execute_here(command):
    """Runs in this machine's own namespace what a backend runs in a container."""
    done = subprocess.run(command, capture_output=True, check=False)
    return None if done.returncode else done.stdout


def views(process, management):
    return [
        LocalServer(endpoint(management), process.pid),
        ContainerServer(execute_here, management),
    ]


def test_the_command_lines_of_a_process_and_its_children_are_the_kernel_s(process, management):
    for server in views(process, management):
        while not any(command[-2:] == ["--of", "child"] for command in server.commands()):
            assert process.poll() is None
        assert any(command[-1] == "--of=parent" for command in server.commands())


def test_files_are_read_and_missing_ones_are_none(process, management, tmp_path):
    (tmp_path / "there").write_text("max_batch_size {}\n")
    for server in views(process, management):
        assert server.file(str(tmp_path / "there")) == "max_batch_size {}\n"
        assert server.file(str(tmp_path / "gone")) is None


def test_the_management_api_is_asked_and_only_its_200_counts(process, management):
    for server in (*views(process, management), RemoteServer(endpoint(management))):
        assert server.manage("/models/toy") == b"/models/toy"
        assert server.manage("/models/none") is None


def test_a_server_without_a_management_api_says_nothing():
    for server in (RemoteServer(endpoint()), LocalServer(endpoint(), None), ContainerServer(execute_here, None)):
        assert server.manage("/models/toy") is None


def test_nothing_is_seen_of_a_server_that_is_elsewhere_gone_or_not_to_be_entered(tmp_path):
    for server in (RemoteServer(endpoint()), LocalServer(endpoint(), None), ContainerServer(lambda _: None, 1)):
        assert server.commands() == []
        assert server.file(str(tmp_path / "gone")) is None
        assert server.manage("/models/toy") is None


def test_a_management_api_that_refuses_authorisation_is_told_from_one_that_is_not_there(monkeypatch):
    headers = Headers.of_mapping({"Authorization": "Bearer env:TOKEN"}, "header")
    with gateway("s3cr3t") as server:
        place = Endpoint(0, "http://h:1", "h:2", "", server.url, management_headers=headers)
        monkeypatch.setenv("TOKEN", "wrong")
        assert RemoteServer(place).manage("/models/toy") == Refusal("refused authorisation (HTTP 401)")
        settings = ENGINES["torchserve"].settings(RemoteServer(place), named("toy"))
        assert settings.workers.reason == "TorchServe's management API: refused authorisation (HTTP 401)"
        monkeypatch.delenv("TOKEN")
        assert "env:TOKEN, which is not set here" in RemoteServer(place).manage("/models/toy").sentence
        monkeypatch.setenv("TOKEN", "s3cr3t")
        assert isinstance(RemoteServer(place).manage("/models/toy"), bytes)


def named(name):
    """A model of which only the name is asked."""
    return type("Named", (), {"name": name})()
