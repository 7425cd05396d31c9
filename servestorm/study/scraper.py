"""Each engine's own metrics during a run: by a `prometheus` binary where there is one, else by a small scraper.

Both give the same table: time_unix_ms (int64), replica (int16), metric and labels (strings, labels as sorted JSON) and
value (float64). Metrics are evidence beside the samples: where scraping fails, the run goes on without them.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypedDict

from servestorm.rundir.metrics_table import Point
from servestorm.study.child_processes import start_child, stop_child
from serving.deployment import Endpoint
from serving.errors import ServingError
from serving.http_client import read_page
from serving.orphans import scratch_folder
from serving.ports import free_ports

INTERVAL_S = 1.0
NOTICED_S = 8.0  # Prometheus looks at its list of targets every 5 s, whatever its file says


class Scraper(Protocol):
    """Watches the endpoints of the deployments that stand, by their cells."""

    name: str

    def watch(self, cell: str, endpoints: Sequence[Endpoint]) -> None:
        """Begin to scrape these endpoints for the cell."""

    def wait_first(self, cell: str, replicas: int) -> None:
        """Return when so many endpoints have been read once, or after some seconds: metrics hold up no load."""

    def collect(self, cell: str) -> list[Point]:
        """End the scraping and give everything of this cell; empty where nothing could be read."""


@contextmanager
def open_scraper() -> Iterator[Scraper]:
    """Prometheus where the binary is on the PATH and starts, else the built-in scraper; ends with the block."""
    binary = shutil.which("prometheus")
    folder = scratch_folder()
    scraper: Prometheus | BuiltIn | None = None
    try:
        scraper = (_start_prometheus(binary, folder) if binary else None) or BuiltIn()
        yield scraper
    finally:
        if scraper:
            scraper.close()
        shutil.rmtree(folder, ignore_errors=True)


class BuiltIn:
    """A thread that reads each endpoint once a second with prometheus-client's parser."""

    name = "built-in scraper"

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._watched: dict[str, _Scraping] = {}

    def watch(self, cell: str, endpoints: Sequence[Endpoint]) -> None:
        """Begin to scrape these endpoints."""
        scraping = _Scraping([], threading.Event())
        arguments = (list(endpoints), scraping)
        thread = threading.Thread(target=self._loop, args=arguments, name=f"scrape {cell}", daemon=True)
        self._watched[cell] = dataclasses.replace(scraping, thread=thread)
        thread.start()

    def wait_first(self, cell: str, replicas: int) -> None:
        """Return at once: this scraper has begun already."""

    def collect(self, cell: str) -> list[Point]:
        """End the scraping of the cell and give what was read."""
        return self._end(cell)

    def close(self) -> None:
        """End all scraping."""
        for cell in list(self._watched):
            self._end(cell)

    def _end(self, cell: str) -> list[Point]:
        if (scraping := self._watched.pop(cell, None)) is None:
            return []
        scraping.ended.set()
        if scraping.thread:
            scraping.thread.join(timeout=5)
        return scraping.points

    def _loop(self, endpoints: list[Endpoint], scraping: _Scraping) -> None:
        while True:
            for endpoint in endpoints:
                scraping.points.extend(scrape_once(endpoint))
            if scraping.ended.wait(self._interval_s):
                return


@dataclasses.dataclass(frozen=True)
class _Scraping:
    """What was read of one cell, and what ends it."""

    points: list[Point]
    ended: threading.Event
    thread: threading.Thread | None = None


def scrape_once(endpoint: Endpoint, timeout_s: float = 1.0) -> list[Point]:
    """Every sample that the endpoint shows now; empty where it does not answer in Prometheus text."""
    from prometheus_client.parser import text_string_to_metric_families

    stamp = time.time_ns() // 1_000_000
    try:
        text = read_page(endpoint.metrics_url, timeout_s, endpoint.metrics_headers.read()).decode()
        return [
            Point(stamp, endpoint.replica, sample.name, _labels(sample.labels), float(sample.value))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]
    except (OSError, ValueError, ServingError):
        return []


def _labels(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(sorted(labels.items())), ensure_ascii=False)


class Prometheus:
    """A Prometheus of our own: data in a temporary folder, port on 127.0.0.1, targets through a file it watches."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, url: str, version: str) -> None:
        self.name = version
        self._process, self._folder, self._url = process, folder, url
        self._watched: dict[str, list[_Target]] = {}
        self._with_headers = BuiltIn()
        """Reads endpoints that want headers: Prometheus would have to write their values into its configuration."""

    def watch(self, cell: str, endpoints: Sequence[Endpoint]) -> None:
        """Hand the endpoints over as targets, labelled with the cell."""
        self._watched[cell] = [_target(cell, endpoint) for endpoint in endpoints if not endpoint.metrics_headers]
        self._write_targets()
        if others := [endpoint for endpoint in endpoints if endpoint.metrics_headers]:
            self._with_headers.watch(cell, others)

    def wait_first(self, cell: str, replicas: int) -> None:
        """Ask until the cell's replicas count as up, for at most NOTICED_S."""
        query = urllib.parse.urlencode({"query": f'count(up{{cell="{cell}"}} == 1)'})
        end, targets = time.monotonic() + NOTICED_S, min(replicas, len(self._watched.get(cell, ())))
        while time.monotonic() < end and self._number(query) < targets:
            time.sleep(0.2)

    def _number(self, query: str) -> float:
        try:
            result = json.loads(read_page(f"{self._url}/api/v1/query?{query}", timeout_s=1))["data"]["result"]
            return float(result[0]["value"][1]) if result else 0.0
        except (OSError, ValueError, KeyError):
            return 0.0

    def collect(self, cell: str) -> list[Point]:
        """Ask for the raw samples of the cell's series, and end its scraping."""
        own = self._with_headers.collect(cell)
        targets = self._watched.pop(cell, None)
        self._write_targets()
        if not targets:
            return own
        query = urllib.parse.urlencode({"query": f'{{cell="{cell}"}}[1d]'})
        try:
            reply = json.loads(read_page(f"{self._url}/api/v1/query?{query}", timeout_s=10))
            return [*own, *(point for series in reply["data"]["result"] for point in _points(series))]
        except (OSError, ValueError, KeyError):
            return own

    def close(self) -> None:
        """End the process."""
        self._with_headers.close()
        stop_child(self._process)

    def _write_targets(self) -> None:
        temporary = self._folder / "targets.tmp"
        temporary.write_text(json.dumps([target for targets in self._watched.values() for target in targets]))
        temporary.replace(self._folder / "targets.json")


class _Target(TypedDict):
    """An entry of the file that lists Prometheus' targets."""

    targets: list[str]
    labels: dict[str, str]


class _PrometheusSeries(TypedDict):
    """A series of Prometheus' reply: its labels, and (Unix time in seconds, value) of each sample."""

    metric: dict[str, str]
    values: list[tuple[float, str]]


def _target(cell: str, endpoint: Endpoint) -> _Target:
    parts = urllib.parse.urlsplit(endpoint.metrics_url)
    labels = {"cell": cell, "replica": str(endpoint.replica), "__metrics_path__": parts.path or "/metrics"}
    labels["__scheme__"] = parts.scheme
    labels.update({f"__param_{key}": value for key, value in urllib.parse.parse_qsl(parts.query)})
    return {"targets": [parts.netloc], "labels": labels}


def _points(series: _PrometheusSeries) -> Iterator[Point]:
    labels = dict(series["metric"])
    metric, replica = labels.pop("__name__"), int(labels.pop("replica", "0"))
    if metric == "up" or metric.startswith("scrape_"):
        return  # Prometheus's own, which the built-in scraper does not have
    for ours in ("cell", "instance", "job"):
        labels.pop(ours, None)
    text = _labels(labels)
    for time_s, value in series["values"]:
        yield Point(round(time_s * 1000), replica, metric, text, float(value))


def _start_prometheus(binary: str, folder: Path) -> Prometheus | None:
    """A ready Prometheus, or None where it does not come up in ten seconds."""
    from servestorm.study.environment import output_of

    (folder / "targets.json").write_text("[]")
    config = {
        "global": {"scrape_interval": f"{INTERVAL_S:g}s", "scrape_timeout": f"{INTERVAL_S:g}s"},
        "scrape_configs": [
            {
                "job_name": "servestorm",
                "file_sd_configs": [{"files": [str(folder / "targets.json")], "refresh_interval": "1s"}],
            }
        ],
    }
    # Prometheus reads YAML, of which JSON is a part
    (folder / "prometheus.yml").write_text(json.dumps(config))
    (port,) = free_ports(1)
    # the generator shares its core and must never wait for it
    politely = ["nice", "-n", "10"] if shutil.which("nice") else []
    command = [
        *politely,
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    process = start_child(command, env={"GOMAXPROCS": "1"}, log=folder / "log")
    url = f"http://127.0.0.1:{port}"
    try:
        ready = _wait_ready(process, url)
    except BaseException:
        stop_child(process)
        raise
    if not ready:
        stop_child(process)
        return None
    parts = (output_of(binary, "--version") or "prometheus").splitlines()[0].split()
    return Prometheus(process, folder, url, f"Prometheus {parts[2]}" if len(parts) > 2 else "Prometheus")


def _wait_ready(process: subprocess.Popen[bytes], url: str, timeout_s: float = 10) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end and process.poll() is None:
        try:
            read_page(f"{url}/-/ready", timeout_s=1)
            return True
        except OSError:
            time.sleep(0.1)
    return False
