"""The figures of one run under load, from its samples: the study's live verdicts, analysis and report use the same."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from servestorm.methods.percentile_claim import percentile_claim
from servestorm.methods.percentiles import QUANTILES, percentile
from servestorm.methods.samples import Samples

MEAN: Final = "mean"
"""The key of the mean in MOST_MOVED; the figure is called mean_ms."""
P99_CLAIM: Final = "p99_claim"
"""What may be promised of p99 (see servestorm.methods.percentile_claim)."""


def run_figures(samples: Samples, *, duration_s: float, cpu_s: float | None) -> dict[str, float | None]:
    """The figures of a run by the names of their rows, from the slices that count; None is what is unknown.

    p50 to p999 and p99_claim (ms per image), request_p50 and request_p99 (ms, where a request holds several images),
    mean_ms, images_per_s, failed_percent and cpu_ms_per_image. A percentile that the generator's lag made INVALID is
    None, as is one of too few answers. `duration_s` is the measured time of the load; `cpu_s` the CPU time of its
    servers over the whole of it, which counts where they were not read slice by slice.
    """
    latencies_ms = _Latencies(samples)
    numbers = {name: latencies_ms.percentile(name) for name in QUANTILES}
    if _several_images(samples):
        numbers |= {f"request_{name}": _request_percentile(samples, name) for name in ("p50", "p99")}
    mean_of = latencies_ms.of(MEAN)
    numbers["mean_ms"] = float(mean_of.mean()) if mean_of.size and MEAN not in samples.use.invalid else None
    del latencies_ms, mean_of  # of ten million answers they are too large to keep beside what follows
    numbers[P99_CLAIM] = _p99_claim(samples)
    numbers["images_per_s"] = samples.images_per_s(duration_s)
    numbers["failed_percent"] = _failed_percent(samples)
    numbers["cpu_ms_per_image"] = _cpu_ms_per_image(samples, cpu_s)
    return numbers


class _Latencies:
    """Milliseconds per image of the right answers, sorted once for all figures that leave nothing more out."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._common = np.sort(samples.latencies_ms())

    def of(self, figure: str) -> NDArray[np.float64]:
        late = figure in self._samples.use.late
        return self._samples.latencies_ms(figure) if late else self._common

    def percentile(self, name: str) -> float | None:
        return None if name in self._samples.use.invalid else percentile(self.of(name), QUANTILES[name])


def _p99_claim(samples: Samples) -> float | None:
    """What p99 does not exceed, with 99 % confidence; of the answers that p99 is of."""
    if "p99" in samples.use.invalid:
        return None
    return percentile_claim(samples.latencies_ms("p99"), QUANTILES["p99"], samples.slice_of()[samples.right("p99")])


def _several_images(samples: Samples) -> bool:
    return bool(samples.ok.any()) and int(samples.images.max()) > 1


def _request_percentile(samples: Samples, name: str) -> float | None:
    return None if name in samples.use.invalid else percentile(samples.requests_ms(name), QUANTILES[name])


def _failed_percent(samples: Samples) -> float | None:
    right: NDArray[np.bool_] = samples.ok[samples.counted()]
    return 100 * float(1 - right.mean()) if right.size else None


def _cpu_ms_per_image(samples: Samples, cpu_s: float | None) -> float | None:
    """By the images of all right answers of the time over which the CPU time was read, lead-ins and warm-up too."""
    if samples.turns is None or samples.images_by_slice is None:
        images = samples.images_with_warmup
        return 1000 * cpu_s / images if cpu_s is not None and images else None
    known = samples.use.counted() & ~np.isnan(samples.turns.cpu_s)
    images = int(samples.images_by_slice[known].sum())
    return 1000 * float(samples.turns.cpu_s[known].sum()) / images if images else None


def invalid_figures(samples: Samples) -> dict[str, str]:
    """Why figures are INVALID, by the names of their rows."""
    reasons: dict[str, str] = {}
    for name, reason in samples.use.invalid.items():
        reasons["mean_ms" if name == MEAN else name] = reason
        if name == "p99":
            reasons[P99_CLAIM] = reason
        if name == "p99":
            reasons[P99_CLAIM] = reason
        if name in ("p50", "p99") and _several_images(samples):
            reasons[f"request_{name}"] = reason
    return reasons
