"""A run directory has one owner, whatever runs beside it and however it ends."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from servestorm.errors import StudyEnvironmentError, StudyError
from servestorm.rundir.owner import OWNER, owned

HOLD = """
import sys, time
from pathlib import Path
from servestorm.rundir.owner import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that owns the directory."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "owned\n"
        yield process
        process.kill()


def test_another_process_is_refused_and_the_owner_named(tmp_path, holder):
    told = f"in use by process {holder.pid}, which writes into it"
    with pytest.raises(StudyError, match=told) as caught, owned(tmp_path):
        pass
    assert caught.value.exit_code == 2


def test_a_killed_owner_owns_nothing(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert (tmp_path / OWNER).is_file()  # it could not remove it
    with owned(tmp_path):
        assert (tmp_path / OWNER).read_text().split()[0] == str(os.getpid())


def test_another_thread_is_refused_too(tmp_path):
    refused = []

    def try_to_own():
        try:
            with owned(tmp_path):
                pass
        except StudyError as error:
            refused.append(str(error))

    with owned(tmp_path):
        thread = threading.Thread(target=try_to_own)
        thread.start()
        thread.join()
    assert f"process {os.getpid()}" in refused[0]


def test_it_leaves_nothing_and_can_be_owned_again(tmp_path):
    for _ in range(2):
        with owned(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_owner_removes_meanwhile_gives_no_second_owner(tmp_path, monkeypatch):
    """Whoever waits between opening the file and locking it may lock one that lies there no longer."""
    real, removed = fcntl.flock, []

    def flock(descriptor, how):
        if not removed:
            removed.append(True)
            (tmp_path / OWNER).unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with owned(tmp_path), pytest.raises(StudyError, match="in use"), owned(tmp_path):
        pass


def test_an_owner_on_another_host_is_named_with_it(tmp_path):
    with owned(tmp_path):
        (tmp_path / OWNER).write_text("17 elsewhere\n")
        with pytest.raises(StudyError, match="process 17 on elsewhere"), owned(tmp_path):
            pass


def test_a_directory_that_cannot_be_locked_is_a_matter_of_the_environment(tmp_path):
    with pytest.raises(StudyEnvironmentError, match="cannot be locked"), owned(tmp_path / "gone"):
        pass
