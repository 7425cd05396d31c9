"""What a summary needs of samples.parquet: counts, last moments, and latencies, read by row group.

A long run's table never lies in memory whole; only the columns that a percentile needs do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loadtests.arrivals.measured_time import MeasuredTime

SliceOf = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""Scheduled times, int64 ns, to the slice of each."""


@dataclass
class Tally:
    """Counts and last moments of the measured samples."""

    last_sent_ns: NDArray[np.int64]
    """(intervals,): of the requests that were due in each interval of the measured time; 0 where none was sent."""
    last_ok_ns: NDArray[np.int64]
    """(intervals,): the last right answer to these."""
    counts: dict[str, int] = field(default_factory=dict)
    """Requests by outcome."""
    sent: int = 0
    ok_images: int = 0
    """Images of the requests that got a right answer."""
    slices: set[int] = field(default_factory=set)
    """Those in which a request was due that got a right answer."""


def tally_of(samples: Path, measured: MeasuredTime, slice_of: SliceOf) -> Tally:
    """Count the measured samples of a load."""
    intervals = len(measured.begin_ns)
    tally = Tally(np.zeros(intervals, np.int64), np.zeros(intervals, np.int64))
    for table in _measured(samples, ["scheduled_ns", "sent_ns", "done_ns", "outcome", "images"]):
        for entry in pc.value_counts(table["outcome"].combine_chunks().cast("string")).to_pylist():
            tally.counts[entry["values"]] = tally.counts.get(entry["values"], 0) + entry["counts"]
        sent = table.filter(pc.is_valid(table["sent_ns"]))
        tally.sent += len(sent)
        _latest(tally.last_sent_ns, measured, sent["scheduled_ns"], sent["sent_ns"])
        answered = table.filter(_is_ok(table))
        tally.ok_images += int(answered["images"].to_numpy().sum(dtype=np.int64))
        _latest(tally.last_ok_ns, measured, answered["scheduled_ns"], answered["done_ns"])
        tally.slices.update(np.unique(slice_of(answered["scheduled_ns"].to_numpy())).tolist())
    return tally


def spans_of(samples: Path, begin: str, end: str, *, only_ok: bool) -> NDArray[np.int64]:
    """end - begin of the measured samples, ns."""
    spans = np.empty(pq.read_metadata(samples).num_rows, np.int64)
    filled = 0
    for table in _measured(samples, [begin, end, "outcome"]):
        keep = pc.is_valid(table[end])
        selected = table.filter(pc.and_(keep, _is_ok(table)) if only_ok else keep)
        part = selected[end].to_numpy() - selected[begin].to_numpy()
        spans[filled : filled + len(part)] = part
        filled += len(part)
    return spans[:filled]


def slices_of_answers(samples: Path, slice_of: SliceOf) -> NDArray[np.int32]:
    """The slice of each right answer, in the order of `spans_of`."""
    parts = [
        slice_of(table.filter(_is_ok(table))["scheduled_ns"].to_numpy()).astype(np.int32)
        for table in _measured(samples, ["scheduled_ns", "outcome"])
    ]
    return np.concatenate([np.empty(0, np.int32), *parts])


def _latest(latest: NDArray[np.int64], measured: MeasuredTime, scheduled: Any, moments: Any) -> None:
    np.maximum.at(latest, measured.interval_of(scheduled.to_numpy()), moments.to_numpy())


def _measured(samples: Path, columns: list[str]) -> Iterator[pa.Table]:
    with pq.ParquetFile(samples) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[*columns, "warmup"])
            yield table.filter(pc.invert(table["warmup"]))


def _is_ok(table: pa.Table) -> Any:
    return pc.equal(table["outcome"].cast("string"), "ok")
