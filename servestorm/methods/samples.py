"""The samples of one load as arrays, with which of its slices count: what every figure of a run is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servestorm.methods.slices import SECOND_NS, LoadTurns, SliceUse

NEVER_NS = np.iinfo(np.int64).min
"""The latency of a request that got no reply."""


@dataclass(frozen=True)
class Samples:
    """Requests of one run after its warm-up, in the order of the file; times from the first scheduled of them.

    Where the load took turns, times are those of its measured slices put end to end.
    """

    scheduled_ns: NDArray[np.int64]
    latency_ns: NDArray[np.int64]
    """From the scheduled time to the reply's last byte; NEVER_NS where no reply came."""
    lag_ns: NDArray[np.int32]
    """From the scheduled time to the send; more than two seconds are not told apart."""
    ok: NDArray[np.bool_]
    """A right answer came (or an unchecked one, where answers are not checked)."""
    images: NDArray[np.integer[Any]]
    images_with_warmup: int
    """Images of all right answers, those of the warm-up too."""
    use: SliceUse
    """Which slices count."""
    begin_ns: int = 0
    """The monotonic clock at time 0."""
    turns: LoadTurns | None = None
    """Of a load that took turns."""
    images_by_slice: NDArray[np.int64] | None = None
    """Of a load that took turns: images of the right answers of each slice, those of its lead-in too."""

    def slice_of(self) -> NDArray[np.int32]:
        """The slice of each request."""
        place = (self.scheduled_ns // self.use.slice_ns).astype(np.int32)
        return np.minimum(place, self.use.measured_s.size - 1, out=place)

    def counted(self, figure: str | None = None) -> NDArray[np.bool_]:
        """Of each request whether its slice counts for a figure (a key of MOST_MOVED), or for all."""
        slices = self.use.counted(figure)
        return np.ones(self.ok.size, np.bool_) if slices.all() else slices[self.slice_of()]

    def right(self, figure: str | None = None) -> NDArray[np.bool_]:
        """Of each request whether a right answer came and its slice counts."""
        return self.ok if self.use.counted(figure).all() else self.ok & self.counted(figure)

    def latencies_ms(self, figure: str | None = None) -> NDArray[np.float64]:
        """Of each right answer that counts, from the scheduled time: milliseconds of its request by its images."""
        right = self.right(figure)
        latency_ms = self.latency_ns[right] / 1e6
        latency_ms /= self.images[right]
        return latency_ms

    def requests_ms(self, figure: str | None = None) -> NDArray[np.float64]:
        """Of each right answer that counts, from the scheduled time: milliseconds of its request."""
        return self.latency_ns[self.right(figure)] / 1e6

    @property
    def image_latency_ms(self) -> NDArray[np.float64]:
        """The latencies of the slices that count for all figures."""
        return self.latencies_ms()

    def images_per_s(self, duration_s: float) -> float | None:
        """Images of right answers by the measured time, which lasts until the last of them; None without a request.

        Of a load that took turns every slice lasts until its own last answer. Of any other the measured time is cut
        by the share of it that does not count.
        """
        if not self.ok.size:
            return None
        right, counted = self.right(), self.use.counted()
        images = float(self.images[right].sum(dtype=np.int64))
        ends_ns = self.scheduled_ns[right] + self.latency_ns[right]
        if self.turns is not None:
            lasted_s = self.use.measured_s.copy()
            place = self.slice_of()[right].astype(np.int64)
            np.maximum.at(lasted_s, place, (ends_ns - place * self.use.slice_ns) / SECOND_NS)
            measured_s = float(lasted_s[counted].sum())
        else:
            last_s = float((self.scheduled_ns[self.ok] + self.latency_ns[self.ok]).max(initial=0)) / SECOND_NS
            share = float(self.use.measured_s[counted].sum() / self.use.measured_s.sum())
            measured_s = max(duration_s, last_s) * share
        return images / measured_s if measured_s else None


def pooled_ms(group: Sequence[Samples], figure: str | None = None) -> NDArray[np.float64]:
    """Milliseconds per image of all right answers of the runs together, sorted: every percentile is one of these."""
    pooled = np.empty(sum(int(np.count_nonzero(samples.right(figure))) for samples in group))
    begin = 0
    for samples in group:
        latencies = samples.latencies_ms(figure)
        pooled[begin : begin + latencies.size] = latencies
        begin += latencies.size
    pooled.sort()
    return pooled
