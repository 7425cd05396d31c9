"""A call of more rows than one batch holds: its parts are calls that run in several batches."""

from __future__ import annotations

from threading import Lock

import numpy as np

from serving.savedmodel_server.calls.call import Call


class SplitCall:
    """Puts the answers of the parts of one call together; its `done` gets the whole."""

    def __init__(self, whole: Call) -> None:
        self._whole = whole
        self._answered: list[Call] = []
        self._rows_left = whole.rows
        self._lock = Lock()

    def part(self, begin: int, end: int) -> Call:
        """A call of the rows from `begin` to before `end`."""
        whole = self._whole
        arrays = tuple(array[begin:end] for array in whole.arrays)
        made = Call(whole.servable, whole.signature, arrays, self._answer, whole.caller)
        made.offset, made.since_ns, made.split = begin, whole.since_ns, self
        return made

    def _answer(self, parts: list[Call]) -> None:
        with self._lock:
            self._answered += parts
            self._rows_left -= sum(part.rows for part in parts)
            if self._rows_left:
                return
        whole, ordered = self._whole, sorted(self._answered, key=lambda part: part.offset)
        whole.micros = max(part.micros for part in ordered)
        whole.error = next((part.error for part in ordered if part.error is not None), None)
        if whole.error is None:
            columns = zip(*(part.outputs or () for part in ordered), strict=True)
            whole.outputs = [np.concatenate(column) for column in columns]
        whole.done([whole])


def cut(call: Call, rows: int) -> tuple[Call, Call]:
    """The first `rows` of a call, or of a part of one, and the rest."""
    split = call.split or SplitCall(call)
    middle = call.offset + rows
    return split.part(call.offset, middle), split.part(middle, call.offset + call.rows)
