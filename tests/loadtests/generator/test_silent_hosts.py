"""A host that goes silent in the middle of a load: its connections are left, over gRPC as over HTTP/1.1."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter

import pytest

from loadtests.generator import jobs
from loadtests.generator.addresses import resolve
from loadtests.generator.connections import PreparedRequest
from loadtests.generator.load import Target
from loadtests.generator.wire_grpc import message_bytes, request_headers
from loadtests.generator.wire_http1 import request_bytes
from tests.requirements_here import lacking
from tests.source_tree import ROOT, STAND_INS, TESTS
from tests.stand_ins.forgetful_proxy import ForgetfulProxy

from .loads import accept_all, load, run

EVERY_10_MS = range(0, 3_000_000_000, 10_000_000)
BOTH = pytest.mark.parametrize("protocol", ["rest", "grpc"])


@pytest.fixture
def answering():
    """The process of a server, its REST port and its gRPC port."""
    process = subprocess.Popen([sys.executable, TESTS / "core" / "answering_server.py"], stdout=subprocess.PIPE)
    rest, grpc = map(int, process.stdout.readline().split())
    yield process, {"rest": rest, "grpc": grpc}
    process.kill()
    process.wait()


def target(protocol, port):
    if protocol == "grpc":
        headers = request_headers("http", "test", "/test.Service/Call", 10)
        request = PreparedRequest(headers, message_bytes(b"x"))
    else:
        request = PreparedRequest(request_bytes("POST", "/", "test", "image/png", b"x"))
    return Target([resolve("127.0.0.1", port, None)], [[request]], protocol == "grpc", accept_all)


def in_order(samples):
    return [jobs.OUTCOMES[outcome] for outcome in samples["outcome"][samples["scheduled_ns"].argsort()]]


@BOTH
def test_requests_go_on_over_another_connection_where_one_went_silent(answering, protocol):
    _, ports = answering
    proxy = ForgetfulProxy(ports[protocol])
    forgotten = []

    def forget(generator):
        if generator.fired >= 50 and not forgotten:
            forgotten.append(proxy.accepted)
            proxy.forget()

    try:
        asked = load(EVERY_10_MS, timeout_s=0.3, connections=1)
        samples, _ = run(target(protocol, proxy.port), asked, meanwhile=forget)
    finally:
        proxy.close()
    found = in_order(samples)
    assert forgotten == [1] and proxy.accepted >= 2
    assert found[:40] == ["ok"] * 40 and found[-100:] == ["ok"] * 100
    assert set(found) == {"ok", "timeout"}, Counter(found)


@BOTH
def test_what_is_under_way_on_a_connection_that_is_left_may_still_be_answered(answering, protocol):
    """A process that was stopped answers all that came meanwhile: nothing but what had timed out is lost."""
    process, ports = answering
    signals = [signal.SIGSTOP, signal.SIGCONT]

    def stop(generator):
        if (signals[:1] == [signal.SIGSTOP] and generator.fired >= 50) or (
            signals[:1] == [signal.SIGCONT] and generator.reasons["timeout"] >= 1
        ):
            os.kill(process.pid, signals.pop(0))

    samples, _ = run(target(protocol, ports[protocol]), load(EVERY_10_MS, timeout_s=1.0), meanwhile=stop)
    found = in_order(samples)
    assert not signals
    assert found[-50:] == ["ok"] * 50
    assert set(found) == {"ok", "timeout"}, Counter(found)


@BOTH
def test_requests_are_answered_again_when_the_packets_of_a_host_come_back(protocol):
    namespaces = ["unshare", "--map-root-user", "--net"]
    if not (shutil.which("nsenter") and shutil.which("ip") and shutil.which("unshare")):
        lacking("namespaces", "ip, nsenter and unshare are not on the PATH")
    if subprocess.run([*namespaces, "ip", "link"], check=False, capture_output=True).returncode:
        lacking("namespaces", "this user may not make network namespaces")
    done = subprocess.run(
        [*namespaces, sys.executable, STAND_INS / "vanishing_host.py", protocol],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.count("timeout") > 50, "the host was not silent"
    assert found[-100:] == ["ok"] * 100
    assert set(found) == {"ok", "timeout"}, Counter(found)
