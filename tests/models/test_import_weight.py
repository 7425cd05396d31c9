"""What the command line and the load generator import of `models` stays light."""

import os
import subprocess
import sys

import pytest

from models import quiet_import
from tests.source_tree import ROOT


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


def run_with_a_stand_in(folder, *lines, fails=False, **variables):
    """What is on stderr where `import tensorflow` writes these lines to file descriptor 2."""
    package = folder / "tensorflow"
    package.mkdir()
    text = "".join(f"{line}\n" for line in lines)
    ending = "raise RuntimeError('broken')" if fails else ""
    (package / "__init__.py").write_text(
        f"import os, types\nos.write(2, {text.encode()!r})\n{ending}\n"
        "config = types.SimpleNamespace(list_physical_devices=lambda: [])\n"
    )
    code = "from models.quiet_import import import_tensorflow_quietly as q; q()"
    path = f"{folder}{os.pathsep}{ROOT}"
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    env |= {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (done.returncode != 0) is fails
    return done.stderr


NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795935103.762403    3456 cudart_stub.cc:31] Could not find cuda drivers on your machine.",
    "2026-11-29 06:51:43.762403: I external/local_xla/cudart_stub.cc:31] Could not find cuda drivers.",
    "I0000 00:00:1795935104.597288    3456 cpu_feature_guard.cc:227] This TensorFlow binary is optimized.",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.",
    "I0000 00:00:1795935104.597288    3456 port.cc:153] oneDNN custom operations are on.",
    "E0000 00:00:1795935110.509606    3456 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error (303)",
)
"""As TensorFlow 2.21 writes it at its start on a machine without a GPU."""


def test_the_lines_of_a_normal_start_are_left_out_and_no_other(tmp_path):
    real = (
        "E0000 00:00:1795935110.509606    3456 gpu_device.cc:52] the driver is older than the runtime",
        "W0000 00:00:1795935110.509606    3456 gpu_device.cc:52] Cannot dlopen some GPU libraries.",
        "what no one knows",
    )
    assert run_with_a_stand_in(tmp_path, *NOISE[:3], real[0], *NOISE[3:], *real[1:]).splitlines() == list(real)


def test_a_start_that_fails_shows_every_line(tmp_path):
    lines = run_with_a_stand_in(tmp_path, *NOISE, fails=True).splitlines()
    assert lines[: len(NOISE)] == list(NOISE) and lines[-1] == "RuntimeError: broken"


def test_a_person_who_asks_for_tensorflow_s_log_gets_it(tmp_path):
    assert run_with_a_stand_in(tmp_path, *NOISE, TF_CPP_MIN_LOG_LEVEL="0").splitlines() == list(NOISE)


def test_a_failed_cuinit_is_an_error_where_there_is_a_gpu(tmp_path, monkeypatch):
    line = NOISE[-1].encode()
    monkeypatch.setattr(quiet_import, "_GPU", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert not quiet_import.is_start_up_line(line)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert quiet_import.is_start_up_line(line)
    monkeypatch.setattr(quiet_import, "_GPU", tmp_path / "none")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert quiet_import.is_start_up_line(line)
