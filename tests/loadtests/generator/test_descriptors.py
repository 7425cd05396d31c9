"""Too few file descriptors: refused before the load where it can be known, and else a failure of its own."""

import argparse
import errno
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from loadtests.generator import connections, descriptors, jobs
from loadtests.options import options_for, read_options
from loadtests.samples.validity import generator_at_fault, servers_overloaded
from loadtests.session import Collector, SessionEnd, prepare
from serving.socket_errors import TOO_FEW_DESCRIPTORS
from tests.loadtests.generator.loads import http_target, known_server, load, outcomes, run
from tests.loadtests.locust_side.locust_processes import LocustProcess
from tests.source_tree import ROOT

EVERY_5_MS = np.arange(0, 1_000_000_000, 5_000_000)

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
del sys.argv[1:3]
from locust.main import main
main()
"""


def limited_locust(soft, hard, *arguments, cwd):
    """Exit code and output of a load in a process that may open so many files."""
    command = ["-c", LIMITED, str(soft), str(hard), "-f", str(ROOT / "loadtests" / "steady.py"), "--headless"]
    process = LocustProcess([*command, *map(str, arguments)], cwd)
    output, _ = process.communicate(timeout=200)
    return process.returncode, output


def test_more_connections_than_the_hard_limit_has_descriptors_for_are_refused(tmp_path):
    with known_server("--fixed-ms", 1) as port:
        hosts = f"http://127.0.0.1:{port},http://localhost:{port}"
        arguments = ["--host", hosts, "--engine", "http", "--duration", 1, "--warmup", 0, "--connections", 300]
        code, output = limited_locust(150, 400, *arguments, "--out", tmp_path / "out", cwd=tmp_path)
    assert code == 3, output
    assert "300 connections to 2 endpoints need 6" in output
    assert "this process may have 400: raise the hard limit (ulimit -n 6" in output
    assert "Traceback" not in output


def test_a_low_soft_limit_is_raised_by_the_load_itself(tmp_path):
    with known_server("--fixed-ms", 400) as port:
        arguments = ["--host", f"http://127.0.0.1:{port}", "--engine", "http", "--rate", 200, "--duration", 2]
        arguments += ["--warmup", 0, "--connections", 300, "--timeout", 60, "--out", tmp_path / "out"]
        _, output = limited_locust(100, 500, *arguments, cwd=tmp_path)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["ok"], summary["errors"]) == (400, {}), output


FEW = """
import json, resource, sys
from pathlib import Path
from loadtests.arrivals.measured_time import ALWAYS
from loadtests.samples.recorder import SampleWriter, rows_of
from tests.loadtests.generator.loads import http_target, load, outcomes, run
import numpy as np
port, folder = int(sys.argv[1]), Path(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
writer, parts = SampleWriter(folder, 1), []

def write(generator):
    parts.extend(generator.chunks)
    while generator.chunks:
        writer.add(rows_of(generator.chunks.popleft()))
    writer.flush(ALWAYS)

asked = load(np.arange(0, 1_000_000_000, 2_000_000), timeout_s=60)
_, generator = run(http_target(port), asked, meanwhile=write)
write(generator)
writer.close(ALWAYS)
print(json.dumps(dict(generator.reasons)))
"""


def test_a_load_that_runs_out_of_descriptors_counts_it_and_writes_every_sample(tmp_path):
    with known_server("--fixed-ms", 400) as port:
        command = [sys.executable, "-c", FEW, str(port), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    reasons = json.loads(done.stdout)
    samples = pq.read_table(tmp_path / "samples.parquet")
    found = samples["outcome"].to_pylist()
    assert len(found) == 500
    assert set(found) == {"ok", "connection_error"}
    assert reasons == {TOO_FEW_DESCRIPTORS: found.count("connection_error")}
    assert found.count("ok") > 20  # a connection each of what is not reserved


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENETUNREACH, errno.EADDRNOTAVAIL])
@pytest.mark.parametrize("closed_loop", [0, 3])
def test_a_socket_that_cannot_be_opened_is_one_failure_and_one_sample(code, closed_loop, monkeypatch):
    def refuse(_family, _address):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(connections, "open_socket", refuse)
    asked = load(EVERY_5_MS[:40], closed_loop=closed_loop, duration_s=0.3)
    samples, generator = run(http_target(1), asked)
    found = outcomes(samples)
    assert set(found) == {"connection_error"}
    assert found["connection_error"] == 40 if not closed_loop else found["connection_error"] >= 3
    assert sum(generator.reasons.values()) == found["connection_error"]
    assert (samples["sent_ns"] == jobs.NEVER).all()
    assert (samples["done_ns"] >= samples["scheduled_ns"]).all()
    assert len(generator.reasons) == 1


def options(*arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="http://127.0.0.1:9")
    for option in options_for("constant"):
        option.add_to(parser)
    return read_options(parser.parse_args(["--engine", "http", "--warmup", "0", *map(str, arguments)]))


def test_requests_without_a_descriptor_are_the_generator_s_fault_and_not_the_server_s():
    collector = Collector(prepare(options()), lambda: 1)
    summary = collector.finish([SessionEnd({TOO_FEW_DESCRIPTORS: 7}, None)], [])
    assert "the generator had no file descriptor left for 7 requests: raise ulimit -n" in summary.reasons
    assert not summary.valid
    assert not servers_overloaded(summary.reasons)
    assert generator_at_fault([summary.reasons[0]])


@pytest.mark.parametrize(
    ("arguments", "each"),
    [
        ([], 1000),
        (["--max-in-flight", 30], 30),
        (["--connections", 8], 8),
        (["--closed-loop", 5, "--connections", 100], 5),
        (["--give-up-in-flight", 12], 12),
    ],
)
def test_a_load_needs_no_more_connections_than_it_has_requests_under_way(arguments, each):
    assert descriptors.connections_an_endpoint(prepare(options(*arguments)).load) == each
