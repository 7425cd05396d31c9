"""Errors to exit codes, and interruptions that interrupt once."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from models.errors import ModelEnvironmentError, ModelError, ParityError
from servestorm.cli.exit_codes import guard
from servestorm.errors import StudyEnvironmentError, StudyError, StudyInvalid
from servestorm.study.load import GeneratorError
from serving.errors import DeploymentError, EngineUnavailable, ServingError


def raising(error: BaseException):
    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StudyError("x"), 2),
        (ModelError("x"), 2),
        (ServingError("x"), 2),
        (StudyEnvironmentError("x"), 3),
        (GeneratorError("x"), 3),
        (ModelEnvironmentError("x"), 3),
        (EngineUnavailable("x"), 3),
        (DeploymentError("x"), 3),
        (StudyInvalid("x"), 4),
        (ParityError("x"), 4),
        (KeyboardInterrupt(), 130),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 3),
    ],
)
def test_each_error_has_its_exit_code_and_one_line(error, code, capsys):
    assert guard(raising(error)) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_a_full_disk_names_the_path(capsys):
    assert guard(raising(OSError(errno.ENOSPC, "No space left on device", "/data/x"))) == 3
    assert "no space left on the disk for /data/x" in capsys.readouterr().err


def test_a_full_disk_without_a_path_says_where_to_look(capsys):
    assert guard(raising(OSError(errno.ENOSPC, "No space left on device"))) == 3
    assert os.getcwd() in capsys.readouterr().err  # noqa: PTH109 (what the message shows)


def test_a_forbidden_path_is_named(capsys):
    assert guard(raising(PermissionError(errno.EACCES, "Permission denied", "/srv/x"))) == 3
    assert "/srv/x: permission denied" in capsys.readouterr().err


def test_anything_else_is_a_bug_of_ours(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert guard(raising(RuntimeError("x"))) == 70
    assert "Please report it" in capsys.readouterr().err


@pytest.fixture
def heard():
    """Switches a signal on, which a test run under nohup or in a shell's background ignores."""
    before = {}

    def switch_on(number):
        before[number] = signal.signal(number, signal.default_int_handler)

    yield switch_on
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_once_and_leaves_the_cleaning_alone(number, heard, capsys):
    heard(number)
    done = []

    def action() -> int:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # an impatient person
            done.append("cleaned")
        return 0

    assert guard(action) == 130
    assert done == ["cleaned"]
    assert "still cleaning up" in capsys.readouterr().err


def test_handlers_are_given_back():
    before = signal.getsignal(signal.SIGINT)
    guard(lambda: 0)
    assert signal.getsignal(signal.SIGINT) is before
