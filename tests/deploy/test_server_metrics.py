"""Every query about the servers' own metrics counts answers: no probe, and no failure without a time."""

from __future__ import annotations

import json
import re

import pytest

from tests.deploy.chart.rendering import CHART
from tests.deploy.compose.compose_files import COMPOSE
from tests.deploy.compose.promql import evaluate

FILES = {
    "chart": CHART / "files" / "dashboard.json",
    "compose": COMPOSE / "grafana" / "dashboards" / "servestorm.json",
}
WHERE = {"chart": ('{pod="a"}', 'namespace="vision",pod="a"'), "compose": ("{}", 'job="torchserve"')}
"""The labels of an answer, and those of every series that it is made of."""
TF = ":tensorflow:serving:"


def queries(of: str) -> dict[tuple[str, str], str]:
    """By title of the panel and legend, Grafana's variables filled in."""
    panels = json.loads(FILES[of].read_text())["panels"]
    found = {
        (panel["title"], t["legendFormat"] + t["refId"]): t["expr"]
        for panel in panels
        for t in panel.get("targets", [])
    }
    for name, value in {"$__rate_interval": "1m", "$namespace": "vision", "$release": ""}.items():
        found = {key: query.replace(name, value) for key, query in found.items()}
    return found


def the_one_of(found: dict[tuple[str, str], str], title: str, *parts: str) -> str:
    """The query of a panel that names all of these."""
    (query,) = [q for (panel, legend), q in found.items() if panel == title and all(p in legend + q for p in parts)]
    return query


@pytest.mark.parametrize("of", FILES)
def test_no_query_counts_a_probe_of_tensorflow_serving(of):
    """It counts questions for a model: in request_count, and in latencies with an empty label API."""
    found = queries(of).values()
    selectors = [s for query in found for s in re.findall(rf"{TF}request_latency_\w+(\{{[^}}]*\}})?", query)]
    assert len(selectors) >= 4
    assert all('API!=""' in selector for selector in selectors)
    assert not any(f"{TF}request_count" in query for query in found)


@pytest.mark.parametrize("of", FILES)
def test_every_mean_of_torchserve_is_over_the_requests_that_have_a_time(of):
    means = [q for q in queries(of).values() if re.search(r"ts_\w+_microseconds.* / .*ts_inference_requests_total", q)]
    assert means and all("Requests5XX" in query for query in means)


MEAN = {
    "chart": ("Mean latency in the server", "ts_inference_latency"),
    "compose": ("TorchServe: time of a REST request, mean", "ts_inference_latency"),
}


@pytest.mark.parametrize("of", FILES)
def test_a_handler_that_raises_for_every_other_request_halves_no_mean(of, tmp_path):
    """10 of 20 requests a second take 508 ms, and 10 raise: counted, answered with 503, without a time."""
    labels, own = WHERE[of]
    query = the_one_of(queries(of), *MEAN[of])
    fine = {("ts_inference_requests_total", own): 10, ("ts_inference_latency_microseconds", own): 10 * 508_000}
    assert evaluate(query, labels, fine, tmp_path) == pytest.approx(0.508)
    raising = fine | {("ts_inference_requests_total", own): 20, ("Requests5XX", own): 10}
    assert evaluate(query, labels, raising, tmp_path) == pytest.approx(0.508)


def tensorflow(own: str, queued: bool) -> dict[tuple[str, str], float]:
    """10 requests of 5 ms a second, 4 ms of them in the runtime, of which 1 ms is the wait for a batch; 2 probes."""
    api, probe = f'{own},API="Predict"', f'{own},API=""'
    rates = {
        (f"{TF}request_latency_sum", api): 50_000,
        (f"{TF}request_latency_count", api): 10,
        (f"{TF}request_latency_sum", probe): 2_000,
        (f"{TF}request_latency_count", probe): 2,
        (f"{TF}runtime_latency_sum", api): 40_000,
        (f"{TF}runtime_latency_count", api): 10,
    }
    waits = {
        (f"{TF}batching_session:queuing_latency_{part}", own): rate for part, rate in (("sum", 10_000), ("count", 10))
    }
    return rates | (waits if queued else {})


@pytest.mark.parametrize(
    ("of", "title", "parts", "value"),
    [
        ("chart", "Requests a replica", (TF,), 10),
        ("chart", "Requests in flight a replica", (TF,), 0.05),
        ("chart", "Requests queued a replica", (TF,), 0.01),
        ("chart", "Mean latency in the server", (TF,), 0.005),
        ("compose", "TensorFlow Serving and savedmodel: time of a request", ("}} meanA",), 0.005),
        ("compose", "TensorFlow Serving and savedmodel: time of a request", ("inference",), 0.003),
        ("compose", "TensorFlow Serving and savedmodel: time of a request", ("wait for a batch",), 0.001),
        ("compose", "Requests by replica, as the engines count them", (TF,), 10),
    ],
)
def test_panels_of_the_tensorflow_servers_show_what_was_answered(of, title, parts, value, tmp_path):
    own = 'namespace="vision",pod="a"' if of == "chart" else 'instance="i",job="tfserving"'
    labels = {"chart": '{pod="a"}', "compose": '{job="tfserving"}'}[of]
    labels = '{instance="i", job="tfserving"}' if "by replica" in title else labels
    query = the_one_of(queries(of), title, *parts)
    assert evaluate(query, labels, tensorflow(own, queued=True), tmp_path) == pytest.approx(value)


def test_without_batching_the_whole_runtime_is_inference(tmp_path):
    query = the_one_of(queries("compose"), "TensorFlow Serving and savedmodel: time of a request", "inference")
    counters = tensorflow('instance="i",job="tfserving"', queued=False)
    assert evaluate(query, '{job="tfserving"}', counters, tmp_path) == pytest.approx(0.004)
