"""Small loads against servers of known behaviour, for the tests beside this file."""

import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np

from loadtests.arrivals.blocks import RecordedSchedule
from loadtests.generator import jobs
from loadtests.generator.addresses import resolve
from loadtests.generator.connections import PreparedRequest
from loadtests.generator.generator import Generator
from loadtests.generator.load import ROW, LoadSpec, Target
from loadtests.generator.wire_http1 import request_bytes
from loadtests.samples.recorder import rows_of
from tests.source_tree import STAND_INS

KNOWN_SERVER = STAND_INS / "known_server.py"


@contextmanager
def known_server(*arguments):
    """Port of a known server that runs while the block does."""
    process = subprocess.Popen([sys.executable, KNOWN_SERVER, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline().split()[0])
    finally:
        process.kill()
        process.wait()


def accept_all(_image, _body):
    return jobs.OK, jobs.UNCHECKED, ""


def http_target(*ports, check=accept_all, body=b"", host="127.0.0.1", tls=None):
    requests = [[PreparedRequest(request_bytes("POST", "/", "test", "image/png", body))] for _ in ports]
    return Target([resolve(host, port, tls) for port in ports], requests, False, check)


def load(schedule, *, timeout_s=5.0, max_in_flight=1000, connections=1000, closed_loop=0, duration_s=None, **more):
    schedule = np.asarray(schedule, np.int64)
    duration_ns = int(duration_s * 1e9) if duration_s else int(schedule[-1]) + 1
    recorded = RecordedSchedule(schedule)
    return LoadSpec(recorded, duration_ns, int(timeout_s * 1e9), max_in_flight, connections, closed_loop, **more)


def run(target, asked, limit_s=30.0, meanwhile=lambda generator: None, **start):
    """Samples by column name, after the load has ended, and the generator."""
    generator = Generator(target, asked, **start)
    generator.start()
    until = time.monotonic() + limit_s
    while not generator.finished:
        assert time.monotonic() < until, "the generator hangs"
        meanwhile(generator)
        time.sleep(0.01)
    if generator.crash is not None:
        raise generator.crash
    rows = (
        np.concatenate([rows_of(chunk) for chunk in generator.chunks]) if generator.chunks else np.empty((0, len(ROW)))
    )
    return {name: rows[:, i] for i, name in enumerate(ROW)}, generator


def outcomes(samples):
    names, counts = np.unique(samples["outcome"], return_counts=True)
    return {jobs.OUTCOMES[int(name)]: int(count) for name, count in zip(names, counts, strict=True)}
