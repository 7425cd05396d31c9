"""Work in a process of its own: its words, its errors, and its end."""

from __future__ import annotations

import os
import signal
import time

import pytest

from models.errors import ModelEnvironmentError, ModelError
from servestorm.study.framework_process import FrameworkProcess


def counts(connection, until):
    for number in range(until):
        connection.send(("progress", "counting", number / until))
    connection.send(("ready",))
    word = connection.recv()
    connection.send(("done", word, until))


def fails(connection, error):
    raise error


def prints(connection):
    print("a line of a library")
    connection.send(("done", os.getpid()))
    connection.recv()


def dies(connection):
    os.kill(os.getpid(), signal.SIGKILL)


def started(work, *arguments, progress=lambda *_: None):
    return FrameworkProcess("test", work, *arguments, progress=progress, remedy="buy memory")


def test_words_go_both_ways_and_progress_is_handed_on():
    heard = []
    process = started(counts, 3, progress=lambda what, share: heard.append((what, round(share, 2))))
    try:
        assert process.wait_for("ready") == ()
        process.tell("go")
        assert process.wait_for("done") == ("go", 3)
    finally:
        process.stop()
    assert heard == [("counting", 0.0), ("counting", 0.33), ("counting", 0.67)]


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (ModelError("no images"), ModelError, "no images"),
        (ModelEnvironmentError("no memory"), ModelEnvironmentError, "no memory"),
        (OSError(28, "No space left on device", "/data"), ModelEnvironmentError, "/data: No space left on device"),
        (KeyError("x"), RuntimeError, "KeyError while a framework worked: 'x'"),
    ],
)
def test_errors_of_the_work_become_ours(error, kind, sentence):
    process = started(fails, error)
    try:
        with pytest.raises(kind) as caught:
            process.wait_for("done")
    finally:
        process.stop()
    assert type(caught.value) is kind and str(caught.value) == sentence


def test_a_killed_process_is_told_with_its_remedy():
    process = started(dies)
    try:
        with pytest.raises(ModelEnvironmentError, match=r"was killed \(out of memory\?\): buy memory\."):
            process.wait_for("done")
        with pytest.raises(ModelEnvironmentError, match="buy memory"):
            for _ in range(2):  # the first word may still find room in the pipe
                process.tell("go")
                time.sleep(0.1)
    finally:
        process.stop()


def test_what_libraries_print_does_not_reach_stdout_and_stop_ends_the_process(capfd):
    process = started(prints)
    (pid,) = process.wait_for("done")
    process.stop()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "a line of a library\n")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
