"""metrics.parquet: the servers' own metrics over time."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servestorm.errors import StudyError


@dataclass(frozen=True)
class Point:
    """One value of one series at one time."""

    time_unix_ms: int
    replica: int
    metric: str
    labels: str
    value: float


def table_bytes(points: Sequence[Point]) -> bytes:
    """The points as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema(
        [
            ("time_unix_ms", pa.int64()),
            ("replica", pa.int16()),
            ("metric", text),
            ("labels", text),
            ("value", pa.float64()),
        ]
    )
    columns = {name: [getattr(point, name) for point in points] for name in schema.names}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), sink, compression="zstd")
    return sink.getvalue()


@dataclass(frozen=True)
class Readings:
    """The values of some metrics, with when each replica's metrics were first read."""

    points: list[Point]
    first_unix_ms: dict[int, int]
    """By replica, over all its metrics."""


def read_values(path: Path) -> list[tuple[str, float]]:
    """(metric, value) of all points, in the order they were read.

    Raises StudyError naming the file where it is not one of metrics.
    """
    table = _table(path)
    return list(zip(table["metric"].to_pylist(), table["value"].to_pylist(), strict=True))


def read_readings(path: Path, metrics: Sequence[str]) -> Readings:
    """The points of these metrics; raises StudyError naming the file where it is not one of metrics."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _table(path)
    firsts = table.group_by("replica").aggregate([("time_unix_ms", "min")]).to_pylist()
    wanted = table.filter(pc.is_in(table["metric"], value_set=pa.array(metrics)))
    return Readings(
        points=[Point(**row) for row in wanted.to_pylist()],
        first_unix_ms={row["replica"]: row["time_unix_ms_min"] for row in firsts},
    )


def _table(path: Path) -> Any:
    """A pyarrow table with the types that we write and without gaps."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    kinds = {
        "time_unix_ms": pa.int64(),
        "replica": pa.int64(),
        "metric": pa.string(),
        "labels": pa.string(),
        "value": pa.float64(),
    }
    try:
        table = pq.read_table(path, columns=list(kinds))
        table = pa.table({name: table[name].cast(kind) for name, kind in kinds.items()})
        for labels in pc.unique(table["labels"]).to_pylist():
            if not isinstance(json.loads(labels or ""), dict):
                raise ValueError("labels that are no object")
    except (OSError, KeyError, ValueError, RecursionError, pa.ArrowException) as error:
        first = str(error).partition("\n")[0]
        raise StudyError(f"{path} is no whole file of metrics ({first}): run the study again.") from error
    if gaps := [name for name in kinds if table[name].null_count]:
        raise StudyError(f"{path} has gaps in its column {gaps[0]}: it was edited; run the study again.")
    return table
