"""The formats of traces by the name that `--trace-format` takes: what a file must have, and what a row means.

What the columns of a public data set mean comes from its own description; docs/how-to/replay-a-trace.md has the links.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loadtests.arrivals.traces.cells import UNITS_NS, Column, Values, cells_of, in_ns
from loadtests.arrivals.traces.trace_file import TraceFile
from loadtests.errors import LoadTestError

MINUTES_A_DAY: Final = 1440
MINUTE_S: Final = 60.0
_UNIT_NAMES: Final = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


class Requests(NamedTuple):
    """A batch of requests in the order of the file."""

    due_ns: NDArray[np.int64]
    """(n,) after a moment that is the same for the whole file."""
    images: NDArray[np.int64] | None = None
    """(n,) images of each request; None where the file does not say."""


class TraceFormat(NamedTuple):
    """How a file of this format is read; exactly one of `requests` and `counts` is there."""

    meaning: str
    """Of the columns, as the command line prints it."""
    columns: tuple[str, ...] = ()
    """That the file must have; empty where the format takes one column of any name."""
    requests: Callable[[TraceFile, str], Iterator[Requests]] | None = None
    """File and column (empty where `columns` names them) to the requests."""
    counts: Callable[[TraceFile, str], NDArray[np.int64]] | None = None
    """File and column to the count of each bin, (bins,)."""
    bin_s: float | None = None
    """Seconds a bin; None where --trace-bin says it."""
    in_order: bool = True
    """False where the rows of the data set are not in the order of arrival, so that they are sorted."""
    from_start: bool = False
    """True where the first value counts from the start of the load; else the first request is time 0."""
    repeats: bool = False
    """True where the file begins again when it has ended."""
    text_times: bool = False
    """True where the column holds ISO 8601 times."""


def _numbers(file: TraceFile, name: str) -> Iterator[Values]:
    column = Column(file, name)
    for (cells,) in cells_of(file, name):
        yield column.numbers(cells)


def _after_first(file: TraceFile, batches: Iterator[Values], unit_ns: int) -> Iterator[Requests]:
    """Times in a unit, with any origin, as ns after the first one; whole numbers stay exact."""
    first: Any = None
    for values in batches:
        if first is None and len(values):
            first = values[0]
        yield Requests(in_ns(file, values - first, unit_ns) if len(values) else np.empty(0, np.int64))


def _timestamps(unit: str) -> Callable[[TraceFile, str], Iterator[Requests]]:
    return lambda file, column: _after_first(file, _numbers(file, column), UNITS_NS[unit])


def _intervals(unit: str) -> Callable[[TraceFile, str], Iterator[Requests]]:
    def requests(file: TraceFile, column: str) -> Iterator[Requests]:
        now_ns = 0
        for values in _numbers(file, column):
            gaps_ns = in_ns(file, values, UNITS_NS[unit])
            if len(gaps_ns) and gaps_ns.min() < 0:
                raise LoadTestError(
                    f"trace {file.path} holds negative intervals in column {column!r}: check the column."
                )
            due_ns = now_ns + np.cumsum(gaps_ns)
            yield Requests(due_ns)
            now_ns = int(due_ns[-1]) if len(due_ns) else now_ns

    return requests


def _iso_times(file: TraceFile, name: str) -> Iterator[Requests]:
    column = Column(file, name)
    return _after_first(file, (column.instants_ns(cells) for (cells,) in cells_of(file, name)), 1)


def _counts(file: TraceFile, name: str) -> NDArray[np.int64]:
    column = Column(file, name)
    parts = [column.whole_numbers(cells, "counts") for (cells,) in cells_of(file, name)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _azure_functions_2019(file: TraceFile, _: str) -> NDArray[np.int64]:
    """The sum over functions of each minute; batches of rows, so that the table is never in memory whole."""
    names = minute_columns(file)
    sums = np.zeros(len(names), np.int64)
    try:
        for batch in file.batches(names, pa.int64()):
            for place, name in enumerate(names):
                sums[place] += int(Column(file, name).whole_numbers(batch.column(name), "counts").sum())
    except LoadTestError as error:
        if "conversion error" in str(error):
            raise LoadTestError(f"{str(error).rstrip('.')}: a minute holds a whole number of invocations.") from error
        raise
    return sums


def minute_columns(file: TraceFile) -> list[str]:
    """1, 2, ... up to the last minute of the file. Raises LoadTestError where one is missing or a day has too many."""
    minutes = sorted(int(name) for name in file.names if name.isascii() and name.isdecimal() and len(name) <= 9)
    twice = next((name for name in file.names if re.fullmatch(r"\d+\.\d+", name)), None)
    if twice:
        raise LoadTestError(
            f"trace {file.path} has two columns of minute {twice.partition('.')[0]}: leave one of them out."
        )
    missing = sorted(set(range(1, (minutes or [1])[-1] + 1)) - set(minutes))
    if missing:
        raise LoadTestError(f"trace {file.path} has no column for minute {missing[0]}: a column a minute is needed.")
    if len(minutes) > MINUTES_A_DAY:
        raise LoadTestError(f"trace {file.path} has {len(minutes):,} columns of minutes: a day has {MINUTES_A_DAY:,}.")
    return [str(minute) for minute in minutes]


def _azure_functions_2021(file: TraceFile, _: str) -> Iterator[Requests]:
    def starts() -> Iterator[Values]:
        end, duration = Column(file, "end_timestamp"), Column(file, "duration")
        for ends, durations in cells_of(file, "end_timestamp", "duration"):
            lengths = duration.numbers(durations)
            if len(lengths) and lengths.min() < 0:
                raise LoadTestError(f"trace {file.path} holds negative durations: check the column 'duration'.")
            yield (end.numbers(ends) - lengths).astype(np.float64)

    return _after_first(file, starts(), UNITS_NS["s"])


def _azure_lmm_2025(file: TraceFile, _: str) -> Iterator[Requests]:
    time, number = Column(file, "TIMESTAMP"), Column(file, "NumImages")
    first: Any = None
    for times, numbers in cells_of(file, "TIMESTAMP", "NumImages"):
        instants_ns = time.instants_ns(times)
        first = instants_ns[0] if first is None and len(instants_ns) else first
        yield Requests(in_ns(file, instants_ns - first, 1), number.whole_numbers(numbers, "numbers of images"))


FORMATS: Final[Mapping[str, TraceFormat]] = {
    **{
        f"timestamps-{unit}": TraceFormat(f"arrivals in {name}", requests=_timestamps(unit))
        for unit, name in _UNIT_NAMES.items()
    },
    "timestamps-iso": TraceFormat("arrivals as ISO 8601 times", requests=_iso_times, text_times=True),
    **{
        f"intervals-{unit}": TraceFormat(
            f"gaps before each request in {name}", requests=_intervals(unit), from_start=True
        )
        for unit, name in _UNIT_NAMES.items()
    },
    "perf-analyzer": TraceFormat(
        "gaps before each request in microseconds, begun again at the end",
        requests=_intervals("us"),
        from_start=True,
        repeats=True,
    ),
    "counts": TraceFormat("requests in each bin, spread at random within it", counts=_counts),
    "azure-functions-2019": TraceFormat(
        "invocations of all functions in each minute, spread at random within it",
        columns=("1",),
        counts=_azure_functions_2019,
        bin_s=MINUTE_S,
    ),
    "azure-functions-2021": TraceFormat(
        "arrival = end_timestamp - duration in seconds, sorted",
        columns=("end_timestamp", "duration"),
        requests=_azure_functions_2021,
        in_order=False,
    ),
    "azure-llm": TraceFormat(
        "arrivals as ISO 8601 times",
        columns=("TIMESTAMP",),
        requests=lambda file, _: _iso_times(file, "TIMESTAMP"),
    ),
    "azure-lmm-2025": TraceFormat(
        "arrivals as ISO 8601 times, with the images of each request",
        columns=("TIMESTAMP", "NumImages"),
        requests=_azure_lmm_2025,
    ),
    "burstgpt": TraceFormat(
        "arrivals in seconds",
        columns=("Timestamp",),
        requests=lambda file, _: _after_first(file, _numbers(file, "Timestamp"), UNITS_NS["s"]),
    ),
}
