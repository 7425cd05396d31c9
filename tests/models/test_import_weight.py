"""What the command line and the load generator import of `models` stays light."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "manifest",
        "preprocessing",
        "datasets.load",
        "training.train",
        "artifacts.export",
        "artifacts.imported_model",
    ],
)
def test_no_framework_is_imported_before_it_is_used(module):
    code = (
        f"import sys, models.{module}; print([n for n in ('tensorflow', 'torch', 'keras', 'ts') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_quiet_import_of_tensorflow_says_nothing_and_a_failing_one_all_of_it():
    quiet = "from models.quiet_import import import_tensorflow_quietly as q; "
    done = subprocess.run(
        [sys.executable, "-c", quiet + "q(); import sys; print('on', file=sys.stderr)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "on\n"
    broken = quiet + "import sys, os; sys.modules['tensorflow.python'] = None; q()"
    done = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
