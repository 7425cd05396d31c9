"""Import TensorFlow without the lines that it writes to stderr before any setting can reach it."""

from __future__ import annotations

import os
import sys
import tempfile


def import_tensorflow_quietly() -> None:
    """Import tensorflow with stderr held back; where the import fails, all that was written to stderr is shown.

    For command lines and their children: it sets TF_CPP_MIN_LOG_LEVEL to 3 for both where it is unset, and points file
    descriptor 2 elsewhere for as long as the import takes.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()  # writes the rest of the start-up lines
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
