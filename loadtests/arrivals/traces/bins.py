"""Counts of consecutive bins as arrivals, spread at random within their bin, block by block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from loadtests.arrivals.blocks import BLOCK_ARRIVALS


def scaled_counts(counts: NDArray[np.int64], scale: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """(bins,) counts of a load with so many times the arrivals: each arrival stays, or is repeated, at random."""
    whole, share = int(scale), scale - int(scale)
    return counts * whole + (rng.binomial(counts, share) if share else 0)


def cut_counts(
    counts: NDArray[np.int64], bin_ns: float, duration_ns: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts of the bins that begin before `duration_ns`, and the edges of these bins, (bins + 1,), int64 ns.

    Of a bin that the end cuts, an arrival stays with the probability of its part.
    """
    bins = int(min(len(counts), np.ceil(duration_ns / bin_ns)))
    kept, edges = counts[:bins].copy(), np.rint(np.arange(bins + 1) * bin_ns).astype(np.int64)
    if bins and edges[-1] > duration_ns:
        kept[-1] = rng.binomial(kept[-1], (duration_ns - edges[-2]) / (edges[-1] - edges[-2]))
        edges[-1] = duration_ns
    return kept, edges


def spread(counts: NDArray[np.int64], edges_ns: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.int64]]:
    """The arrivals of all bins in order, in sorted blocks: uniform in [edges_ns[i], edges_ns[i + 1]), int64 ns.

    The same arguments give the same arrivals each time.
    """
    rng, ends = np.random.default_rng([seed, 1]), np.cumsum(counts)
    first = 0
    while first < len(counts):
        begin = int(ends[first] - counts[first])
        # whole bins, so that a block that is sorted joins the next one in order
        after = max(int(np.searchsorted(ends, begin + BLOCK_ARRIVALS, side="right")), first + 1)
        if counts[first] > BLOCK_ARRIVALS:
            yield from _in_parts(int(counts[first]), int(edges_ns[first]), int(edges_ns[first + 1]), rng)
        else:
            yield _uniform(counts[first:after], edges_ns[first : after + 1], rng)
        first = after


def _in_parts(count: int, begin_ns: int, end_ns: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Of one large bin: how many of its arrivals fall into each part of it is drawn first."""
    parts = min(-(-2 * count // BLOCK_ARRIVALS), end_ns - begin_ns)
    edges_ns = np.rint(np.linspace(begin_ns, end_ns, parts + 1)).astype(np.int64)
    shares = rng.multinomial(count, np.diff(edges_ns) / (end_ns - begin_ns))
    for part in range(parts):
        yield _uniform(shares[part : part + 1], edges_ns[part : part + 2], rng)


def _uniform(counts: NDArray[np.int64], edges_ns: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    widths = np.repeat(np.diff(edges_ns), counts)
    arrivals: NDArray[np.int64] = np.repeat(edges_ns[:-1], counts) + (rng.random(len(widths)) * widths).astype(np.int64)
    arrivals.sort()
    return arrivals
