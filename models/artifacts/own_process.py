"""Steps of an export in processes of their own, so that the memory of one is gone before the next begins."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec, TypeVar

from models.errors import ModelEnvironmentError
from models.quiet_import import import_tensorflow_quietly
from models.training.learner import Framework

LARGE_BYTES = 256 << 20
"""Of weights, from which on this is worth the seconds that each process takes to import its framework."""
Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


def run_step(
    weights_bytes: int,
    framework: Framework,
    step: Callable[Arguments, Answer],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Answer:
    """`step(*arguments, **named)`, which uses `framework`, in a process of its own where the weights are large.

    Raises what the step raises, and ModelEnvironmentError where its process was killed.
    """
    if weights_bytes <= LARGE_BYTES:
        _begin(framework)
        return step(*arguments, **named)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_begin_alone, initargs=(framework,)) as pool:
        try:
            return pool.submit(step, *arguments, **named).result()
        except BrokenProcessPool as error:
            raise ModelEnvironmentError(
                "a process of the export was killed (out of memory?): free memory, or export a smaller network."
            ) from error


def _begin(framework: Framework) -> None:
    if framework == "keras":
        import_tensorflow_quietly()


def _begin_alone(framework: Framework) -> None:
    # Ctrl-C goes to the whole terminal group: the parent alone decides and ends us
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _begin(framework)
