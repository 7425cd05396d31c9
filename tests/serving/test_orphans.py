"""What a killed study left behind ends by itself, or with the next command, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serving import orphans, processes
from serving.orphans import OWNER_VARIABLE, owner_tag, reap_orphans
from tests.source_tree import STAND_INS

pytestmark = pytest.mark.alone


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def owner(tmp_path):
    """A running study (its Popen), the pids of its server's family, and its scratch folder."""
    script = STAND_INS / "orphan_owner.py"
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), "family"], stdout=subprocess.PIPE, text=True
    ) as study:
        *pids, scratch = study.stdout.readline().split()
        yield study, [int(pid) for pid in pids], Path(scratch)
        study.kill()
    reap_orphans()


@pytest.fixture
def sleeper():
    """Starts a sleeping process with the given owner's tag."""
    started = []

    def start(tag: str | None):
        env = {**os.environ, **({OWNER_VARIABLE: tag} if tag else {})}
        started.append(subprocess.Popen([sys.executable, "-c", "print(); import time; time.sleep(600)"],
                                        env=env, stdout=subprocess.PIPE))  # fmt: skip
        started[-1].stdout.readline()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def supervisor_of(study: subprocess.Popen) -> psutil.Process:
    children = psutil.Process(study.pid).children()
    (supervisor,) = [child for child in children if "supervisor_process.py" in " ".join(child.cmdline())]
    return supervisor


def kill_with_supervisor(study: subprocess.Popen) -> None:
    supervisor = supervisor_of(study)
    supervisor.kill()
    until(lambda: not runs(supervisor.pid))
    study.kill()


def until(condition) -> None:
    """Wait for an event that must come."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "the awaited event did not come"
        time.sleep(0.01)


def test_servers_of_a_study_killed_with_sigkill_end_by_themselves(owner):
    study, pids, scratch = owner
    assert all(map(runs, pids)) and scratch.is_dir()
    supervisor = supervisor_of(study)
    study.kill()
    study.wait()
    until(lambda: not runs(supervisor.pid))
    assert not any(map(runs, pids))
    assert not scratch.exists()


def test_they_end_with_the_next_command_where_their_supervisor_was_killed_too(owner):
    study, pids, scratch = owner
    kill_with_supervisor(study)
    study.wait()
    assert all(map(runs, pids))  # nobody told them
    assert reap_orphans() >= len(pids)
    assert not any(map(runs, pids))
    assert not scratch.exists()


def test_servers_of_a_living_study_are_left_alone(owner):
    _, pids, scratch = owner
    reap_orphans()
    assert all(map(runs, pids)) and scratch.is_dir()


def test_a_study_that_is_dead_but_not_yet_buried_counts_as_dead(owner):
    study, pids, _ = owner
    kill_with_supervisor(study)
    psutil.Process(study.pid)  # still in the process table: this test has not waited for it
    deadline = time.monotonic() + 10
    while psutil.Process(study.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.001)
    assert reap_orphans() >= len(pids)
    assert not any(map(runs, pids))


def test_a_pid_used_again_does_not_pass_for_the_dead_owner(sleeper):
    ticks = processes.start_ticks(os.getpid())
    process = sleeper(f"{os.getpid()}:{ticks - 1}")
    reap_orphans()
    assert process.wait(10) == -9


def test_processes_without_a_tag_or_with_a_strange_one_are_left_alone(sleeper):
    kept = [sleeper(None), sleeper("not-a-tag"), sleeper(owner_tag())]
    reap_orphans()
    assert all(runs(process.pid) for process in kept)


def test_the_command_that_reaps_spares_itself_and_its_ancestors(sleeper):
    script = "from serving.orphans import reap_orphans; print('reaped', reap_orphans())"
    dead = f"{os.getpid()}:1"
    told = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, OWNER_VARIABLE: dead},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert told.stdout.startswith("reaped")


def test_processes_of_another_namespace_are_left_alone(sleeper, monkeypatch):
    process = sleeper(f"{os.getpid()}:1")
    monkeypatch.setattr(processes, "_namespace", lambda pid: "ours" if pid == "self" else "theirs")
    reap_orphans()
    assert runs(process.pid)


def test_scratch_folders_of_another_process_namespace_are_left_alone(tmp_path, monkeypatch):
    """Two containers may share a temporary folder: a pid of one is another process in the other, or none."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(orphans, "owner_tag", lambda: "1:1")
    ours = orphans.scratch_folder()
    monkeypatch.setattr(orphans, "_namespace", lambda: "pid:[17]")
    theirs = orphans.scratch_folder()
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert orphans.find_orphans().folders == (ours,)
    reap_orphans()
    assert theirs.is_dir() and not ours.exists()


def test_the_tag_does_not_change_while_its_process_lives():
    assert owner_tag() == owner_tag()
    assert orphans.lives(owner_tag())
