"""Samples on disk: Parquet parts while the load runs, one `samples.parquet` when it ends.

A Parquet file without its footer cannot be read, so a single growing file would be lost with a killed run. Parts of at
most a second each are complete in themselves; `merge_parts` makes one file of them, also after a crash.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loadtests.arrivals.measured_time import MeasuredTime
from loadtests.errors import LoadEnvironmentError
from loadtests.generator.jobs import OUTCOMES
from loadtests.generator.load import ROW

SAMPLES: Final = "samples.parquet"
PARTS: Final = "samples.parts"

SCHEMA: Final = pa.schema(
    [
        pa.field("scheduled_ns", pa.int64(), nullable=False),
        pa.field("sent_ns", pa.int64()),
        pa.field("first_byte_ns", pa.int64()),
        pa.field("done_ns", pa.int64()),
        pa.field("outcome", pa.dictionary(pa.int8(), pa.string()), nullable=False),
        pa.field("status", pa.int32()),
        pa.field("sent_bytes", pa.int32(), nullable=False),
        pa.field("received_bytes", pa.int32(), nullable=False),
        pa.field("endpoint", pa.int16(), nullable=False),
        pa.field("image", pa.int32(), nullable=False),
        pa.field("images", pa.int16(), nullable=False),
        pa.field("correct", pa.bool_()),
        pa.field("warmup", pa.bool_(), nullable=False),
    ]
)
"""Times are time.monotonic_ns() of the generator's machine; null is what never happened."""

TIMES: Final = ("scheduled_ns", "sent_ns", "first_byte_ns", "done_ns")

_MERGED_ROWS: Final = 65_536


def measured_rows(rows: NDArray[np.int64], measured: MeasuredTime) -> NDArray[np.int64]:
    """Samples, (n, len(ROW)) int64, without those of the warm-up: what was due outside of the measured time."""
    return rows[measured.contains(rows[:, ROW.index("scheduled_ns")])]


def without_gaps(rows: NDArray[np.int64], measured: MeasuredTime) -> NDArray[np.int64]:
    """Measured samples on the time of the measured intervals put end to end, from the first one's begin on."""
    lengths_ns = measured.end_ns - measured.begin_ns
    gaps_ns = measured.begin_ns - measured.from_ns - (np.cumsum(lengths_ns) - lengths_ns)
    gap_ns = gaps_ns[measured.interval_of(rows[:, ROW.index("scheduled_ns")])]
    moved, times = rows.copy(), [ROW.index(name) for name in TIMES]
    moved[:, times] = np.where(rows[:, times] >= 0, rows[:, times] - gap_ns[:, None], rows[:, times])
    return moved


def rows_of(chunk: bytes) -> NDArray[np.int64]:
    """A chunk of the generator as an int64 array of (samples, len(ROW)); no copy."""
    return np.frombuffer(chunk, dtype=np.int64).reshape(-1, len(ROW))


def table_of(rows: NDArray[np.int64], images: int | NDArray[np.int16], measured: MeasuredTime) -> pa.Table:
    """Samples as an Arrow table of SCHEMA; `images` of a request: one number, or (prepared requests,)."""
    column = dict(zip(ROW, rows.T, strict=True))
    count = len(rows)
    outcome = pa.DictionaryArray.from_arrays(pa.array(column["outcome"].astype(np.int8)), pa.array(OUTCOMES))
    correct = column["correct"]
    arrays = [
        pa.array(column["scheduled_ns"]),
        *(_nullable(column[name], np.int64) for name in ("sent_ns", "first_byte_ns", "done_ns")),
        outcome,
        _nullable(column["status"], np.int32),
        pa.array(column["sent_bytes"].astype(np.int32)),
        pa.array(column["received_bytes"].astype(np.int32)),
        pa.array(column["endpoint"].astype(np.int16)),
        pa.array(column["image"].astype(np.int32)),
        pa.array(np.full(count, images, np.int16) if isinstance(images, int) else images[column["image"]]),
        pa.array(correct == 1, mask=correct < 0),
        pa.array(~measured.contains(column["scheduled_ns"])),
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


class SampleWriter:
    """Writes samples under `folder`. Raises LoadEnvironmentError where the disk is full or not writable."""

    def __init__(self, folder: Path, images: int | NDArray[np.int16]) -> None:
        """`images` of a request: one number, or (prepared requests,)."""
        self.folder = folder
        self.written = 0
        self._images = images
        self._waiting: list[NDArray[np.int64]] = []
        self._part = 0
        with on_disk(folder):
            (folder / PARTS).mkdir(parents=True, exist_ok=True)
            for stale in (*(folder / PARTS).iterdir(), folder / SAMPLES):
                stale.unlink(missing_ok=True)

    def add(self, rows: NDArray[np.int64]) -> None:
        """Keep samples for the next part."""
        self._waiting.append(rows)

    def flush(self, measured: MeasuredTime) -> None:
        """Write what was added since the last part as a part of its own; call it once a second."""
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting)
        with whole_file(self.folder / PARTS / f"{self._part:08d}.parquet") as temporary:
            pq.write_table(
                table_of(rows, self._images, measured),
                temporary,
                compression="zstd",
                use_dictionary=["outcome"],
            )
        self._waiting.clear()  # now that they lie there
        self._part += 1
        self.written += len(rows)

    def close(self, measured: MeasuredTime) -> Path:
        """Write the rest and merge the parts into samples.parquet."""
        self.flush(measured)
        return merge_parts(self.folder)


def merge_parts(folder: Path) -> Path:
    """Make samples.parquet of the parts and remove them; memory stays at one row group. Also for a killed run."""
    target, parts = folder / SAMPLES, sorted((folder / PARTS).glob("*.parquet"))
    with whole_file(target) as temporary, _writer(temporary, SCHEMA) as writer:
        for table in _grouped(parts):
            writer.write_table(table, row_group_size=_MERGED_ROWS)
    with on_disk(target):
        for part in (folder / PARTS).iterdir():
            part.unlink()
        (folder / PARTS).rmdir()
    return target


def shift_times(path: Path, shift_ns: int) -> None:
    """Tell the times of a samples.parquet on another machine's monotonic clock, which is so much ahead."""
    with (
        whole_file(path) as temporary,
        pq.ParquetFile(path) as file,
        _writer(temporary, file.schema_arrow) as writer,
    ):
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            for name in TIMES:
                place = table.schema.get_field_index(name)
                moved = pc.add(table.column(place), pa.scalar(shift_ns, pa.int64()))
                table = table.set_column(place, table.schema.field(place), moved)
            writer.write_table(table, row_group_size=_MERGED_ROWS)


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["outcome"])


def _grouped(parts: list[Path]) -> Iterable[pa.Table]:
    tables, rows = [], 0
    for part in parts:
        table = pq.read_table(part, schema=SCHEMA)
        tables.append(table)
        rows += len(table)
        if rows >= _MERGED_ROWS:
            yield pa.concat_tables(tables)
            tables, rows = [], 0
    if tables:
        yield pa.concat_tables(tables)


def _nullable(values: NDArray[np.int64], dtype: type[np.signedinteger]) -> pa.Array:
    return pa.array(values.astype(dtype), mask=values < 0)


class on_disk:
    """Turns an OSError into one sentence with the remedy, a LoadEnvironmentError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise LoadEnvironmentError(
                f"samples cannot be written to {self._path}: {reason}; free space there or choose another --out."
            ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place when the block ends, and is removed where that fails.

    A reader never sees a part of it, and a full disk keeps none. Raises LoadEnvironmentError as on_disk does.
    """
    temporary = path.with_suffix(".tmp")
    with on_disk(path):
        try:
            yield temporary
            temporary.rename(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
