"""A trace as a schedule: read, checked, stretched, thinned or multiplied, and cut to the load's duration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests.arrivals.blocks import BlockSchedule, RecordedSchedule
from loadtests.arrivals.processes import MAX_ARRIVALS, Arrivals
from loadtests.arrivals.traces.bins import cut_counts, scaled_counts, spread
from loadtests.arrivals.traces.detection import AUTO, TraceReading, reading_of
from loadtests.arrivals.traces.formats import FORMATS, Requests, TraceFormat
from loadtests.arrivals.traces.trace_file import RowFilter, TraceFile, open_trace
from loadtests.errors import LoadTestError

_NS: Final = 1_000_000_000
_FOREVER_NS: Final = 2**61


@dataclass(frozen=True)
class TraceOptions:
    """What the command line says of a trace."""

    path: Path
    format: str = AUTO
    column: str = ""
    bin_s: float = 0.0
    row_filter: str = ""
    """COLUMN=VALUE, or empty."""
    time_scale: float = 1.0
    rate_scale: float = 1.0


class _Requests(NamedTuple):
    due_ns: NDArray[np.int64]
    """Sorted, the first at 0 or later."""
    images: NDArray[np.int64] | None
    without_images: int = 0
    """Requests left out because they carry none."""


def read_trace(trace: TraceOptions, duration_s: float, seed: int) -> Arrivals:
    """Arrivals in [0, duration_s); time 0 is the first request, or the begin of the first bin or interval.

    `time_scale` stretches time; `rate_scale` under 1 thins the arrivals at random, over 1 repeats them (a fraction at
    random): those of bins within their bin, others spread around their time by up to the local gap.
    Raises LoadTestError where the file is unreadable, fits no format or several, is out of order, or has gaps.
    """
    if not (_positive(trace.time_scale) and _positive(trace.rate_scale)):
        raise LoadTestError("--trace-time-scale and --trace-rate-scale must be over 0.")
    if trace.bin_s and not _positive(trace.bin_s):
        raise LoadTestError(f"--trace-bin must be a number of seconds over 0, not {trace.bin_s:g}.")
    file = open_trace(trace.path, _row_filter(trace.row_filter))
    reading = reading_of(file, trace.format, trace.column, trace.bin_s)
    known, duration_ns = FORMATS[reading.format], int(duration_s * _NS)
    if known.counts:
        schedule = _of_counts(file, reading, trace, duration_ns, seed)
        return Arrivals(schedule, _record(reading), reading=_sentence(trace.path, reading))
    requests = _requests(file, reading, int(min(np.ceil(duration_ns / trace.time_scale), _FOREVER_NS)))
    requests = _scaled(file, requests, trace, duration_ns, np.random.default_rng(seed))
    record = {**_record(reading), **_record_of_images(requests)}
    sentence = _sentence(trace.path, reading, requests.without_images)
    return Arrivals(RecordedSchedule(requests.due_ns), record, requests.images, sentence)


def _positive(value: float) -> bool:
    return bool(np.isfinite(value) and value > 0)


def _row_filter(text: str) -> RowFilter | None:
    column, equals, value = text.partition("=")
    if text and not (column and equals):
        raise LoadTestError(f"--trace-filter must be COLUMN=VALUE, such as Trigger=http, not {text!r}.")
    return RowFilter(column, value) if text else None


def _of_counts(
    file: TraceFile, reading: TraceReading, trace: TraceOptions, duration_ns: int, seed: int
) -> BlockSchedule:
    known, rng = FORMATS[reading.format], np.random.default_rng(seed)
    assert known.counts is not None
    counts = known.counts(file, reading.column)
    if not len(counts):
        raise _empty(file)
    bin_ns = min((known.bin_s or trace.bin_s) * trace.time_scale * _NS, float(_FOREVER_NS))
    needed = counts[: int(min(np.ceil(duration_ns / bin_ns), len(counts)))]
    _check_size(file, float(needed.sum(dtype=np.float64)) * trace.rate_scale, duration_ns)
    kept, edges_ns = cut_counts(scaled_counts(needed, trace.rate_scale, rng), bin_ns, duration_ns, rng)
    return BlockSchedule(lambda: spread(kept, edges_ns, seed), float(kept.sum()))


def _check_size(file: TraceFile, arrivals: float, duration_ns: int) -> None:
    if arrivals > MAX_ARRIVALS:
        raise LoadTestError(
            f"trace {file.path} holds over {MAX_ARRIVALS:,} arrivals in {duration_ns / _NS:g} s: lower --duration or "
            "--trace-rate-scale."
        )


def _requests(file: TraceFile, reading: TraceReading, until_ns: int) -> _Requests:
    """Every row is read and checked; the requests before `until_ns` are returned."""
    known = FORMATS[reading.format]
    assert known.requests is not None
    collected = _Collected(file, known, until_ns)
    for batch in known.requests(file, reading.column):
        collected.add(batch)
    return collected.requests()


class _Collected:
    """Requests of a file, batch by batch; those after the end are dropped at once where the rows are in order."""

    def __init__(self, file: TraceFile, known: TraceFormat, until_ns: int) -> None:
        self._file, self._known, self._until_ns = file, known, until_ns
        self._due: list[NDArray[np.int64]] = []
        self._images: list[NDArray[np.int64]] = []
        self._origin_ns: int | None = 0 if known.from_start else None
        """Moment of the file that is time 0 of the load; None while no request was read."""
        self._rows, self._last_ns = 0, -_FOREVER_NS
        self._without_images = 0

    def add(self, batch: Requests) -> None:
        """Raises LoadTestError where a row is earlier than the one before it."""
        due_ns, images = batch.due_ns, batch.images
        if not len(due_ns):
            return
        if self._known.in_order:
            self._check_order(due_ns)
        wanted = images > 0 if images is not None else np.ones(len(due_ns), bool)
        if self._origin_ns is None and self._known.in_order and wanted.any():
            self._origin_ns = int(due_ns[wanted][0])
        soon = due_ns < (self._origin_ns or 0) + self._until_ns if self._known.in_order else wanted
        self._without_images += int((soon & ~wanted).sum())
        self._due.append(due_ns[soon & wanted])
        if images is not None:
            self._images.append(images[soon & wanted])
        self._rows += len(due_ns)

    def requests(self) -> _Requests:
        """Sorted, from time 0 on. Raises LoadTestError where there is none."""
        if not self._rows:
            raise _empty(self._file)
        if self._origin_ns is None and self._images:
            raise LoadTestError(f"trace {self._file.path} has no request with an image: there is nothing to send.")
        due_ns = np.concatenate(self._due)
        images = np.concatenate(self._images) if self._images else None
        if self._known.in_order:
            due_ns -= self._origin_ns or 0
        else:
            due_ns.sort()
            due_ns -= due_ns[0]
        if self._known.repeats:
            due_ns = self._repeated(due_ns)
        return _Requests(due_ns[: np.searchsorted(due_ns, self._until_ns)], images, self._without_images)

    def _check_order(self, due_ns: NDArray[np.int64]) -> None:
        backwards = np.flatnonzero(np.diff(due_ns, prepend=self._last_ns) < 0)
        if len(backwards):
            row = self._rows + int(backwards[0]) + 1
            among = " of those that --trace-filter leaves" if self._file.row_filter else ""
            raise LoadTestError(f"trace {self._file.path} is out of order at row {row}{among}: sort it by time.")
        self._last_ns = int(due_ns[-1])

    def _repeated(self, due_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """The file from its begin again as often as it takes; the last request ends it."""
        if self._last_ns >= self._until_ns:
            return due_ns
        if self._last_ns <= 0:
            raise LoadTestError(f"trace {self._file.path} cannot be repeated: its intervals add up to 0.")
        times = -(-self._until_ns // self._last_ns)
        _check_size(self._file, float(times) * len(due_ns), self._until_ns)
        return (np.arange(times)[:, None] * self._last_ns + due_ns).ravel()


def _scaled(
    file: TraceFile, requests: _Requests, trace: TraceOptions, duration_ns: int, rng: np.random.Generator
) -> _Requests:
    """Stretched, thinned or repeated, and cut."""
    due_ns, images = requests.due_ns, requests.images
    if trace.time_scale != 1:
        due_ns = np.rint(due_ns * trace.time_scale).astype(np.int64)
    _check_size(file, len(due_ns) * trace.rate_scale, duration_ns)
    if trace.rate_scale != 1 and len(due_ns):
        copies = np.floor(trace.rate_scale + rng.random(len(due_ns))).astype(np.int64)
        spans_ns = np.repeat(np.diff(due_ns, append=due_ns[-1]), copies)
        due_ns, images = np.repeat(due_ns, copies), None if images is None else np.repeat(images, copies)
        if trace.rate_scale > 1:
            due_ns = due_ns + (rng.random(len(due_ns)) * spans_ns).astype(np.int64)
            order = np.argsort(due_ns, kind="stable")
            due_ns, images = due_ns[order], None if images is None else images[order]
    end = int(np.searchsorted(due_ns, duration_ns))
    return _Requests(due_ns[:end], None if images is None else images[:end], requests.without_images)


def _empty(file: TraceFile) -> LoadTestError:
    return LoadTestError(f"trace {file.path} is empty: it has no row of data.")


def _record(reading: TraceReading) -> dict[str, Any]:
    return {"format": reading.format, "column": reading.shown_columns, "detected": reading.detected}


def _record_of_images(requests: _Requests) -> dict[str, Any]:
    if requests.images is None:
        return {}
    return {
        "mean_images": round(float(requests.images.mean()), 3) if len(requests.images) else None,
        "left_out_without_images": requests.without_images,
    }


def _sentence(path: Path, reading: TraceReading, without_images: int = 0) -> str:
    how = "detected; --trace-format names another" if reading.detected else "as --trace-format says"
    left_out = f"; {without_images:,} requests without an image are left out" if without_images else ""
    return (
        f"trace {path} is read as {reading.format} ({how}): {FORMATS[reading.format].meaning}, "
        f"column {reading.shown_columns}{left_out}"
    )
