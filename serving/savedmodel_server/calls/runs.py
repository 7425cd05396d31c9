"""Runs calls on their servable, and leaves on each its outputs or its error; nothing is raised."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from serving.savedmodel_server.calls.call import Call
from serving.savedmodel_server.dtypes import Array
from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.versions.batching import BatchingParameters

LOG = logging.getLogger("savedmodel_server")
Ran = Callable[[float], None]
"""Gets the microseconds of each run of a graph that went well."""


def run_alone(call: Call, ran: Ran) -> None:
    """Run a call by itself, if somebody waits for it."""
    if call.caller.closed:
        drop(call)
        return
    servable, signature = call.servable, call.signature
    try:
        servable.check_rows(signature, call.arrays)
        began_ns = time.perf_counter_ns()
        call.outputs = servable.run_alone(signature, call.arrays, tuple(signature.outputs))
        ran((time.perf_counter_ns() - began_ns) / 1000)
    except RequestError as error:
        call.error = error
    except Exception:  # noqa: BLE001 - a bug must not end the dispatcher's thread
        _bug([call])


def drop(call: Call) -> None:
    """End a call that nobody waits for."""
    call.error = RequestError(Code.CANCELLED, "The call was given up before it ran.")


def run_batch(calls: Sequence[Call], parameters: BatchingParameters, ran: Ran) -> bool:
    """Run the rows of these calls, of one signature and one shape of rows, as one batch; False where it failed.

    One bad row fails a batch: what failed in a batch runs again by itself, so that no client answers for another's
    rows.
    """
    servable, signature = calls[0].servable, calls[0].signature
    padding = parameters.padding(sum(call.rows for call in calls))
    began_ns = time.perf_counter_ns()
    try:
        outputs = servable.run_batched(signature, [call.arrays for call in calls], padding)
    except RequestError:
        _run_again(calls, ran)
        return False
    except Exception:  # noqa: BLE001 - as above
        _bug(calls)
        return True
    ran((time.perf_counter_ns() - began_ns) / 1000)
    _share(calls, outputs)
    return True


def _share(calls: Sequence[Call], outputs: Sequence[Array]) -> None:
    """Give each call its rows."""
    if len(calls) == 1:
        calls[0].outputs = outputs
        return
    begin = 0
    for call in calls:
        end = begin + call.rows
        call.outputs = [output[begin:end] for output in outputs]
        begin = end


def _run_again(calls: Sequence[Call], ran: Ran) -> None:
    for call in calls:
        run_alone(call, ran)
        if call.outputs is not None:
            call.servable.require_rows(call.signature, call.rows, call.outputs)


def _bug(calls: Sequence[Call]) -> None:
    servable, signature = calls[0].servable, calls[0].signature
    LOG.exception("event=bug model=%s signature=%s", servable.name, signature.name)
    for call in calls:
        call.error = RequestError(Code.INTERNAL, "Internal error; the server's log says more.")
