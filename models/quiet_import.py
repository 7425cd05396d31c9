"""Import TensorFlow without the lines that it writes to stderr before any setting can reach it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

_GPU: Final = Path("/dev/nvidiactl")
"""There only where NVIDIA's driver is."""
_INFORMATION: Final = re.compile(rb"(I\d{4} [\d:.]+ +\d+ |\d{4}-\d\d-\d\d [\d:.]+: I )")
"""The head of a line that TensorFlow's logging marks as information."""
_HARMLESS: Final = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    b"To enable the following instructions: ",
    b"oneDNN custom operations are on.",
    b"Unable to register cuFFT factory",
    b"Unable to register cuDNN factory",
    b"Unable to register cuBLAS factory",
    b"computation placer already registered",
    b"TF-TRT Warning: Could not find TensorRT",
)
"""In lines of a start in which nothing is wrong, whatever severity they are marked with."""
_NO_GPU: Final = b"failed call to cuInit"
"""In TensorFlow's error on a machine without a GPU, and with a GPU that does not work."""


def import_tensorflow_quietly() -> None:
    """Import tensorflow, and look for devices, without start_up_lines.

    For command lines, exports and their children: it sets TF_CPP_MIN_LOG_LEVEL to 2, errors alone, where it is unset.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" in sys.modules:
        return
    with start_up_lines_left_out():
        import tensorflow as tf

        tf.config.list_physical_devices()  # writes the rest of the start-up lines


@contextmanager
def start_up_lines_left_out() -> Iterator[None]:
    """Hold file descriptor 2 back, then write what it got to stderr, but for TensorFlow's lines of a normal start.

    Where the body fails, and where TF_CPP_MIN_LOG_LEVEL is 0, nothing is left out.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            _write_on(held, everything=failed)


def _write_on(held: IO[bytes], *, everything: bool) -> None:
    held.seek(0)
    for line in held:
        if everything or not is_start_up_line(line):
            os.write(2, line)


def is_start_up_line(line: bytes) -> bool:
    """Whether TensorFlow writes it where nothing is wrong: information, or one of the few lines known to be harmless.

    A failed cuInit is the normal start of a machine without a GPU, or of a process from which GPUs are hidden.
    """
    if _NO_GPU in line:
        return not _GPU.exists() or os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return _INFORMATION.match(line) is not None or any(part in line for part in _HARMLESS)
