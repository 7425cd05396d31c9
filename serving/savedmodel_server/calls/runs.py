"""Runs calls on their servable, and leaves on each its outputs or its error; nothing is raised."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from serving.savedmodel_server.calls.call import Call
from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.versions.signatures import Array

LOG = logging.getLogger("savedmodel_server")
Ran = Callable[[float], None]
"""Gets the microseconds of each run of a graph by itself that went well."""


def run_alone(call: Call, ran: Ran) -> None:
    """Run a call past the batching kernel, if somebody waits for it."""
    if call.caller.closed:
        drop(call)
        return
    servable, signature = call.servable, call.signature
    try:
        servable.check_rows(signature, call.arrays)
        begin_ns = time.perf_counter_ns()
        call.outputs = servable.run_alone(signature, call.arrays, tuple(signature.outputs))
        ran((time.perf_counter_ns() - begin_ns) / 1000)
    except RequestError as error:
        call.error = error
    except Exception:  # noqa: BLE001 - a bug must not end the dispatcher's thread
        _bug([call])


def drop(call: Call) -> None:
    """End a call that nobody waits for."""
    call.error = RequestError(Code.CANCELLED, "The call was given up before it ran.")


def run_batched(calls: Sequence[Call], ran: Ran) -> list[float] | None:
    """Run calls of one signature and one shape of rows as one task of the batching kernel.

    When the batch of each row began, in seconds of Unix time; empty where the batch failed, None where the task was
    refused. The kernel fails a whole batch for one bad row: what failed in a batch runs again by itself, so that no
    client answers for another's rows.
    """
    servable, signature = calls[0].servable, calls[0].signature
    arrays: Sequence[Array] = calls[0].arrays
    try:
        servable.check_rows(signature, arrays)
    except RequestError as error:
        _refuse(calls, error)
        return None
    if len(calls) > 1:
        arrays = [np.concatenate(columns) for columns in zip(*(call.arrays for call in calls), strict=True)]
    try:
        outputs, began_s = servable.run_batched(signature, arrays)
    except RequestError as error:
        if error.code is not Code.UNAVAILABLE:
            return _run_again(calls, ran)
        _refuse(calls, error)
        return None
    except Exception:  # noqa: BLE001 - as above
        _bug(calls)
        return None
    _share(calls, outputs)
    times: list[float] = began_s.tolist()
    return times


def _share(calls: Sequence[Call], outputs: Sequence[Array]) -> None:
    """Give each call its rows; the kernel has made sure that there is one for each row of the inputs."""
    if len(calls) == 1:
        calls[0].outputs = outputs
        return
    begin = 0
    for call in calls:
        end = begin + call.rows
        call.outputs = [output[begin:end] for output in outputs]
        begin = end


def _run_again(calls: Sequence[Call], ran: Ran) -> list[float]:
    for call in calls:
        run_alone(call, ran)
        if call.outputs is not None:
            call.servable.require_rows(call.signature, call.rows, call.outputs)
    return []


def _refuse(calls: Sequence[Call], error: RequestError) -> None:
    for call in calls:
        call.error = error


def _bug(calls: Sequence[Call]) -> None:
    servable, signature = calls[0].servable, calls[0].signature
    LOG.exception("event=bug model=%s signature=%s", servable.name, signature.name)
    _refuse(calls, RequestError(Code.INTERNAL, "Internal error; the server's log says more."))
