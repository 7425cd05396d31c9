"""Both frameworks train on the same device, or neither does."""

from __future__ import annotations

import subprocess
import sys

import pytest

from models.errors import ModelEnvironmentError
from models.training.devices import use_device
from tests.source_tree import ROOT


def test_threads_are_those_that_were_asked_for():
    script = (
        "from models.training.devices import use_device\n"
        "use_device('keras', 'cpu', 3)\nuse_device('torch', 'cpu', 3)\n"
        "import tensorflow as tf, torch\n"
        "print(tf.config.threading.get_intra_op_parallelism_threads(), torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "3 3\n"


@pytest.mark.parametrize(("framework", "library"), [("keras", "TensorFlow"), ("torch", "torch")])
def test_a_gpu_that_a_framework_does_not_see_is_one_sentence(monkeypatch, framework, library):
    import tensorflow as tf
    import torch

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelEnvironmentError, match=f"A GPU is asked for, and {library} sees none: install"):
        use_device(framework, "gpu")


def test_a_gpu_that_is_there_is_hidden_from_keras_on_the_cpu_and_shared_otherwise(monkeypatch):
    import tensorflow as tf

    seen, grown = [], []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: ["gpu 0", "gpu 1"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: seen.append((list(devices), kind)))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda device, on: grown.append((device, on)))
    use_device("keras", "cpu")
    use_device("keras", "gpu")
    assert seen == [([], "GPU"), (["gpu 0"], "GPU")]
    assert grown == [("gpu 0", True)]
