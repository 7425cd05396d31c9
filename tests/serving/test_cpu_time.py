"""The CPU time of server processes, fine enough for a slice of load."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from serving import processes

BURN = """
import sys, threading, time

def burn():
    end = time.thread_time_ns() + 3_000_000
    while time.thread_time_ns() < end:
        pass

for _ in range(5):
    thread = threading.Thread(target=burn)
    thread.start()
    thread.join()
print(time.process_time_ns(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def burnt():
    """A process that waits, and the CPU time that it had used shortly before by its own clock, ns."""
    with subprocess.Popen([sys.executable, "-S", "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield psutil.Process(process.pid), int(process.stdout.readline())
        process.stdin.close()


def test_cpu_time_is_no_less_than_the_process_has_used_threads_that_have_ended_included(burnt):
    process, used_ns = burnt
    assert processes.usage([process]).cpu_s >= used_ns / 1e9


def test_where_the_kernel_has_no_such_clock_ticks_stand_in(burnt, monkeypatch):
    def no_clock(clock):
        raise OSError

    process, _ = burnt
    monkeypatch.setattr(processes.time, "clock_gettime_ns", no_clock)
    times = process.cpu_times()
    assert processes.usage([process]).cpu_s == times.user + times.system
