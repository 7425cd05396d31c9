"""Replay of recorded traffic: a CSV or Parquet file of timestamps, or of counts per bin, as a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loadtests.arrivals.processes import MAX_ARRIVALS, Schedule
from loadtests.errors import LoadTestError


def read_trace(
    path: Path,
    column: str,
    bin_s: float,
    time_scale: float,
    rate_scale: float,
    duration_s: float,
    seed: int,
) -> Schedule:
    """Arrivals in [0, duration_s), int64 ns.

    With `bin_s` 0 the column holds timestamps in seconds (any origin); else counts of consecutive bins of `bin_s`
    seconds, spread evenly at random within their bin. `time_scale` stretches time; `rate_scale` under 1 thins the
    arrivals at random, over 1 repeats them (a fraction at random), spread around their time by up to the local gap.
    Raises LoadTestError where the file is unreadable, out of order, has gaps or negative counts.
    """
    if time_scale <= 0 or rate_scale <= 0:
        raise LoadTestError("--trace-time-scale and --trace-rate-scale must be over 0.")
    values = _column(path, column)
    rng = np.random.default_rng(seed)
    times = _from_counts(path, values, bin_s, rng) if bin_s > 0 else _from_timestamps(path, values)
    times = _scaled(times * time_scale, rate_scale, rng)
    times_ns = np.rint(times * 1e9).astype(np.int64)
    return times_ns[times_ns < int(duration_s * 1e9)]


def _column(path: Path, column: str) -> NDArray[np.float64]:
    table = _read(path)
    if column and column not in table.column_names:
        raise LoadTestError(f"trace {path} has no column {column!r}, only {', '.join(table.column_names)}.")
    names = [column] if column else [f.name for f in table.schema if _is_numeric(f.type)]
    if not names:
        raise LoadTestError(f"trace {path} has no numeric column: name one with --trace-column.")
    chosen = table[names[0]]
    if chosen.null_count:
        raise LoadTestError(f"trace {path} has gaps: {chosen.null_count} empty cells in column {names[0]!r}.")
    if not _is_numeric(chosen.type):
        raise LoadTestError(f"trace {path}: column {names[0]!r} holds {chosen.type}, not numbers.")
    values: NDArray[np.float64] = chosen.to_numpy().astype(np.float64)
    if not len(values):
        raise LoadTestError(f"trace {path} is empty.")
    if not np.isfinite(values).all():
        raise LoadTestError(f"trace {path} has gaps: column {names[0]!r} holds values that are not finite.")
    return values


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        return pyarrow.csv.read_csv(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())[:160]
        raise LoadTestError(f"trace {path} cannot be read as CSV or Parquet: {reason}") from error


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _from_timestamps(path: Path, values: NDArray[np.float64]) -> NDArray[np.float64]:
    backwards = np.flatnonzero(np.diff(values) < 0)
    if len(backwards):
        raise LoadTestError(f"trace {path} is out of order at row {backwards[0] + 2}: sort it by time.")
    since_first: NDArray[np.float64] = values - values[0]
    return since_first


def _from_counts(
    path: Path, values: NDArray[np.float64], bin_s: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    if (values < 0).any() or (values != np.rint(values)).any():
        raise LoadTestError(f"trace {path} holds counts that are negative or not whole: check --trace-column.")
    if values.sum() > MAX_ARRIVALS:
        raise LoadTestError(f"trace {path} holds over {MAX_ARRIVALS:,} arrivals: cut it.")
    starts = np.repeat(np.arange(len(values)) * bin_s, values.astype(np.int64))
    return np.sort(starts + rng.uniform(0, bin_s, len(starts)))


def _scaled(times: NDArray[np.float64], scale: float, rng: np.random.Generator) -> NDArray[np.float64]:
    if scale == 1 or not len(times):
        return times
    copies = np.floor(scale + rng.uniform(0, 1, len(times))).astype(np.int64)
    gaps = np.diff(times, append=times[-1])
    repeated = np.repeat(times, copies)
    spread = rng.uniform(0, 1, len(repeated)) * np.repeat(gaps, copies)
    return np.sort(repeated + spread) if scale > 1 else repeated
