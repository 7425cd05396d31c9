"""One request's run between the transports and TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from serving.savedmodel_server.dtypes import Array
from serving.savedmodel_server.errors import RequestError
from serving.savedmodel_server.versions.servable import Servable
from serving.savedmodel_server.versions.signatures import Signature


def row_count(arrays: Sequence[Array]) -> int:
    """Examples in a request: the length of the first input, 1 for a scalar."""
    return len(arrays[0]) if arrays and arrays[0].ndim else 1


class Caller(Protocol):
    """Whom a call is run for."""

    @property
    def closed(self) -> bool:
        """True once nobody waits for the answer: given up, overdue, or disconnected. Set on one thread, read on all."""


class Whole(Protocol):
    """A call of many rows that runs in parts."""

    def part(self, begin: int, end: int) -> Call:
        """A call of the rows from `begin` to before `end`."""


class _Anybody:
    """A caller that waits to the end."""

    closed = False


ANYBODY: Caller = _Anybody()


class Call:
    """One request's run: `done` is called on a dispatcher's thread, once `outputs` or `error` is set."""

    __slots__ = (
        "arrays",
        "caller",
        "done",
        "error",
        "micros",
        "offset",
        "outputs",
        "rows",
        "servable",
        "signature",
        "since_ns",
        "split",
    )

    def __init__(
        self,
        servable: Servable,
        signature: Signature,
        arrays: tuple[Array, ...],
        done: Callable[[list[Call]], None],
        caller: Caller = ANYBODY,
    ) -> None:
        self.servable = servable
        self.signature = signature
        self.arrays = arrays
        self.done = done
        """Gets all calls of one run that share it."""
        self.caller = caller
        self.rows = row_count(arrays)
        self.split: Whole | None = None
        """What this is a part of."""
        self.offset = 0
        """Of a part: its first row in the whole."""
        self.outputs: Sequence[Array] | None = None
        self.error: RequestError | None = None
        self.micros = 0.0
        """Of its run, with the wait for its batch."""
        self.since_ns = time.perf_counter_ns()
