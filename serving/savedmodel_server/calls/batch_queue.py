"""Calls that wait for a batch, and which of them make the next one: the policy of TensorFlow Serving's scheduler.

A batch holds calls of one signature of one version and of one shape of rows, in the order of their arrival. It may run
once it is full, or once its first call has waited for `batch_timeout_micros`. Signatures take turns.
"""

from __future__ import annotations

from collections import deque
from weakref import WeakKeyDictionary

from serving.savedmodel_server.calls.call import Call
from serving.savedmodel_server.calls.runs import drop
from serving.savedmodel_server.calls.split_call import cut
from serving.savedmodel_server.versions.batching import BatchingParameters
from serving.savedmodel_server.versions.servable import Servable

_MOST_LANES = 256
"""Of one servable, before those that nothing waits in are forgotten."""


class _Lane:
    """Calls whose rows may share a batch."""

    __slots__ = ("calls", "rows")

    def __init__(self) -> None:
        self.calls: deque[Call] = deque()
        self.rows = 0


class BatchQueue:
    """For one thread at a time: its owner holds a lock."""

    def __init__(self, parameters: BatchingParameters) -> None:
        self._parameters = parameters
        self._timeout_ns = parameters.batch_timeout_micros * 1000
        self._lanes: WeakKeyDictionary[Servable, dict[object, _Lane]] = WeakKeyDictionary()
        """Those of a version that is unloaded end with it."""
        self._waiting: dict[_Lane, None] = {}
        """Lanes with calls, the next in turn first."""
        self.rows = 0
        """Of all calls that wait."""

    def add(self, call: Call) -> None:
        """Let a call wait, whose inputs all have `call.rows` rows."""
        lane = self._lane(call)
        lane.calls.append(call)
        lane.rows += call.rows
        self.rows += call.rows
        self._waiting.setdefault(lane)

    def _lane(self, call: Call) -> _Lane:
        lanes = self._lanes.get(call.servable)
        if lanes is None:
            lanes = self._lanes[call.servable] = {}
        key = (call.signature.name, *[(array.dtype, array.shape[1:]) for array in call.arrays])
        lane = lanes.get(key)
        if lane is None:
            if len(lanes) > _MOST_LANES:
                for unused in [key for key, lane in lanes.items() if not lane.calls]:
                    del lanes[unused]
            lane = lanes[key] = _Lane()
        return lane

    def take(self, now_ns: int) -> tuple[list[Call], list[Call]]:
        """The calls of a batch that may run at `now_ns` of the performance counter, and calls that nobody waits for.

        Without a batch that may run, the first list is empty.
        """
        gone: list[Call] = []
        for lane in list(self._waiting):
            if lane.rows < self._parameters.most_rows_run and now_ns < lane.calls[0].since_ns + self._timeout_ns:
                continue
            del self._waiting[lane]
            rows = lane.rows
            batch = self._first_rows(lane, gone)
            self.rows -= rows - lane.rows
            if lane.calls:
                self._waiting[lane] = None
            if batch:
                return batch, gone
        return [], gone

    def _first_rows(self, lane: _Lane, gone: list[Call]) -> list[Call]:
        batch: list[Call] = []
        left = self._parameters.most_rows_run
        while lane.calls and left:
            call = lane.calls[0]
            if call.caller.closed:
                drop(call)
                gone.append(call)
            elif call.rows <= left:
                batch.append(call)
                left -= call.rows
            elif self._parameters.enable_large_batch_splitting:
                first, rest = cut(call, left)
                batch.append(first)
                lane.calls[0] = rest
                lane.rows -= left
                return batch
            else:
                return batch
            lane.calls.popleft()
            lane.rows -= call.rows
        return batch

    def due_ns(self) -> int | None:
        """When the next batch may run that is not full, by the performance counter; None where nothing waits."""
        return min((lane.calls[0].since_ns + self._timeout_ns for lane in self._waiting), default=None)
