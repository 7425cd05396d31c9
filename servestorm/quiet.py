"""Keeps TensorFlow's start-up chatter off stderr, where our own lines belong."""

from __future__ import annotations

import os


def hush_tensorflow() -> None:
    """Set its log level before its first import; a level that the person set stays. Its Python errors are untouched."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
