"""The generator's samples as arrays: the one place that reads samples.parquet.

Ten million samples must fit beside everything else in 1 GB, so a file is read batch by batch into integers of the width
that they need (19 bytes a sample); seconds and milliseconds are made of them where they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from servestorm.errors import StudyError
from servestorm.methods.bursts import Flags, LoadSamples, Times
from servestorm.methods.samples import NEVER_NS, Samples
from servestorm.rundir.sample_columns import OK, OUTCOME, WARMUP, SampleFile, sample_file


def read_samples(path: Path) -> Samples:
    """Read samples.parquet without the warm-up; raises StudyError naming the file where it is not one."""
    with sample_file(path) as file:
        reader = _Reader(path, file.rows)
        for batch in file.batches(["scheduled_ns", "done_ns", "images", WARMUP, OUTCOME]):
            reader.add(_cast(batch))
    return reader.samples()


def read_traffic_bytes(path: Path) -> tuple[int, int]:
    """Bytes sent to the servers and received from them, the warm-up's too; raises StudyError for a broken file."""
    import pyarrow.compute as pc

    sent, received = 0, 0
    with sample_file(path) as file:
        for batch in file.batches(["sent_bytes", "received_bytes"]):
            sent += pc.sum(batch["sent_bytes"]).as_py() or 0
            received += pc.sum(batch["received_bytes"]).as_py() or 0
    return sent, received


def read_requests_by_endpoint(path: Path, endpoints: int) -> NDArray[np.int64]:
    """Requests that were sent to each of `endpoints` (at least 1), the warm-up's too, int64 of shape (endpoints,).

    Raises StudyError for a broken file.
    """
    counts = np.zeros(endpoints, np.int64)
    with sample_file(path) as file:
        for batch in file.batches(["endpoint", "sent_ns"]):
            # a dropped arrival was never sent, and has no endpoint of its own
            sent = batch.filter(batch["sent_ns"].is_valid())
            counts += count_by_endpoint(sent["endpoint"].to_numpy(zero_copy_only=False), endpoints)
    return counts


def count_by_endpoint(endpoint: ArrayLike, endpoints: int) -> NDArray[np.int64]:
    """How often each of `endpoints` stands in `endpoint`, integers from 0; any others are left out."""
    index = np.asarray(endpoint).astype(np.int64)
    return np.bincount(index[(index >= 0) & (index < endpoints)], minlength=endpoints)


@dataclass(frozen=True)
class MeanLatency:
    """Means over the right answers after the warm-up."""

    requests: int
    lag_ms: float
    """From the scheduled time to the send."""
    service_ms: float
    """From the send to the last byte of the answer."""


def read_mean_latency(path: Path) -> MeanLatency | None:
    """The mean latency in its two parts; None without a right answer. Raises StudyError for a broken file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    times = ["scheduled_ns", "sent_ns", "done_ns"]
    count, lag_ns, service_ns = 0, 0, 0
    with sample_file(path) as file:
        for batch in file.batches([*times, OUTCOME, WARMUP]):
            right = batch.filter(pc.and_(pc.equal(batch[OUTCOME].cast(pa.string()), OK), pc.invert(batch[WARMUP])))
            if right["sent_ns"].null_count:
                raise StudyError(f"{path} has an answer to what was never sent: it was edited; run the study again.")
            scheduled, sent, done = (right[name].to_numpy(zero_copy_only=False) for name in times)
            count += len(scheduled)
            lag_ns += int(np.subtract(sent, scheduled).sum())
            service_ns += int(np.subtract(done, sent).sum())
    return MeanLatency(count, lag_ns / count / 1e6, service_ns / count / 1e6) if count else None


def read_load(path: Path, warmup_s: float) -> tuple[LoadSamples, int] | None:
    """The load of a samples.parquet, its times counted from the bursts' schedule, and that moment's own nanoseconds.

    The warm-up is a constant load whose first request is due at the very start, so it shows when the bursts' schedule
    began; without a warm-up the first request stands for the start, which is late by about one gap of the base rate.
    None where there is no sample at all. Raises StudyError naming the file where it is not one of samples.
    """
    with sample_file(path) as file:
        columns = _load_columns(file)
    return _load_of(*columns, warmup_s) if columns[0].size else None


def _load_columns(file: SampleFile) -> tuple[Times, Times, Flags, Flags]:
    """scheduled_ns, done_ns (-1 where there is none), ok and warmup of all samples, in the file's order."""
    import pyarrow.compute as pc

    rows = file.rows
    scheduled_ns, done_ns = np.empty(rows, np.int64), np.empty(rows, np.int64)
    ok, warmup = np.empty(rows, np.bool_), np.empty(rows, np.bool_)
    filled = 0
    for batch in file.batches(["scheduled_ns", "done_ns", OUTCOME, WARMUP]):
        part = slice(filled, filled + len(batch))
        scheduled_ns[part] = batch["scheduled_ns"].to_numpy(zero_copy_only=False)
        done_ns[part] = batch["done_ns"].fill_null(-1).to_numpy(zero_copy_only=False)
        ok[part] = pc.equal(batch[OUTCOME].cast("string"), OK).to_numpy(zero_copy_only=False)
        warmup[part] = batch[WARMUP].to_numpy(zero_copy_only=False)
        filled += len(batch)
    return scheduled_ns, done_ns, ok, warmup


def _load_of(scheduled_ns: Times, done_ns: Times, ok: Flags, warmup: Flags, warmup_s: float) -> tuple[LoadSamples, int]:
    start_ns = int(scheduled_ns.min()) + (int(warmup_s * 1e9) if warmup.any() else 0)
    # of the warm-up only what is still under way when the bursts' schedule begins counts, for the queue
    chosen = ~warmup | (done_ns > start_ns)
    order = np.argsort(scheduled_ns, kind="stable")  # samples lie in the order in which they ended
    order = order[chosen[order]]
    load = LoadSamples(scheduled_ns[order], done_ns[order], ok[order], start_ns=0)
    load.scheduled_ns[:] -= start_ns
    load.done_ns[:] -= start_ns  # what never was under way stays negative; what ended did so after the start
    return load, start_ns


_Columns = Mapping[str, Any]
"""pyarrow arrays by the names of their columns: pyarrow has no types for them."""


def _cast(batch: Any) -> _Columns:
    """The batch's columns with the types that the arithmetic needs."""
    import pyarrow as pa

    types = {"scheduled_ns": pa.int64(), "done_ns": pa.int64(), "images": pa.int16(), WARMUP: pa.bool_()}
    columns = {name: batch.column(name).cast(kind) for name, kind in types.items()}
    outcome = batch.column(OUTCOME)
    # codes: ten million strings would cost more than all the rest
    columns[OUTCOME] = outcome if pa.types.is_dictionary(outcome.type) else outcome.dictionary_encode()
    return columns


class _Reader:
    """Fills arrays that have their final size from the start: growing ones would be held twice."""

    def __init__(self, path: Path, rows: int) -> None:
        self._path = path
        self._scheduled_ns = np.empty(rows, np.int64)
        self._latency_ns = np.empty(rows, np.int64)
        self._ok = np.empty(rows, np.bool_)
        self._images = np.empty(rows, np.int16)
        self._rows = self._images_with_warmup = 0

    def add(self, batch: _Columns) -> None:
        """Keep a batch's requests that are not of the warm-up."""
        for name in ("scheduled_ns", "images", "warmup", "outcome"):
            if batch[name].null_count:
                raise StudyError(f"{self._path} has gaps in its column {name}: it was edited; run the study again.")
        scheduled_ns, images = batch["scheduled_ns"].to_numpy(), batch["images"].to_numpy()
        latency_ns = np.array(batch["done_ns"].fill_null(0).to_numpy()) - scheduled_ns
        latency_ns[batch["done_ns"].is_null().to_numpy(zero_copy_only=False)] = NEVER_NS
        self._check(latency_ns, images)
        codes, names = batch["outcome"].indices.to_numpy(), batch["outcome"].dictionary
        ok = (latency_ns != NEVER_NS) & (codes == names.index(OK).as_py())
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
        chosen = slice(self._rows)
        # subtracted while it is an integer: a double has no nanoseconds left once a machine is up for months
        self._scheduled_ns[chosen] -= self._scheduled_ns[chosen].min(initial=np.iinfo(np.int64).max)
        return Samples(
            scheduled_ns=self._scheduled_ns[chosen],
            latency_ns=self._latency_ns[chosen],
            ok=self._ok[chosen],
            images=self._images[chosen],
            images_with_warmup=self._images_with_warmup,
        )
