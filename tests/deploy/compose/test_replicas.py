"""Replicas behind Compose's balancer: all of them get requests, and more than it has places for are reported."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager

from serving.ports import free_ports
from serving.probe import http_get
from tests.deploy.compose.compose_files import COMPOSE, FILES, variables
from tests.requirements_here import lacking
from tests.stand_ins.dns_server import dns_server

CONFIGURATION = COMPOSE / "haproxy" / "haproxy.cfg"
HEALTH = COMPOSE / "haproxy" / "health.sh"
SLOTS = int(*variables(FILES[0])["BALANCER_SLOTS"])


class _Replica(http.server.BaseHTTPRequestHandler):
    """Ready, and otherwise answers with the address that was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"READY" if self.path.startswith("/models/") else self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def serving(address, handler):
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def balancing(folder, replicas, slots):
    """Compose's HAProxy before so many replicas of TorchServe; gives the URLs of their front and of its statistics."""
    haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if haproxy is None:
        lacking("haproxy", "HAProxy is not here: apt-get install haproxy")
    addresses = [f"127.1.{number // 200}.{number % 200 + 1}" for number in range(replicas)]
    front, look = free_ports(2)
    with serving("", _Replica) as port, dns_server(addresses) as dns:
        text = CONFIGURATION.read_text().replace("127.0.0.11:53", f"127.0.0.1:{dns}")
        head, *proxies = re.split(r"^(?=listen |frontend )", text, flags=re.MULTILINE)
        kept = [proxy for proxy in proxies if proxy.startswith(("listen torchserve_rest", "frontend statistics"))]
        text = head + "".join(kept).replace("bind :8080", f"bind 127.0.0.1:{front}")
        text = text.replace("bind :8404", f"bind 127.0.0.1:{look}")
        text = text.replace("port 8081", f"port {port}").replace("torchserve:8080", f"torchserve:{port}")
        (folder / "haproxy.cfg").write_text(text)
        env = {"MODEL_NAME": "cnn", "TENSORFLOW_SERVICE": "tfserving", "BALANCER_SLOTS": str(slots)}
        with subprocess.Popen([haproxy, "-db", "-f", "haproxy.cfg"], cwd=folder, env=env) as process:
            try:
                yield f"http://127.0.0.1:{front}", f"http://127.0.0.1:{look}"
            finally:
                process.kill()


def page_of(statistics):
    """What Prometheus reads; empty before HAProxy listens."""
    if http_get(f"{statistics}/ready") is None:
        return ""
    url = f"{statistics}/metrics?no-maint&scope=global&scope=frontend&scope=backend&scope=server"
    return urllib.request.urlopen(url, timeout=10).read().decode()


def metric(statistics, name):
    """Samples of one metric of HAProxy as Prometheus asks for them: labels to value."""
    page = page_of(statistics)
    lines = re.findall(rf"^{name}(\{{.*?\}})? (\S+)$", page, re.MULTILINE)
    return {labels: float(value) for labels, value in lines}


def active(statistics):
    return metric(statistics, "haproxy_backend_active_servers").get('{proxy="torchserve_rest"}', 0)


def wait_for(statistics, replicas):
    deadline_s = time.monotonic() + 30
    while active(statistics) < replicas:
        assert time.monotonic() < deadline_s, active(statistics)
        time.sleep(0.1)


def test_every_replica_gets_requests_also_where_there_are_forty(tmp_path):
    with balancing(tmp_path, replicas=40, slots=SLOTS) as (front, statistics):
        wait_for(statistics, 40)
        asked = [urllib.request.urlopen(f"{front}/predictions/cnn", timeout=10).read() for _ in range(80)]
    assert len(set(asked)) == 40


def test_the_rule_for_replicas_without_a_place_counts_the_places_as_haproxy_does(tmp_path):
    """Its right side is the sum of this metric over all states, also as Prometheus asks for it."""
    with balancing(tmp_path, replicas=3, slots=2) as (_, statistics):
        wait_for(statistics, 2)
        places = metric(statistics, "haproxy_backend_agg_server_status")
        assert active(statistics) == 2
        assert metric(statistics, "haproxy_process_max_connections") == {"": 4096}
        assert metric(statistics, "haproxy_process_current_connections")
    assert sum(places.values()) == 2
    assert all('proxy="torchserve_rest"' in labels for labels in places)


class _Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()

    def log_message(self, *_):
        pass


def healthcheck(folder, port, replicas, slots=2):
    """The healthcheck where DNS gives each service this many addresses, three lines for each as glibc does."""
    lines = "".join(f"10.0.0.{n} {kind}\\n" for n in range(replicas) for kind in ("STREAM", "DGRAM", "RAW"))
    (folder / "getent").write_text(f'#!/bin/sh\n[ "$*" = "ahostsv4 torchserve" ] && printf "{lines}"\n')
    (folder / "getent").chmod(0o755)
    (folder / "health.sh").write_text(HEALTH.read_text().replace("8404", str(port)).replace("/proc/1/fd/1", "log"))
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "TENSORFLOW_SERVICE": "tfserving", "BALANCER_SLOTS": str(slots)}
    return subprocess.run(["bash", "health.sh"], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_the_balancer_is_unhealthy_where_a_service_has_more_replicas_than_places_and_says_so(tmp_path):
    with serving("127.0.0.1", _Ready) as port:
        for replicas in (0, 2):
            assert healthcheck(tmp_path, port, replicas).returncode == 0
        done = healthcheck(tmp_path, port, 3)
    assert done.returncode == 1
    assert "torchserve has 3 replicas and the balancer places for 2" in done.stdout
    assert "set BALANCER_SLOTS to 3 or more" in done.stdout
    assert (tmp_path / "log").read_text() == done.stdout
    gone = healthcheck(tmp_path, port, 0)
    assert gone.returncode == 1 and gone.stdout == "HAProxy does not answer.\n"
