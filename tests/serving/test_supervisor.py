"""The process beside a study that ends what the study started, however the study ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from serving import supervisor_process
from serving.supervisor import _Supervisor

VARIABLE = "SERVESTORM_TEST_OWNER"
TAG = f"{os.getpid()}:1"
"""Of this process alone: others may run the same tests."""
SLEEP = [sys.executable, "-S", "-c", "import time; print(flush=True); time.sleep(600)"]
WITH_NAMELESS_CHILD = f"""
import subprocess, sys, time
child = subprocess.Popen({SLEEP!r}, env={{}}, stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def server():
    """A process with the tag TAG, and the pid of its child, in whose environment there is none."""
    command = [sys.executable, "-S", "-c", WITH_NAMELESS_CHILD]
    with subprocess.Popen(command, env={VARIABLE: TAG}, stdout=subprocess.PIPE, text=True) as process:
        yield process, int(process.stdout.readline())
        process.kill()


@pytest.fixture
def other():
    with subprocess.Popen(SLEEP, env={VARIABLE: f"{TAG}2"}, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture
def supervise(tmp_path):
    """A supervisor of the owner TAG, by its standard input."""
    program = [sys.executable, "-I", "-S", supervisor_process.__file__, VARIABLE, TAG, f"{tmp_path}/scratch-1-"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield process


def test_it_ends_a_family_with_members_that_carry_no_tag_and_nobody_else(server, other, supervise, tmp_path):
    process, child = server
    for name in ("scratch-1-a", "scratch-12-a"):
        (tmp_path / name).mkdir()
    supervise.stdin.close()
    assert supervise.wait(60) == 0
    assert process.wait(60) == -9
    assert not runs(child)
    assert other.poll() is None
    assert [path.name for path in tmp_path.iterdir()] == ["scratch-12-a"]


def test_it_ends_a_family_where_the_kernel_gives_no_handles(server, monkeypatch):
    process, child = server
    monkeypatch.setattr(supervisor_process.os, "pidfd_open", refused)
    assert supervisor_process.kill_family(f"{VARIABLE}={TAG}".encode()) == 2
    assert process.wait(60) == -9
    while runs(child):
        time.sleep(0.01)


def refused(_pid):
    raise PermissionError(1, "Operation not permitted")


def test_it_does_nothing_while_its_owner_lives(server, supervise):
    process, child = server
    time.sleep(0.2)
    assert runs(process.pid) and runs(child) and supervise.poll() is None


def test_it_ends_at_once_where_everything_was_ended(supervise):
    supervise.stdin.write(supervisor_process.ALL_ENDED)
    supervise.stdin.close()
    assert supervise.wait(60) == 0


def test_it_ends_what_was_forgotten_by_an_owner_that_ends_by_itself(server, supervise):
    process, child = server
    supervise.stdin.write(supervisor_process.ALL_ENDED)
    supervise.stdin.close()
    assert supervise.wait(60) == 0
    assert process.wait(60) == -9 and not runs(child)


def test_it_ignores_what_would_end_it_before_its_owner(supervise):
    for number in (1, 2, 15):
        os.kill(supervise.pid, number)
    supervise.stdin.write(supervisor_process.ALL_ENDED)
    supervise.stdin.close()
    assert supervise.wait(60) == 0


def test_one_is_started_once_and_again_where_it_has_ended():
    supervisor = _Supervisor()
    supervisor.start()
    first = supervisor._process
    supervisor.start()
    assert supervisor._process is first
    first.kill()
    first.wait()
    supervisor.start()
    assert supervisor._process is not first and supervisor._process.poll() is None
    last = supervisor._process
    supervisor.end()
    assert last.returncode == 0


def test_it_imports_nothing_but_what_is_there_and_is_no_parent_of_what_it_watches(supervise):
    """It must start in milliseconds, and a server's start must not pass through it."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import supervisor_process; print(*sorted(sys.modules))"
    folder = os.path.dirname(supervisor_process.__file__)  # noqa: PTH120
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, folder], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    assert {"pathlib", "subprocess", "re", "psutil", "shutil"}.isdisjoint(told)
    assert psutil.Process(supervise.pid).children() == []
