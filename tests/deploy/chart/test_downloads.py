"""The chart's download of a model, with curl and with Python: bounded in time and size, and not to be led astray."""

from __future__ import annotations

import http.server
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.deploy.chart.rendering import CHART, container, environment, refusal, render
from tests.requirements_here import lacking

SCRIPT = CHART / "files" / "download.sh"
CI = CHART / "ci"
MODEL = bytes(range(256)) * 8
TOOLS = {
    "curl": ("curl", "getent", "cut", "date", "sleep", "timeout"),
    "python3": ("python3",),
}
LIMITS = {
    "DOWNLOAD_CONNECT_SECONDS": "5",
    "DOWNLOAD_TOTAL_SECONDS": "60",
    "DOWNLOAD_MAX_BYTES": "4096",
    "DOWNLOAD_LINK_LOCAL": "false",
}
LINK_LOCAL = [
    "169.254.169.254",
    "[fe80::1]",
    "[febf::1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[0:0:0:0:0:ffff:a9fe:a9fe]",
    "[64:ff9b::a9fe:a9fe]",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
]
"""Ways to write a link-local address; the last three are 169.254.169.254 as one number, in hexadecimal and in octal."""


class _Site(http.server.BaseHTTPRequestHandler):
    """/model is the model, /to/URL redirects to URL, and the other paths are faults."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/to/"):
            self._answer(302, b"moved", {"Location": self.path.removeprefix("/to/")})
        elif self.path.startswith("/again/"):
            self._answer(302, b"", {"Location": f"/again/{len(self.server.asked)}"})
        elif self.path == "/flaky" and len(self.server.asked) == 1:
            self._answer(503, b"not yet", {})
        elif self.path == "/slow":
            self._answer(200, MODEL, {}, pause_s=0.05)
        elif self.path == "/large-in-chunks":
            self._chunks()
        else:
            self._answer(200, MODEL * (3 if self.path == "/large" else 1), {})

    def _answer(self, status, body, headers, pause_s=0.0):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for at in range(0, len(body), 16 if pause_s else len(body)):
            self.wfile.write(body[at : at + 16] if pause_s else body)
            time.sleep(pause_s)

    def _chunks(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(3):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(MODEL), MODEL))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A caller that hangs up is no fault of the server."""


@contextmanager
def site(certificate: Path | None = None) -> Iterator[tuple[str, list[str]]]:
    """Address of a server and the paths that it was asked for."""
    with _Server(("127.0.0.1", 0), _Site) as server:
        server.asked = []
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}", server.asked
        server.shutdown()


@pytest.fixture
def plain():
    with site() as found:
        yield found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        lacking("openssl", "openssl is not here: apt-get install openssl")
    path = tmp_path_factory.mktemp("certificate") / "own.crt"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(path), "-keyout", str(path.with_suffix(".key"))]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def encrypted(certificate):
    with site(certificate) as found:
        yield found


@pytest.fixture(params=TOOLS)
def fetch(request, tmp_path, certificate):
    """Downloads with one tool on the PATH; gives what the script ended with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in TOOLS[request.param]:
        found = sys.executable if name == "python3" else shutil.which(name)
        if found is None:
            lacking(name, f"{name} is not here: apt-get install {name}")
        # A link to a virtual environment's Python would lose the environment.
        (folder / name).write_text(f'#!/bin/sh\nexec "{found}" "$@"\n')
        (folder / name).chmod(0o755)

    def run(url, **limits):
        env = {"PATH": str(folder), "SSL_CERT_FILE": str(certificate), **LIMITS, **limits}
        command = ["/bin/sh", str(SCRIPT), url, str(tmp_path / "file")]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=50, check=False)

    return run


def downloaded(tmp_path: Path) -> bytes:
    return (tmp_path / "file").read_bytes()


def test_a_model_is_downloaded_over_http_and_https(fetch, plain, encrypted, tmp_path):
    for address, _ in (plain, encrypted):
        done = fetch(f"{address}/model?signature=secret")
        assert (done.returncode, downloaded(tmp_path)) == (0, MODEL), done.stderr


def test_a_redirect_is_followed_to_where_it_may_lead(fetch, plain, encrypted, tmp_path):
    (http, asked), (https, asked_encrypted) = plain, encrypted
    for url in (f"{http}/to//model", f"{http}/to/{http}/model", f"{http}/to/{https}/to/{https}/model"):
        done = fetch(url)
        assert (done.returncode, downloaded(tmp_path)) == (0, MODEL), done.stderr
    assert asked.count("/model") == 2 and asked_encrypted[-1] == "/model"


def test_a_redirect_from_https_to_http_is_refused_before_anybody_is_asked(fetch, plain, encrypted):
    (http, asked), (https, _) = plain, encrypted
    done = fetch(f"{https}/to/{http}/model?signature=secret")
    assert done.returncode == 1 and asked == []
    assert f"it redirects to {http}/model, and a redirect may only lead to https" in done.stderr
    assert "secret" not in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/model"])
def test_a_redirect_out_of_http_is_refused(url, fetch, plain):
    done = fetch(f"{plain[0]}/to/{url}")
    assert done.returncode == 1 and "a redirect may only lead to https" in done.stderr


@pytest.mark.parametrize("host", LINK_LOCAL)
def test_a_redirect_to_a_link_local_address_is_refused_even_where_the_first_may_be_one(host, fetch, plain):
    done = fetch(f"{plain[0]}/to/http://{host}/latest/meta-data", DOWNLOAD_LINK_LOCAL="true")
    assert done.returncode == 1
    assert "it redirects to a link-local address" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("host", LINK_LOCAL)
def test_a_url_with_a_link_local_address_is_refused_unless_asked_for(host, fetch):
    done = fetch(f"http://{host}/model")
    assert done.returncode == 1 and "set download.allowLinkLocal=true" in done.stderr


def test_a_url_with_a_link_local_address_is_asked_where_that_is_meant(fetch):
    """Nothing answers there: what matters is that it is tried."""
    limits = {"DOWNLOAD_TOTAL_SECONDS": "1", "DOWNLOAD_CONNECT_SECONDS": "1"}
    done = fetch("http://169.254.169.254:9/model", DOWNLOAD_LINK_LOCAL="true", **limits)
    assert done.returncode == 1 and "link-local" not in done.stderr


def test_redirects_without_end_are_given_up(fetch, plain):
    done = fetch(f"{plain[0]}/again/0")
    assert done.returncode == 1 and "it redirects over 10 times" in done.stderr
    assert len(plain[1]) == 11


@pytest.mark.parametrize("path", ["/large", "/large-in-chunks"])
def test_what_is_larger_than_the_volume_is_refused(path, fetch, plain, tmp_path):
    done = fetch(f"{plain[0]}{path}")
    assert done.returncode == 1
    assert "it is larger than 4096 bytes: raise storage.models." in done.stderr
    assert len(plain[1]) == 1, "it was asked for again"


def test_a_download_that_trickles_ends_with_its_time(fetch, plain):
    done = fetch(f"{plain[0]}/slow", DOWNLOAD_TOTAL_SECONDS="2")
    assert done.returncode == 1
    assert "was not downloaded within 2 s: raise download.totalSeconds" in done.stderr


def test_a_server_that_fails_once_is_asked_again(fetch, plain, tmp_path):
    done = fetch(f"{plain[0]}/flaky")
    assert (done.returncode, downloaded(tmp_path)) == (0, MODEL), done.stderr


def test_a_password_in_a_url_is_not_printed(fetch):
    done = fetch("http://me:secret@127.0.0.1:9/model?key=secret", DOWNLOAD_TOTAL_SECONDS="1")
    assert done.returncode == 1
    assert "http://127.0.0.1:9/model" in done.stderr and "secret" not in done.stderr


@pytest.mark.parametrize("tool", ["aws", "gcloud"])
def test_a_bucket_s_tool_is_ended_with_its_time(tool, tmp_path):
    program = tmp_path / tool
    program.write_text("#!/bin/sh\nexec sleep 40\n")
    program.chmod(0o755)
    env = {**LIMITS, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DOWNLOAD_TOTAL_SECONDS": "1"}
    url = {"aws": "s3", "gcloud": "gs"}[tool] + "://bucket/model.tar"
    command = ["/bin/sh", str(SCRIPT), url, str(tmp_path / "file")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert f"{url} was not downloaded within 1 s" in done.stderr


@pytest.mark.helm
def test_the_bounds_of_a_download_are_the_values():
    rendered = render(
        "download.connectSeconds=7",
        "download.totalSeconds=90",
        "storage.models=1.5Gi",
        values=CI / "models-values.yaml",
    )
    for index in (2, 3, 4):
        found = environment(container(rendered.server(), f"download-{index}"))
        assert {name: found[name] for name in LIMITS} == {
            "DOWNLOAD_CONNECT_SECONDS": "7",
            "DOWNLOAD_TOTAL_SECONDS": "90",
            "DOWNLOAD_MAX_BYTES": str(3 << 29),
            "DOWNLOAD_LINK_LOCAL": "false",
        }
    asked = render("download.allowLinkLocal=true", values=CI / "models-values.yaml").server()
    assert environment(container(asked, "download-2"))["DOWNLOAD_LINK_LOCAL"] == "true"
    assert "totalSeconds" in refusal("download.totalSeconds=0")


@pytest.mark.helm
@pytest.mark.parametrize(
    ("size", "expected"),
    [("4Gi", 4 << 30), ("512Mi", 512 << 20), ("1Ti", 1 << 40), ("9Ki", 9 << 10), ("1.5M", 1_500_000)],
)
def test_a_quantity_is_bytes(size, expected):
    rendered = render(f"storage.models={size}", values=CI / "airgap-values.yaml")
    assert environment(container(rendered.server(), "download-0"))["DOWNLOAD_MAX_BYTES"] == str(expected)
