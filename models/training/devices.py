"""Which device a framework computes on, and with how many threads: told before it does anything."""

from __future__ import annotations

from models.errors import ModelEnvironmentError
from models.training.learner import Device, Framework


def use_device(framework: Framework, device: Device, threads: int | None = None) -> None:
    """Let a framework see the CPU alone or a GPU too, and use so many intra-op threads.

    Keras would take a GPU wherever there is one, so that a comparison with torch on the CPU would be none. TensorFlow
    gets GPU memory as it needs it, for another framework may have its turn on the same GPU. Raises
    ModelEnvironmentError where a GPU is asked for and the framework sees none.
    """
    if framework == "keras":
        _keras(device, threads)
    else:
        _torch(device, threads)


def _keras(device: Device, threads: int | None) -> None:
    from models.quiet_import import import_tensorflow_quietly

    import_tensorflow_quietly()
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    if device == "gpu" and not found:
        raise _none_for("TensorFlow")
    if device == "cpu" and found:
        tf.config.set_visible_devices([], "GPU")
    if device == "gpu":
        tf.config.set_visible_devices(found[:1], "GPU")
        tf.config.experimental.set_memory_growth(found[0], True)
    if threads is not None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def _torch(device: Device, threads: int | None) -> None:
    import torch

    if device == "gpu" and not torch.cuda.is_available():
        raise _none_for("torch")
    if threads is not None:
        torch.set_num_threads(threads)


def _none_for(library: str) -> ModelEnvironmentError:
    return ModelEnvironmentError(
        f"A GPU is asked for, and {library} sees none: install its CUDA build and NVIDIA's driver, or train on the CPU."
    )
