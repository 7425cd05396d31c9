"""The generator's samples as arrays: the one place that reads samples.parquet.

Ten million samples must fit beside everything else in 1 GB, so a file is read batch by batch into integers of the width
that they need (23 bytes a sample); seconds and milliseconds are made of them where they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from servestorm.errors import StudyError
from servestorm.methods.bursts import Flags, Times
from servestorm.methods.samples import NEVER_NS, Samples
from servestorm.methods.slices import SECOND_NS, LoadTurns, SliceUse, of_turns, whole
from servestorm.rundir.files import SLICES
from servestorm.rundir.sample_columns import OK, OUTCOME, WARMUP, sample_file

ROUNDING_NS: Final = 1_000_000
"""A request may be due so much outside of its slice: both moments were rounded."""
_LAGS_NS: Final = (np.iinfo(np.int32).min, np.iinfo(np.int32).max)


def read_samples(path: Path, slice_s: float = 1.0, duration_s: float = 0.0) -> Samples:
    """Read samples.parquet without the warm-up, in slices of `slice_s` seconds that all count.

    `duration_s` is the measured time, which may cut the last slice short. Raises StudyError naming the file where it is
    not one of samples.
    """
    reader = _read(path, _Reader)
    return reader.samples(int(slice_s * SECOND_NS), duration_s)


def read_turns(path: Path, turns: LoadTurns, begins_ns: Times) -> tuple[Samples, Times]:
    """As read_samples, of a load that took turns: all its slices count.

    `begins_ns` are moments in ascending order, such as the begins of the slices of all loads of a round; the second
    result is how many of this load's requests, those of the warm-up too, were due and unanswered at each.
    Raises StudyError as well where a request is due outside of the turns.
    """
    reader = _read(path, lambda path, rows: _TurnsReader(path, rows, turns, begins_ns))
    return reader.samples_in_turns(), reader.unanswered


AnyReader = TypeVar("AnyReader", bound="_Reader")


def _read(path: Path, make: Callable[[Path, int], AnyReader]) -> AnyReader:
    with sample_file(path) as file:
        reader = make(path, file.rows)
        for batch in file.batches(["scheduled_ns", "sent_ns", "done_ns", "images", WARMUP, OUTCOME]):
            reader.add(_cast(batch))
    return reader


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


def read_mean_latency(path: Path, since_ns: int | None = None) -> MeanLatency | None:
    """The mean latency in its two parts, over the right answers after the warm-up; None without one.

    Where `since_ns` is given, of the monotonic clock, over all right answers to requests that were due since then.
    Raises StudyError for a broken file.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    times = ["scheduled_ns", "sent_ns", "done_ns"]
    count, lag_ns, service_ns = 0, 0, 0
    with sample_file(path) as file:
        for batch in file.batches([*times, OUTCOME, WARMUP]):
            late = batch["scheduled_ns"]
            wanted = pc.invert(batch[WARMUP]) if since_ns is None else pc.greater_equal(late, since_ns)
            right = batch.filter(pc.and_(pc.equal(batch[OUTCOME].cast(pa.string()), OK), wanted))
            if right["sent_ns"].null_count:
                raise StudyError(f"{path} has an answer to what was never sent: it was edited; run the study again.")
            scheduled, sent, done = (right[name].to_numpy(zero_copy_only=False) for name in times)
            count += len(scheduled)
            lag_ns += int(np.subtract(sent, scheduled).sum())
            service_ns += int(np.subtract(done, sent).sum())
    return MeanLatency(count, lag_ns / count / 1e6, service_ns / count / 1e6) if count else None


_Columns = Mapping[str, Any]
"""pyarrow arrays by the names of their columns: pyarrow has no types for them."""


def _cast(batch: Any) -> _Columns:
    """The batch's columns with the types that the arithmetic needs."""
    import pyarrow as pa

    types = {name: pa.int64() for name in ("scheduled_ns", "sent_ns", "done_ns")} | {
        "images": pa.int16(),
        WARMUP: pa.bool_(),
    }
    columns = {name: batch.column(name).cast(kind) for name, kind in types.items()}
    outcome = batch.column(OUTCOME)
    # codes: ten million strings would cost more than all the rest
    columns[OUTCOME] = outcome if pa.types.is_dictionary(outcome.type) else outcome.dictionary_encode()
    return columns


class _Reader:
    """Fills arrays that have their final size from the start: growing ones would be held twice."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path = path
        self._scheduled_ns = np.empty(rows, np.int64)
        self._latency_ns = np.empty(rows, np.int64)
        self._lag_ns = np.empty(rows, np.int32)
        self._ok = np.empty(rows, np.bool_)
        self._images = np.empty(rows, np.int16)
        self._rows = self._images_with_warmup = 0

    def add(self, batch: _Columns) -> None:
        """Keep a batch's requests that are not of the warm-up."""
        for name in ("scheduled_ns", "images", "warmup", "outcome"):
            if batch[name].null_count:
                raise StudyError(f"{self.path} has gaps in its column {name}: it was edited; run the study again.")
        scheduled_ns, images = batch["scheduled_ns"].to_numpy(), batch["images"].to_numpy()
        latency_ns = np.array(batch["done_ns"].fill_null(0).to_numpy()) - scheduled_ns
        latency_ns[batch["done_ns"].is_null().to_numpy(zero_copy_only=False)] = NEVER_NS
        lag_ns = batch["sent_ns"].fill_null(0).to_numpy() - scheduled_ns
        lag_ns[batch["sent_ns"].is_null().to_numpy(zero_copy_only=False)] = 0
        np.clip(lag_ns, *_LAGS_NS, out=lag_ns)
        self._check(latency_ns, images)
        codes, names = batch["outcome"].indices.to_numpy(), batch["outcome"].dictionary
        ok = (latency_ns != NEVER_NS) & (codes == names.index(OK).as_py())
        self._images_with_warmup += int(images[ok].sum(dtype=np.int64))
        self._see(scheduled_ns, latency_ns, ok, images)
        measured = ~batch["warmup"].to_numpy(zero_copy_only=False)
        self._keep(measured, (scheduled_ns, latency_ns, lag_ns, ok, images))

    def _see(self, scheduled_ns: Times, latency_ns: Times, ok: Flags, images: NDArray[np.int16]) -> None:
        """All requests, those of the warm-up too."""

    def _check(self, latency_ns: NDArray[np.int64], images: NDArray[np.int16]) -> None:
        if images.min(initial=1) < 1:
            raise StudyError(f"{self.path} has a request of {images.min()} images: it was edited; run the study again.")
        if ((latency_ns < 0) & (latency_ns != NEVER_NS)).any():
            raise StudyError(f"{self.path} has a reply from before its request: it was edited; run the study again.")

    def _keep(self, measured: NDArray[np.bool_], columns: Sequence[NDArray[Any]]) -> None:
        end = self._rows + int(np.count_nonzero(measured))
        targets: tuple[NDArray[Any], ...] = (
            *(self._scheduled_ns, self._latency_ns, self._lag_ns),
            *(self._ok, self._images),
        )
        for target, column in zip(targets, columns, strict=True):
            target[self._rows : end] = column[measured]
        self._rows = end

    def samples(self, slice_ns: int, duration_s: float) -> Samples:
        """What was kept, with times from the first scheduled on."""
        due_ns = self._scheduled_ns[: self._rows]
        # subtracted while it is an integer: a double has no nanoseconds left once a machine is up for months
        begin_ns = int(due_ns.min()) if due_ns.size else 0
        due_ns -= begin_ns
        return self._samples(whole(slice_ns, int(due_ns.max(initial=0)), duration_s), begin_ns)

    def _samples(self, use: SliceUse, begin_ns: int) -> Samples:
        chosen = slice(self._rows)
        return Samples(
            scheduled_ns=self._scheduled_ns[chosen],
            latency_ns=self._latency_ns[chosen],
            lag_ns=self._lag_ns[chosen],
            ok=self._ok[chosen],
            images=self._images[chosen],
            images_with_warmup=self._images_with_warmup,
            use=use,
            begin_ns=begin_ns,
        )


class _TurnsReader(_Reader):
    """Puts the measured parts of the turns end to end."""

    def __init__(self, path: Path, rows: int, turns: LoadTurns, begins_ns: Times) -> None:
        super().__init__(path, rows)
        self._turns, self._begins_ns = turns, begins_ns
        self._images_by_slice = np.zeros(turns.begin_ns.size, np.int64)
        self._grown = np.zeros(begins_ns.size + 1, np.int64)

    @property
    def unanswered(self) -> Times:
        """Of each moment the requests that were due before it and unanswered then."""
        return np.cumsum(self._grown[:-1])

    def _see(self, scheduled_ns: Times, latency_ns: Times, ok: Flags, images: NDArray[np.int16]) -> None:
        answered = latency_ns != NEVER_NS
        due_ns, done_ns = scheduled_ns[answered], (scheduled_ns + latency_ns)[answered]
        moments = self._grown.size
        self._grown += np.bincount(np.searchsorted(self._begins_ns, due_ns, side="right"), minlength=moments)
        self._grown -= np.bincount(np.searchsorted(self._begins_ns, done_ns), minlength=moments)
        right_ns = scheduled_ns[ok]
        place = self._place(self._turns.begin_ns, right_ns)
        inside = (place >= 0) & (right_ns <= self._turns.end_ns[place] + ROUNDING_NS)
        counts = np.bincount(place[inside], images[ok][inside], minlength=self._images_by_slice.size)
        self._images_by_slice += counts.astype(np.int64)

    def _keep(self, measured: NDArray[np.bool_], columns: Sequence[NDArray[Any]]) -> None:
        due_ns, turns = columns[0][measured], self._turns
        place = self._place(turns.measured_ns, due_ns)
        if ((place < 0) | (due_ns > turns.end_ns[place] + ROUNDING_NS)).any():
            raise StudyError(
                f"{self.path} has requests outside of the slices of {SLICES} beside it: one of them was edited; run "
                "the study again."
            )
        inside_ns = np.clip(due_ns - turns.measured_ns[place], 0, turns.length_ns - 1)
        end_to_end = np.zeros_like(columns[0])
        end_to_end[measured] = place * turns.length_ns + inside_ns
        super()._keep(measured, (end_to_end, *columns[1:]))

    @staticmethod
    def _place(begins_ns: Times, times_ns: Times) -> NDArray[np.int64]:
        """The last slice that has begun, -1 before the first."""
        return np.searchsorted(begins_ns, times_ns + ROUNDING_NS, side="right").astype(np.int64) - 1

    def samples_in_turns(self) -> Samples:
        """What was kept, on the time of the measured slices put end to end."""
        samples = self._samples(of_turns(self._turns), int(self._turns.measured_ns[0]))
        return replace(samples, turns=self._turns, images_by_slice=self._images_by_slice)
