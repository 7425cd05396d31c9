"""Errors to exit codes, and interruptions that interrupt once."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile

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


def test_a_machine_without_a_writable_temporary_folder_is_no_bug(capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("tempfile._get_default_tempdir", no_temporary_folder)
    assert guard(tempfile.gettempdir) == 3
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "no temporary folder can be written" in told
    assert guard(raising(OSError(errno.ENOSPC, "No space left on device"))) == 3
    assert "no space left on the disk" in capsys.readouterr().err


def no_temporary_folder():
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")


def test_an_output_on_a_full_disk_is_one_sentence():
    code = "import sys\nfrom servestorm.cli.exit_codes import guard\n"
    code += "def action():\n    print('the table')\n    return 0\nsys.exit(guard(action))"
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1 and "no space left on the disk" in done.stderr


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


def test_a_report_of_a_bug_holds_no_value_of_a_header(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["servestorm", "wait", "http://a", "--header", "Authorization=Bearer s3cr3t"])
    assert guard(raising(RuntimeError("oops"))) == 70
    (report,) = tmp_path.iterdir()
    assert "'Authorization=...'" in report.read_text()
    assert "s3cr3t" not in report.read_text()
