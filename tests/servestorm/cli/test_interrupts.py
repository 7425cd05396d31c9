"""Interrupts at the moments at which Python would print a traceback, or lose them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from servestorm.cli.exit_codes import guard, work_begins

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

AS_A_SHELL_STARTS_IT = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
sys.path.insert(0, sys.argv[1])
"""

SLOW_IMPORT = """
import os, signal, time
os.kill(os.getpid(), {number})
time.sleep(0.05)
raise ImportError("a library that was cut short")
"""


def run(code: str, folder, number: int) -> subprocess.CompletedProcess[str]:
    (folder / "half_made.py").write_text(SLOW_IMPORT.format(number=number))
    command = [sys.executable, "-c", AS_A_SHELL_STARTS_IT + code, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupt_before_our_first_import_ends_the_program(tmp_path, number):
    done = run(
        "import serving.interrupts; serving.interrupts.leave_on_interrupt('servestorm')\nimport half_made",
        tmp_path,
        number,
    )
    assert (done.returncode, done.stderr) == (130, "servestorm: interrupted.\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_the_program_listens_before_it_imports_its_verbs(tmp_path, number):
    """The first verb that the command line imports interrupts us here."""
    shadow = "import importlib.abc, os\nclass Interrupting(importlib.abc.MetaPathFinder):\n"
    shadow += "    def find_spec(self, name, *_):\n        if name.startswith('servestorm.cli.'):\n"
    shadow += f"            os.kill(os.getpid(), {int(number)})\nsys.meta_path.insert(0, Interrupting())\n"
    done = run(shadow + "from servestorm.__main__ import main; main()", tmp_path, number)
    assert (done.returncode, done.stderr) == (130, "servestorm: interrupted.\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_the_embedded_server_listens_while_it_imports_tensorflow(tmp_path, number, code):
    shadow = "import importlib.abc, os\nclass Interrupting(importlib.abc.MetaPathFinder):\n"
    shadow += "    def find_spec(self, name, *_):\n        if name == 'serving.savedmodel_server.lifecycle':\n"
    shadow += f"            os.kill(os.getpid(), {int(number)})\nsys.meta_path.insert(0, Interrupting())\n"
    shadow += "from serving.savedmodel_server.__main__ import main\n"
    done = run(shadow + f"sys.argv[1:] = ['--model_base_path={tmp_path}']\nmain()", tmp_path, number)
    assert (done.returncode, done.stderr) == (code, "savedmodel-server: interrupted.\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupt_in_an_import_before_the_work_ends_the_program(tmp_path, number):
    code = """
from servestorm.cli.exit_codes import guard
def action():
    import half_made
sys.exit(guard(action))
"""
    done = run(code, tmp_path, number)
    assert (done.returncode, done.stderr) == (130, "servestorm: interrupted.\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupt_in_an_import_of_the_work_comes_after_it_and_is_cleaned_up_after(tmp_path, number):
    code = """
from servestorm.cli.exit_codes import guard, work_begins
def action():
    work_begins()
    try:
        try:
            import half_made
        except ImportError:
            print("whole")
        while True:
            signal.pause()
    finally:
        print("cleaned")
sys.exit(guard(action))
"""
    done = run(code, tmp_path, number)
    assert (done.returncode, done.stderr) == (130, "servestorm: interrupted.\n")
    assert done.stdout.split() == ["whole", "cleaned"]


class Interrupting:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):  # the signal is handled between two lines of these
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_in_a_finaliser_is_not_lost(capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:

        def action() -> int:
            work_begins()
            Interrupting()
            gc.collect()
            end = time.monotonic() + 60
            while time.monotonic() < end:
                time.sleep(0.01)
            return 0

        assert guard(action) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "Exception ignored" not in capsys.readouterr().err


def test_the_last_moments_of_a_program_change_nothing():
    code = (
        AS_A_SHELL_STARTS_IT
        + """
import atexit, os
from serving.interrupts import heed_interrupts_no_more
atexit.register(lambda: [os.kill(os.getpid(), number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)])
heed_interrupts_no_more()
sys.exit(4)
"""
    )
    done = subprocess.run([sys.executable, "-c", code, "."], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (4, "")
