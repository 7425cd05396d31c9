"""The Pareto front of throughput against latency: what no other setting beats on both."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float | None, float | None]]) -> list[int]:
    """Indices of the points (throughput, p99) on the front, by rising throughput.

    Larger throughput and smaller p99 are better. A point is on the front where no other is at least as good in both and
    better in one; of equal points all are kept. A point that lacks a figure is never on it.
    """
    known = [(x, y, i) for i, (x, y) in enumerate(points) if x is not None and y is not None]
    places: list[int] = []
    best: tuple[float, float] | None = None  # throughput and p99 of the last one kept
    for throughput, p99, index in sorted(known, key=lambda point: (-point[0], point[1], -point[2])):
        if best is None or p99 < best[1] or (throughput, p99) == best:
            places.append(index)
            best = throughput, p99
    return places[::-1]
