"""Keeps TensorFlow's start-up chatter off stderr, where our own lines belong."""

from __future__ import annotations

import importlib
import os
import sys


def import_tensorflow_quietly() -> None:
    """Import it with stderr shut: some of its first lines ignore every log level. Errors still raise."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        importlib.import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
