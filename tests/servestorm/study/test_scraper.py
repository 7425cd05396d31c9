"""Scraping: Prometheus and the built-in scraper write the same table."""

from __future__ import annotations

import dataclasses
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading

import psutil
import pyarrow.parquet as pq
import pytest

from servestorm.rundir.metrics_table import table_bytes
from servestorm.study.scraper import BuiltIn, Prometheus, open_scraper, scrape_once
from serving.deployment import Endpoint
from serving.headers import Headers
from tests.requirements_here import lacking
from tests.stand_ins.gateway import gateway

TEXT = b"""\
# TYPE answers counter
answers_total{code="200",who="a b"} 7
:tensorflow:serving:request_count{model_name="cnn"} 3
# TYPE size gauge
size 1.5
"""


@pytest.fixture
def endpoint():
    asked = threading.Semaphore(0)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(TEXT if self.path == "/metrics/here" else b"{not prometheus")
            asked.release()

        def log_message(self, *_args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    yield Endpoint(3, url, "", f"{url}/metrics/here"), asked
    server.shutdown()
    server.server_close()


def values(points):
    return {(p.metric, p.labels, p.replica, p.value) for p in points}


EXPECTED = {
    ("answers_total", '{"code": "200", "who": "a b"}', 3, 7.0),
    (":tensorflow:serving:request_count", '{"model_name": "cnn"}', 3, 3.0),
    ("size", "{}", 3, 1.5),
}


def test_the_built_in_scraper_reads_again_and_again(endpoint):
    target, asked = endpoint
    scraper = BuiltIn(interval_s=0.01)
    scraper.watch("cell", [target])
    for _ in range(3):
        assert asked.acquire(timeout=20)
    points = scraper.collect("cell")
    assert values(points) == EXPECTED
    assert len(points) >= 2 * len(EXPECTED)


@pytest.fixture
def prometheus():
    if shutil.which("prometheus") is None:
        lacking("prometheus", "prometheus is not installed")


@pytest.mark.usefixtures("prometheus")
def test_prometheus_gives_the_same_points_and_ends(endpoint):
    target, asked = endpoint
    with open_scraper() as scraper:
        assert isinstance(scraper, Prometheus)
        scraper.watch("cell", [target])
        for _ in range(3):  # two whole scrapes lie behind the third
            assert asked.acquire(timeout=30)
        assert values(scraper.collect("cell")) == EXPECTED
        assert scraper.collect("another cell") == []
    names = [child.name() for child in psutil.Process(os.getpid()).children(recursive=True)]
    assert "prometheus" not in names


@pytest.mark.usefixtures("prometheus")
def test_after_the_first_scrape_was_awaited_there_are_points(endpoint):
    target, _ = endpoint
    with open_scraper() as scraper:
        scraper.watch("cell", [target])
        scraper.wait_first("cell", replicas=1)
        assert values(scraper.collect("cell")) == EXPECTED


def test_without_prometheus_the_built_in_scraper_stands_in(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with open_scraper() as scraper:
        assert isinstance(scraper, BuiltIn)


def test_a_prometheus_that_does_not_start_is_replaced(monkeypatch, tmp_path):
    broken = tmp_path / "prometheus"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with open_scraper() as scraper:
        assert isinstance(scraper, BuiltIn)


def test_what_is_no_prometheus_text_gives_nothing(endpoint):
    target, _ = endpoint
    wrong = Endpoint(0, target.rest_url, "", f"{target.rest_url}/other")
    assert scrape_once(wrong) == []


def test_an_endpoint_that_is_gone_gives_nothing():
    assert scrape_once(Endpoint(0, "", "", "http://127.0.0.1:9/metrics")) == []


def test_the_table_keeps_types_and_values(endpoint):
    target, _ = endpoint
    table = pq.read_table(io.BytesIO(table_bytes(scrape_once(target))))
    assert table.column_names == ["time_unix_ms", "replica", "metric", "labels", "value"]
    assert sorted(table["value"].to_pylist()) == [1.5, 3.0, 7.0]
    assert pq.read_table(io.BytesIO(table_bytes([]))).num_rows == 0


@pytest.fixture
def guarded(monkeypatch):
    """An endpoint whose metrics ask for a token, and what it was asked."""
    monkeypatch.setenv("TOKEN", "s3cr3t")
    headers = Headers.of_mapping({"Authorization": "Bearer env:TOKEN"}, "header")
    with gateway("s3cr3t") as server:
        yield Endpoint(1, server.url, "", f"{server.url}/metrics", metrics_headers=headers), server


def test_metrics_that_ask_for_a_token_are_read_with_it(guarded):
    endpoint, server = guarded
    (point,) = scrape_once(endpoint)
    assert (point.metric, point.value) == ("gateway_requests_total", 7.0)
    assert server.headers_of("/metrics")["Authorization"] == "Bearer s3cr3t"
    assert scrape_once(Endpoint(1, server.url, "", endpoint.metrics_url)) == []


def test_a_value_that_cannot_be_read_costs_the_metrics_alone(guarded, monkeypatch):
    monkeypatch.delenv("TOKEN")
    assert scrape_once(guarded[0]) == []


def test_a_redirect_takes_no_header_elsewhere(guarded):
    endpoint, server = guarded
    with gateway(redirect=endpoint.metrics_url) as other:
        assert scrape_once(dataclasses.replace(endpoint, metrics_url=f"{other.url}/metrics")) == []
    assert server.asked == []


def test_prometheus_gets_no_header_and_leaves_such_endpoints_to_the_built_in_scraper(guarded, endpoint, tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, process_group=0) as process:
        scraper = Prometheus(process, tmp_path, "http://127.0.0.1:9", "Prometheus 0")
        scraper.watch("cell", [guarded[0], endpoint[0]])
        written = (tmp_path / "targets.json").read_text()
        while not guarded[1].asked:
            assert process.poll() is None
        points = scraper.collect("cell")
        scraper.close()
    assert [target["labels"]["replica"] for target in json.loads(written)] == ["3"]
    assert "s3cr3t" not in written
    assert {point.metric for point in points} == {"gateway_requests_total"}
