"""The samples of one load as arrays, whoever reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEVER_NS = np.iinfo(np.int64).min
"""The latency of a request that got no reply."""


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
