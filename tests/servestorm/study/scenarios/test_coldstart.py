"""The ledger of a cold start, against servers whose phases are programmed and against real pages of metrics."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from models.manifest import ModelDir
from servestorm.analysis.scenarios.coldstart import ledger, own_figures, steady_ns
from servestorm.errors import StudyEnvironmentError
from servestorm.rundir.shapes.cell import EventFile
from servestorm.study import page_cache
from servestorm.study.page_cache import drop_page_cache, files_of_start
from servestorm.study.scenarios.coldstart import settle
from serving.backend import DeploymentOrder
from serving.backends import ProcessBackend
from serving.deployment import Batching, Budget, Endpoint, EventLog, Launch
from serving.errors import DeploymentError
from serving.ports import HOST, free_ports
from serving.probe import first_answer, http_get
from serving.wire import WIRES
from tests.stand_ins import delayed_server
from tests.stand_ins.toy_engine import write_toy_model

DELAYS = ("0.1", "0.1", "0.1")


class DelayedEngine:
    """Runs delayed_server.py."""

    name, artifact = "delayed", "mar"

    def __init__(self, stamps, slow=0, slow_ms=0, fast_ms=0):
        self.program = [str(stamps), *DELAYS, str(slow), str(slow_ms), str(fast_ms)]

    def check(self):
        return "delayed 1"

    def launch(self, model, replica, budget, batching, workdir, port):
        (port,) = free_ports(1)
        url = f"http://{HOST}:{port}"
        return Launch(
            command=[sys.executable, "-S", delayed_server.__file__, str(port), *self.program],
            env={},
            endpoint=Endpoint(replica, url, f"{HOST}:{port}", f"{url}/metrics"),
            workdir=workdir,
            ports=(port,),
        )

    def ready(self, endpoint, model):
        return http_get(f"{endpoint.rest_url}/ready") == (200, b"ready")


@pytest.fixture
def model(tmp_path) -> ModelDir:
    return ModelDir(write_toy_model(tmp_path / "toy"))


@pytest.fixture
def serve(model):
    """An endpoint of delayed_server's handler in a thread, with its stamps set: no start to wait for."""
    servers = []

    def start(slow=0, slow_ms=0.0, fast_ms=0.0, right=True):
        server = delayed_server.http.server.ThreadingHTTPServer((HOST, 0), delayed_server.Handler)
        server.slow, server.slow_ms, server.fast_ms, server.answers = slow, slow_ms, fast_ms, 1
        server.stamps = {"ready": 0, "right": 0} if right else {"ready": 0}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        url = f"http://{HOST}:{server.server_address[1]}"
        return Endpoint(0, url, url, url)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def event(name, t_ns, replica=0):
    return EventFile(name=name, t_ns=t_ns, replica=replica, detail="")


def test_no_phase_ends_before_the_server_says_that_it_did(model, tmp_path):
    stamps, events = tmp_path / "stamps.json", EventLog()
    engine = DelayedEngine(stamps, slow=20, slow_ms=20, fast_ms=1)
    budget = Budget(cpus=(0,))
    with ProcessBackend().start(
        DeploymentOrder(
            engine, model, replicas=1, budget=budget, batching=Batching(), workdir=tmp_path / "work", events=events
        )
    ) as deployment:
        deployment.wait_ready(30)
        endpoint, wire = deployment.endpoints[0], WIRES["torchserve"]
        events.add("first_right_answer", 0, t_ns=first_answer(endpoint, wire, model, timeout_s=30))
        answers = settle(endpoint, wire, model, most_requests=100)
    times = {e.name: e.t_ns for e in events.events}
    server = json.loads(stamps.read_text())
    assert times["spawned"] < server["began"]
    assert server["bound"] < times["port_bound"] and server["ready"] < times["ready"]
    assert server["right"] < times["first_right_answer"] < answers[0][0]
    assert len(answers) == 100
    assert all(latency_ms >= 20 for _, latency_ms in answers[:20])


def test_the_first_steady_answer_is_the_event():
    answers = [(1_000 + n, 9.0 if n < 30 else 2.0) for n in range(200)]
    assert steady_ns(answers) == 1_030
    assert steady_ns(answers[:49]) is None  # too few steady ones


def test_the_ledger_gives_each_phase_and_the_sums_of_the_first_replica():
    events = [
        event("start", 0, None),
        event("spawned", 500_000_000, 1),
        event("spawned", 1_000_000_000),
        event("port_bound", 2_000_000_000),
        event("port_bound", 9_000_000_000, 1),
        event("ready", 4_000_000_000),
        event("first_right_answer", 4_500_000_000),
        event("steady", 6_500_000_000),
    ]
    assert ledger(events, {"load_s": 1.25, "warmup_s": None}) == {
        "port_bound_s": 1.0,
        "ready_s": 2.0,
        "first_right_answer_s": 0.5,
        "steady_s": 2.0,
        "total_s": 3.5,
        "to_steady_s": 5.5,
        "deployment_s": 4.5,
        "server_load_s": 1.25,
        "server_warmup_s": None,
    }


def test_a_phase_whose_event_never_came_is_none_and_not_nothing():
    found = ledger([event("spawned", 0), event("ready", 10**9), event("first_right_answer", 2 * 10**9)], {})
    assert found["port_bound_s"] is None and found["ready_s"] is None and found["steady_s"] is None
    assert found["deployment_s"] is None
    assert found["first_right_answer_s"] == 1.0 and found["total_s"] == 2.0


def test_torchserve_tells_its_worker_load_time():
    found = own_figures("torchserve", [("WorkerLoadTime", 3210.0), ("QueueTime", 4.0)], "")
    assert found == {"import_s": None, "load_s": 3.21, "warmup_s": None}


SAVEDMODEL = [
    (":tensorflow:cc:saved_model:load_latency", 900_000.0),
    (":tensorflow:serving:model_warmup_latency_sum", 300_000.0),
]


def test_the_embedded_server_counts_warm_up_into_its_load_and_tensorflow_serving_does_not():
    log = "1 INFO event=tensorflow_imported seconds=2.345\n"
    embedded = own_figures("savedmodel", SAVEDMODEL, log)
    assert embedded == pytest.approx({"import_s": 2.345, "load_s": 0.6, "warmup_s": 0.3})
    parsed = [(f"{SAVEDMODEL[0][0]}_total", SAVEDMODEL[0][1]), SAVEDMODEL[1]]  # as the built-in scraper has it
    assert own_figures("savedmodel", parsed, log) == embedded
    real = own_figures("tfserving", SAVEDMODEL, "")
    assert real["import_s"] is None
    assert (real["load_s"], real["warmup_s"]) == pytest.approx((0.9, 0.3))


def test_a_server_that_says_nothing_gives_none():
    for engine in ("torchserve", "savedmodel", "tfserving"):
        assert set(own_figures(engine, [], "").values()) == {None}


def test_settling_ends_with_the_time_it_was_given(serve, model):
    assert len(settle(serve(fast_ms=20), WIRES["torchserve"], model, most_s=0.1)) <= 6


def test_a_wrong_answer_after_the_first_right_one_is_an_error(serve, model):
    with pytest.raises(DeploymentError, match="a wrong answer after its first right"):
        settle(serve(right=False), WIRES["torchserve"], model)


def test_a_server_that_went_away_is_an_error_and_not_a_short_list(model):
    (port,) = free_ports(1)
    gone = Endpoint(0, f"http://{HOST}:{port}", "", "")
    with pytest.raises(DeploymentError, match="gave no answer after its first right one"):
        settle(gone, WIRES["torchserve"], model)


@pytest.fixture
def on_disk():
    """A folder on a real file system: what lies in memory only has no page cache to drop."""
    # of this test alone: another worker may run another test of this file at the same time
    with tempfile.TemporaryDirectory(prefix=".cold-", dir=Path(__file__).parent) as folder:
        yield Path(folder)


def test_files_are_dropped_from_the_page_cache(on_disk):
    (on_disk / "weights").write_bytes(bytes(4_000_000))
    (on_disk / "empty").write_bytes(b"")
    assert page_cache._cached_bytes(on_disk / "weights") == 4_000_000
    found = drop_page_cache([on_disk, on_disk / "weights"], drop_caches=on_disk / "no-such/drop_caches")
    assert (found.method, found.files, found.size_bytes) == ("posix_fadvise", 2, 4_000_000)
    assert found.cached_bytes == page_cache._cached_bytes(on_disk / "weights") == 0
    assert "2 files were dropped" in found.sentence


def test_a_page_cache_that_cannot_be_dropped_is_told_with_the_remedy(on_disk, monkeypatch):
    (on_disk / "weights").write_bytes(bytes(4_000_000))
    monkeypatch.setattr(page_cache, "_evict", lambda _: None)
    with pytest.raises(StudyEnvironmentError, match=r"still holds 4 of 4 MiB.*run as root"):
        drop_page_cache([on_disk], drop_caches=on_disk / "no-such" / "drop_caches")


def test_what_a_cold_start_reads_names_the_artifact_and_the_servers_packages(tmp_path):
    names = {path.name for path in files_of_start("torchserve", tmp_path)}
    assert {"ts", "torch", tmp_path.name} <= names and "tensorflow" not in names
    assert "tensorflow" in {path.name for path in files_of_start("savedmodel", tmp_path)}
