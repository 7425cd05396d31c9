"""Endpoints that come and go while a load runs get requests from the moment at which they are listed, and no longer."""

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from argparse import Namespace
from concurrent import futures
from contextlib import ExitStack

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest

from loadtests.errors import LoadTestError
from loadtests.generator import endpoints_file
from loadtests.generator.addresses import resolve
from loadtests.generator.connections import PreparedRequest
from loadtests.generator.endpoints_file import EndpointsFile, Follower
from loadtests.generator.load import ROW, Target
from loadtests.generator.wire_grpc import message_bytes, request_headers
from loadtests.options import options_for, read_options
from loadtests.session import renumbered
from tests.loadtests.generator.loads import accept_all, http_target, known_server, load, outcomes, run
from tests.source_tree import ROOT

STEADY = ROOT / "loadtests" / "steady.py"
EVERY_5_MS = np.arange(0, 1_500_000_000, 5_000_000)


def made_of(target, index=0):
    return target.addresses[index], target.requests[index]


class Change:
    """Calls `relist` once, when so many requests were made; `fired` tells at which request it was asked for."""

    def __init__(self, after, *arguments):
        self.after, self.arguments, self.at_ns = after, arguments, None

    def __call__(self, generator):
        if self.at_ns is None and generator.fired >= self.after:
            generator.relist(*self.arguments)
            self.at_ns = time.monotonic_ns()


def test_a_new_endpoint_gets_its_share_and_a_removed_one_ends_what_is_under_way():
    with known_server("--fixed-ms", 30) as old, known_server("--fixed-ms", 30) as new:
        change = Change(100, [1], [made_of(http_target(new))])
        samples, _ = run(http_target(old), load(EVERY_5_MS), meanwhile=change)
    assert outcomes(samples) == {"ok": 300}
    at = samples["endpoint"]
    assert 100 <= (at == 0).sum() < 200
    last_of_old, first_of_new = samples["sent_ns"][at == 0].max(), samples["sent_ns"][at == 1].min()
    assert change.at_ns < first_of_new
    assert last_of_old < first_of_new
    assert samples["done_ns"][at == 0].max() > last_of_old + 29_000_000, "the last one was not waited for"


def test_an_endpoint_that_joins_shares_evenly_with_those_that_were_there():
    with known_server("--fixed-ms", 40) as one, known_server("--fixed-ms", 40) as two:
        samples, _ = run(http_target(one), load(EVERY_5_MS), meanwhile=Change(100, [0, 1], [made_of(http_target(two))]))
    assert outcomes(samples) == {"ok": 300}
    joined = samples["sent_ns"] > samples["sent_ns"][samples["endpoint"] == 1].min()
    share = (samples["endpoint"][joined] == 1).mean()
    assert 0.4 < share < 0.6


def test_a_closed_loop_moves_to_the_endpoints_that_are_listed_and_keeps_its_number():
    with known_server("--fixed-ms", 10) as one, known_server("--fixed-ms", 10) as two:
        change = Change(60, [0, 1], [made_of(http_target(two))])
        samples, _ = run(http_target(one), load([], closed_loop=4, duration_s=1.5), meanwhile=change)
    assert set(outcomes(samples)) == {"ok"}
    joined = samples["sent_ns"] > samples["sent_ns"][samples["endpoint"] == 1].min()
    assert 0.4 < (samples["endpoint"][joined] == 1).mean() < 0.6
    events = sorted([(t, 1) for t in samples["sent_ns"]] + [(t, -1) for t in samples["done_ns"]])
    assert max(np.cumsum([change for _, change in events])) == 4
    rate = len(samples["sent_ns"][joined]) / np.ptp(samples["sent_ns"][joined]) * 1e9
    assert rate > 200, "requests of the loop were lost in the change"


def test_requests_that_wait_for_a_connection_of_a_removed_endpoint_go_to_another():
    with known_server("--fixed-ms", 400) as slow, known_server("--fixed-ms", 10) as quicker:
        change = Change(60, [1], [made_of(http_target(quicker))])
        samples, _ = run(http_target(slow), load(EVERY_5_MS, connections=1, timeout_s=30), meanwhile=change)
    assert outcomes(samples) == {"ok": 300}
    assert (samples["endpoint"] == 0).sum() <= 3
    assert set(outcomes(samples)) == {"ok"}


@pytest.mark.parametrize("fixed_ms", [1, 150])
def test_connections_of_a_removed_endpoint_are_closed_when_nothing_is_under_way(fixed_ms):
    with known_server("--fixed-ms", fixed_ms) as old, known_server("--fixed-ms", 1) as new:
        change = Change(50, [1], [made_of(http_target(new))])
        still_open = []

        def meanwhile(generator):
            change(generator)
            if change.at_ns and time.monotonic_ns() > change.at_ns + 300_000_000:
                still_open.append(len(generator._endpoints[0].open))

        run(http_target(old), load(EVERY_5_MS), meanwhile=meanwhile)
    assert still_open and set(still_open) == {0}


class _Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, _: time.sleep(0.02) or request)


@pytest.fixture
def echo():
    """A function that starts a gRPC server and returns its port."""
    with ExitStack() as stack:

        def start():
            server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[_Echo()], options=[("grpc.so_reuseport", 0)])
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            stack.callback(server.stop, None)
            return port

        yield start


def grpc_target(port):
    headers = request_headers("http", f"127.0.0.1:{port}", "/test.Service/Echo", 10)
    return Target(
        [resolve("127.0.0.1", port, None)], [[PreparedRequest(headers, message_bytes(b"hello"))]], True, accept_all
    )


@pytest.mark.parametrize("closed_loop", [0, 3])
def test_grpc_calls_move_to_the_endpoint_that_is_listed(echo, closed_loop):
    asked = load(EVERY_5_MS, connections=2, closed_loop=closed_loop, duration_s=1.5 if closed_loop else None)
    change = Change(40, [1], [made_of(grpc_target(echo()))])
    samples, _ = run(grpc_target(echo()), asked, meanwhile=change)
    assert set(outcomes(samples)) == {"ok"}
    at = samples["endpoint"]
    assert (at == 0).sum() >= 40
    assert (at == 1).sum() >= 40
    assert samples["sent_ns"][at == 0].max() < samples["sent_ns"][at == 1].min()


@pytest.fixture
def file(tmp_path):
    """A function that writes endpoints as whoever knows them does: whole, by renaming."""
    path = tmp_path / "endpoints.json"

    def write(*hosts, text=None):
        entries = [{"rest": f"http://{host}", "grpc": host, "replica": n} for n, host in enumerate(hosts)]
        (tmp_path / "new").write_text(json.dumps(entries) if text is None else text)
        (tmp_path / "new").rename(path)
        return path

    return write


@pytest.fixture
def follow(file, monkeypatch):
    """A function that starts to follow the file, with what it told since."""
    monkeypatch.setattr(endpoints_file, "LOOK_EVERY_S", 0)

    def start(*hosts, grpc=True, make=lambda name: (name, [])):
        followed = EndpointsFile(file(*hosts), grpc)
        names, told = followed.read(), []
        follower = Follower(followed, names, make, lambda listed, added: told.append((listed, [m[0] for m in added])))
        return follower, names, told

    return start


def test_indexes_stay_with_their_endpoints_whatever_comes_and_goes(follow, file):
    follower, names, told = follow("a:1", "b:2")
    follower.look()
    assert told == []
    file("b:2", "c:3")
    follower.look()
    file("a:1", "c:3", "d:4")
    follower.look()
    follower.look()
    assert told == [([1, 2], ["c:3"]), ([0, 2, 3], ["d:4"])]
    assert names == ["a:1", "b:2", "c:3", "d:4"]


def test_rest_s_addresses_are_told_apart_from_grpc_s(follow, file):
    follower, names, told = follow("a:1", grpc=False)
    file("a:1", "b:2")
    follower.look()
    assert names == ["http://a:1", "http://b:2"]
    assert told == [([0, 1], ["http://b:2"])]


@pytest.mark.parametrize("text", ["[", "{}", '[{"rest": "http://c:3"}]', "[7]"])
def test_a_file_with_a_fault_changes_nothing_and_is_told_once(text, follow, file, caplog):
    follower, _, told = follow("a:1")
    file(text=text)
    with caplog.at_level(logging.WARNING):
        follower.look()
        follower.look()
    assert told == []
    assert [record.name for record in caplog.records].count("servestorm") == 1
    assert "The endpoints stay as they were." in caplog.text
    file("b:2")
    follower.look()
    assert told == [([1], ["b:2"])]


def test_a_file_that_is_gone_or_lists_nothing_changes_nothing(follow, file, caplog):
    follower, _, told = follow("a:1")
    path = file()
    follower.look()
    path.unlink()
    with caplog.at_level(logging.WARNING):
        follower.look()
        follower.look()
    assert told == []
    assert [record.name for record in caplog.records].count("servestorm") == 1
    file("a:1", "b:2")
    follower.look()
    assert told == [([0, 1], ["b:2"])]


def test_an_endpoint_that_does_not_resolve_is_left_out_until_it_does(follow, file):
    known = {"a:1", "b:2"}

    def make(name):
        if name not in known:
            raise LoadTestError(f"host {name} does not resolve.")
        return name, []

    follower, names, told = follow("a:1", make=make)
    file("a:1", "c:3", "b:2")
    follower.look()
    assert told == [([0, 1], ["b:2"])]
    known.add("c:3")
    file("c:3")
    follower.look()
    assert told[1:] == [([2], ["c:3"])]
    assert names == ["a:1", "b:2", "c:3"]


def options(**changes):
    namespace = Namespace(**{option.dest: option.default for option in options_for("constant")}, host=None)
    vars(namespace).update(changes)
    return namespace


def test_the_file_stands_in_place_of_a_host(file):
    path = str(file("a:1", "b:2", "a:1"))
    assert read_options(options(endpoints_file=path)).hosts == ["http://a:1", "http://b:2"]
    assert read_options(options(endpoints_file=path, protocol="grpc")).hosts == ["a:1", "b:2"]


@pytest.mark.parametrize(
    ("text", "changes", "sentence"),
    [
        ("[]", {}, "lists no endpoint"),
        ("[", {}, "is not JSON"),
        ('{"rest": "http://a:1"}', {}, "is not a JSON list of endpoints"),
        ('[{"rest": "http://a:1"}]', {"protocol": "grpc"}, 'endpoint 1 in .* has no "grpc"'),
        ('[{"rest": "http://a:1/p"}]', {}, "endpoint 1 in .* has a path"),
        ('[{"rest": "http://a:1"}]', {"host": "http://b:2"}, "leave --host and --grpc-target out"),
    ],
)
def test_a_load_does_not_begin_with_endpoints_that_it_cannot_know(text, changes, sentence, file):
    with pytest.raises(LoadTestError, match=sentence):
        read_options(options(endpoints_file=str(file(text=text)), **changes))


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(LoadTestError, match=r"--endpoints-file /nowhere/x\.json cannot be read: No such file"):
        read_options(options(endpoints_file="/nowhere/x.json"))


def test_a_worker_s_order_of_endpoints_becomes_the_master_s():
    ours, at = ["a", "b"], ROW.index("endpoint")
    rows = np.zeros((4, len(ROW)), np.int64)
    rows[:, at] = [0, 1, 2, 2]
    assert renumbered(rows, ["a", "c", "b"], ours)[:, at].tolist() == [0, 2, 1, 1]
    assert ours == ["a", "b", "c"]
    assert renumbered(rows, ["a", "b", "c"], ours)[:, at].tolist() == [0, 1, 2, 2]
    assert rows[:, at].tolist() == [0, 1, 2, 2], "the rows that came are read-only"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_load_follows_the_file_while_it_runs_and_tells_every_endpoint(workers, file, tmp_path):
    with known_server("--fixed-ms", 5) as one, known_server("--fixed-ms", 5) as two:
        path = file(f"127.0.0.1:{one}")
        command = [sys.executable, "-m", "locust", "-f", STEADY, "--headless", "--only-summary", "--engine", "http"]
        command += ["--rate", 60, "--duration", 8, "--warmup", 0, "--keep-awake", "off"]
        command += ["--endpoints-file", path, "--out", tmp_path / "out"]
        if workers:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            command += ["--processes", workers, "--master-bind-port", port, "--master-port", port]
        process = subprocess.Popen(
            [*map(str, command)], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            parts = tmp_path / "out" / "samples.parts"
            until = time.monotonic() + 60
            while not list(parts.glob("*.parquet")):
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() < until
                time.sleep(0.05)
            file(f"127.0.0.1:{two}")
            output, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    samples = pq.read_table(tmp_path / "out" / "samples.parquet")
    assert summary["ok"] == summary["scheduled"] == 480, output
    assert summary["endpoints"] == [f"http://127.0.0.1:{one}", f"http://127.0.0.1:{two}"]
    assert set(np.unique(samples["endpoint"].to_numpy())) == {0, 1}


def test_changes_may_be_told_from_any_thread():
    with known_server("--fixed-ms", 2) as one, known_server("--fixed-ms", 2) as two:
        generators = []

        def flip():
            for turn in range(60):
                for generator in generators:
                    generator.relist([turn % 2])
                time.sleep(0.02)

        thread = threading.Thread(target=flip)

        def meanwhile(generator):
            if not generators:
                generators.append(generator)
                thread.start()

        samples, _ = run(http_target(one, two), load(EVERY_5_MS), meanwhile=meanwhile)
        thread.join()
    assert outcomes(samples) == {"ok": 300}
    assert set(samples["endpoint"].tolist()) == {0, 1}
