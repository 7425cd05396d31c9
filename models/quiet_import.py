"""Import TensorFlow without the lines that it writes to stderr before any setting can reach it."""

from __future__ import annotations

import os
import sys
import tempfile


def import_tensorflow_quietly() -> None:
    """Import tensorflow on the CPU, its chatter held back; a failing import shows all of it.

    For the edges (command lines, servers): it sets TF_CPP_MIN_LOG_LEVEL and CUDA_VISIBLE_DEVICES for this process and
    its children where they are unset, and points file descriptor 2 elsewhere for as long as the import takes.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()  # says the rest of what it has to say
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
