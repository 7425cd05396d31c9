"""The generator's samples as arrays: one place that knows their columns.

Ten million samples must fit beside everything else in 1 GB, so a file is read batch by batch into integers of the width
that they need (19 bytes a sample); seconds and milliseconds are made of them where they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servestorm.errors import StudyError

COLUMNS = ("scheduled_ns", "done_ns", "outcome", "images", "warmup")
_OTHERS = ("sent_ns", "sent_bytes", "received_bytes", "endpoint")
"""Columns that others read."""
NEVER_NS = np.iinfo(np.int64).min
"""The latency of a request that got no reply."""
_BATCH_ROWS = 131_072


@dataclass(frozen=True)
class Samples:
    """Requests of one run after its warm-up, in the order of the file; times from the first scheduled of them."""

    scheduled_ns: NDArray[np.int64]
    latency_ns: NDArray[np.int64]
    """From the scheduled time to the reply's last byte; NEVER_NS where no reply came."""
    ok: NDArray[np.bool_]
    """A right answer came (or an unchecked one, where answers are not checked)."""
    images: NDArray[np.integer[Any]]
    images_with_warmup: int
    """Images of all right answers, those of the warm-up too."""

    @property
    def scheduled_s(self) -> NDArray[np.float64]:
        """When each request was due, in seconds."""
        return self.scheduled_ns / 1e9

    @property
    def done_s(self) -> NDArray[np.float64]:
        """When each reply was there, in seconds; NaN where none came."""
        return np.where(self.latency_ns == NEVER_NS, np.nan, (self.scheduled_ns + self.latency_ns) / 1e9)

    @property
    def image_latency_ms(self) -> NDArray[np.float64]:
        """Of each right answer, from the scheduled time: milliseconds of its request by its images."""
        latency_ms = self.latency_ns[self.ok] / 1e6
        latency_ms /= self.images[self.ok]
        return latency_ms

    def images_per_s(self, duration_s: float) -> float | None:
        """Images of right answers by the measured time, which lasts until the last of them; None without a request."""
        if not self.ok.size:
            return None
        last_ns = (self.scheduled_ns[self.ok] + self.latency_ns[self.ok]).max() if self.ok.any() else 0
        return float(self.images[self.ok].sum(dtype=np.int64)) / max(duration_s, float(last_ns) / 1e9)


def pooled_ms(group: Sequence[Samples]) -> NDArray[np.float64]:
    """Milliseconds per image of all right answers of the runs together, sorted: every percentile is one of these."""
    pooled = np.empty(sum(int(np.count_nonzero(samples.ok)) for samples in group))
    begin = 0
    for samples in group:
        latencies = samples.image_latency_ms
        pooled[begin : begin + latencies.size] = latencies
        begin += latencies.size
    pooled.sort()
    return pooled


def read_samples(path: Path) -> Samples:
    """Read samples.parquet without the warm-up; raises StudyError naming the file where it is not one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _require_columns(path, file.schema_arrow)
            reader = _Reader(path, file.metadata.num_rows)
            for batch in _batches(file):
                reader.add(batch)
    except (OSError, pa.ArrowException) as error:
        first = str(error).splitlines()[0]
        raise StudyError(f"{path} is no whole file of samples ({first}): run the study again.") from error
    return reader.samples()


def _require_columns(path: Path, schema: Any) -> None:
    """All that anybody reads of samples is there, and of the kind that the generator writes."""
    import pyarrow.types as kinds

    if missing := {*COLUMNS, *_OTHERS} - set(schema.names):
        raise StudyError(f"{path} has no column {sorted(missing)[0]}: it comes from another version.")
    for name in (*COLUMNS, *_OTHERS):
        kind = schema.field(name).type
        if name == "outcome":
            fits = kinds.is_string(kind.value_type if kinds.is_dictionary(kind) else kind)
        else:
            fits = kinds.is_boolean(kind) if name == "warmup" else kinds.is_integer(kind)
        if not fits:
            raise StudyError(f"{path} has {kind} in its column {name}: it was edited; run the study again.")


def traffic_bytes(path: Path) -> tuple[int, int]:
    """Bytes sent to the servers and received from them, the warm-up's too."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    sent, received = 0, 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=["sent_bytes", "received_bytes"]):
            sent += pc.sum(batch["sent_bytes"]).as_py() or 0
            received += pc.sum(batch["received_bytes"]).as_py() or 0
    return sent, received


def _batches(file: Any) -> Iterator[dict[str, Any]]:
    """Columns of some rows at a time, with the types that the arithmetic needs."""
    import pyarrow as pa

    types = {"scheduled_ns": pa.int64(), "done_ns": pa.int64(), "images": pa.int16(), "warmup": pa.bool_()}
    for batch in file.iter_batches(_BATCH_ROWS, columns=list(COLUMNS)):
        columns = {name: batch.column(name).cast(kind) for name, kind in types.items()}
        outcome = batch.column("outcome")
        # codes: ten million strings would cost more than all the rest
        yield columns | {"outcome": outcome if pa.types.is_dictionary(outcome.type) else outcome.dictionary_encode()}


class _Reader:
    """Fills arrays that have their final size from the start: growing ones would be held twice."""

    def __init__(self, path: Path, rows: int) -> None:
        self._path = path
        self._scheduled_ns = np.empty(rows, np.int64)
        self._latency_ns = np.empty(rows, np.int64)
        self._ok = np.empty(rows, np.bool_)
        self._images = np.empty(rows, np.int16)
        self._rows = self._images_with_warmup = 0

    def add(self, batch: dict[str, Any]) -> None:
        """Keep a batch's requests that are not of the warm-up."""
        for name in ("scheduled_ns", "images", "warmup", "outcome"):
            if batch[name].null_count:
                raise StudyError(f"{self._path} has gaps in its column {name}: it was edited; run the study again.")
        scheduled_ns, images = batch["scheduled_ns"].to_numpy(), batch["images"].to_numpy()
        latency_ns = np.array(batch["done_ns"].fill_null(0).to_numpy()) - scheduled_ns
        latency_ns[batch["done_ns"].is_null().to_numpy(zero_copy_only=False)] = NEVER_NS
        self._check(latency_ns, images)
        codes, names = batch["outcome"].indices.to_numpy(), batch["outcome"].dictionary
        ok = (latency_ns != NEVER_NS) & (codes == names.index("ok").as_py())
        self._images_with_warmup += int(images[ok].sum(dtype=np.int64))
        self._keep(~batch["warmup"].to_numpy(zero_copy_only=False), (scheduled_ns, latency_ns, ok, images))

    def _check(self, latency_ns: NDArray[np.int64], images: NDArray[np.int16]) -> None:
        if images.min(initial=1) < 1:
            raise StudyError(
                f"{self._path} has a request of {images.min()} images: it was edited; run the study again."
            )
        if ((latency_ns < 0) & (latency_ns != NEVER_NS)).any():
            raise StudyError(f"{self._path} has a reply from before its request: it was edited; run the study again.")

    def _keep(self, measured: NDArray[np.bool_], columns: Sequence[NDArray[Any]]) -> None:
        end = self._rows + int(np.count_nonzero(measured))
        targets: tuple[NDArray[Any], ...] = (self._scheduled_ns, self._latency_ns, self._ok, self._images)
        for target, column in zip(targets, columns, strict=True):
            target[self._rows : end] = column[measured]
        self._rows = end

    def samples(self) -> Samples:
        """What was kept, with times from the first scheduled on."""
        kept = slice(self._rows)
        # subtracted while it is an integer: a double has no nanoseconds left once a machine is up for months
        self._scheduled_ns[kept] -= self._scheduled_ns[kept].min(initial=np.iinfo(np.int64).max)
        return Samples(
            scheduled_ns=self._scheduled_ns[kept],
            latency_ns=self._latency_ns[kept],
            ok=self._ok[kept],
            images=self._images[kept],
            images_with_warmup=self._images_with_warmup,
        )
