"""The noise in benchmarks/calibration/recorded/noise.npz, and runs resampled from it whose true ratio is known.

Rounds are drawn with replacement, and of a round the first slices, in their order: so drift stays as recorded,
between rounds, within them, and while a server warms up. Slices of a round are not resampled one by one, for that would
count their scatter twice: the recorded rounds differ by it already. Both sides of a round get the same slice numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from servestorm.methods.percentiles import nearest_rank

NOISE = Path(__file__).resolve().parents[2] / "benchmarks" / "calibration" / "recorded" / "noise.npz"
DUET = 255
LEAD_S = 0.25
"""Left out at the begin of a slice, as a study leaves out its lead-in."""
BLOCK = 4
"""Mean length of a block, in slices, where an endless stretch of load is made of recorded slices."""
FIGURES = ("p50", "p99", "cpu")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """One slice of load on one engine; its lead-in is left out of everything but the CPU time."""

    begin_s: float
    offset_ms: Floats
    """Scheduled time of each request since the slice's begin."""
    lag_ms: Floats
    service_ms: Floats
    """From the send to the answer."""
    cpu_ms_per_image: float
    idle_cpu_share: float
    """Of a core, used by the other engine meanwhile."""
    steal: float
    other_load: float
    """Share of all cores, used by neither servers nor generators."""

    @property
    def latency_ms(self) -> Floats:
        """From the schedule."""
        return self.lag_ms + self.service_ms


@dataclass(frozen=True)
class Recording:
    """What was recorded: for each round and each engine its slices, and the slice under the load of both."""

    engines: tuple[str, ...]
    rate_per_s: float
    slice_s: float
    rounds: tuple[tuple[tuple[Slice, ...], ...], ...]
    """[round][engine][slice]"""
    duets: tuple[tuple[Slice, ...], ...]
    """[round][engine]"""


@cache
def read_recording(path: Path = NOISE) -> Recording:
    """The recording; requests without a right answer are left out."""
    with np.load(path) as file:
        table = {name: file[name] for name in file.files}
    engines = tuple(map(str, table["engines"]))
    rounds, duets = [], []
    for number in range(int(table["round"].max()) + 1):
        sides = [_slices(table, number, engine) for engine in range(len(engines))]
        rounds.append(tuple(tuple(side[:-1]) for side in sides))
        duets.append(tuple(side[-1] for side in sides))
    return Recording(engines, float(table["rate_per_s"]), float(table["slice_s"]), tuple(rounds), tuple(duets))


def _slices(table: dict[str, NDArray], number: int, engine: int) -> list[Slice]:
    rows = (table["round"] == number) & (table["engine"] == engine)
    facts = np.flatnonzero((table["slice_round"] == number) & (table["slice_engine"] == engine))
    return [_slice(table, rows, int(place)) for place in facts]


def _slice(table: dict[str, NDArray], rows: NDArray[np.bool_], place: int) -> Slice:
    mine = rows & (table["slice"] == table["slice_number"][place])
    answered = mine & (table["service_us"] >= 0)
    after_lead = answered & (table["offset_us"] >= 1e6 * LEAD_S)
    watched_s = float(table["slice_watched_s"][place])
    return Slice(
        begin_s=float(table["slice_begin_s"][place]),
        offset_ms=table["offset_us"][after_lead] / 1e3,
        lag_ms=table["lag_us"][after_lead] / 1e3,
        service_ms=table["service_us"][after_lead] / 1e3,
        cpu_ms_per_image=1e3 * float(table["slice_cpu_s"][place]) / int(mine.sum()),
        idle_cpu_share=float(table["slice_idle_cpu_s"][place]) / watched_s,
        steal=float(table["slice_steal"][place]),
        other_load=float(table["slice_other_load"][place]),
    )


def quantile(values: Floats, q: float) -> float:
    """Nearest rank, as everywhere in the product."""
    rank = nearest_rank(values.size, q)
    return float(np.partition(values, rank)[rank])


def figures(slices: Sequence[Slice]) -> Floats:
    """p50 and p99 of the pooled latencies (ms) and CPU time per image (ms) of a run made of these slices."""
    latency = np.concatenate([one.latency_ms for one in slices])
    images = np.array([one.latency_ms.size for one in slices])
    cpu = float(np.average([one.cpu_ms_per_image for one in slices], weights=images))
    return np.array([quantile(latency, 0.5), quantile(latency, 0.99), cpu])


def blocks(size: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` of `size` places in stationary blocks of BLOCK on average, on a circle (Politis and Romano 1994)."""
    starts = rng.random(count) < 1 / BLOCK
    starts[0] = True
    fresh = rng.integers(0, size, count)
    since = np.arange(count) - np.maximum.accumulate(np.where(starts, np.arange(count), 0))
    begun = fresh[np.maximum.accumulate(np.where(starts, np.arange(count), 0))]
    return (begun + since) % size
