"""The generator's samples as arrays: one place that knows their columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from servestorm.errors import StudyError

COLUMNS = ("scheduled_ns", "done_ns", "outcome", "images", "warmup")


@dataclass(frozen=True)
class Samples:
    """Requests of one run after its warm-up, by scheduled time; times in seconds from the first of them."""

    scheduled_s: NDArray[np.float64]
    done_s: NDArray[np.float64]
    """NaN where no reply came."""
    ok: NDArray[np.bool_]
    """A right answer came (or an unchecked one, where answers are not checked)."""
    images: NDArray[np.int64]
    images_with_warmup: int
    """Images of all right answers, those of the warm-up too."""

    @property
    def image_latency_ms(self) -> NDArray[np.float64]:
        """Of each right answer, from the scheduled time: milliseconds of its request by its images."""
        return ((self.done_s - self.scheduled_s) * 1000 / self.images)[self.ok]

    def images_per_s(self, duration_s: float) -> float | None:
        """Images of right answers by the measured time, which lasts until the last of them; None without a request."""
        if not self.ok.size:
            return None
        last_s = float(self.done_s[self.ok].max()) if self.ok.any() else 0.0
        return float(self.images[self.ok].sum()) / max(duration_s, last_s)


def read_samples(path: Path) -> Samples:
    """Read samples.parquet without the warm-up; raises StudyError naming the file where it is not one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        first = str(error).splitlines()[0]
        raise StudyError(f"{path} is no whole file of samples ({first}): run the study again.") from error
    if missing := set(COLUMNS) - set(table.column_names):
        raise StudyError(f"{path} has no column {sorted(missing)[0]}: it comes from another version.")
    return _arrays(table)


def _arrays(table: Any) -> Samples:
    scheduled_ns = table["scheduled_ns"].to_numpy().astype(np.int64)
    done_ns = table["done_ns"].fill_null(-1).to_numpy().astype(np.int64)
    images = table["images"].to_numpy().astype(np.int64)
    ok = (done_ns >= 0) & (np.asarray(table["outcome"].to_pylist(), dtype=object) == "ok")
    measured = ~np.asarray(table["warmup"].to_numpy(), dtype=bool)
    # subtract before leaving int64: a double has no nanoseconds left once a machine is up for months
    start_ns = int(scheduled_ns[measured].min()) if measured.any() else 0
    done_s = np.where(done_ns >= 0, (done_ns - start_ns) / 1e9, np.nan)
    return Samples(
        scheduled_s=((scheduled_ns - start_ns) / 1e9)[measured],
        done_s=done_s[measured],
        ok=ok[measured],
        images=images[measured],
        images_with_warmup=int(images[ok].sum()),
    )
