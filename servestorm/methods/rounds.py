"""Which runs are judged against each other: those of the same round, or all of either side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from servestorm.methods.welch import known


@dataclass(frozen=True)
class RunPairs:
    """The numbers that a verdict uses."""

    a: list[float]
    b: list[float]
    paired: bool
    """a[r] and b[r] are of one round."""
    rounds_seen: int | None = None
    """Of paired runs: rounds in which either side has a number."""


def pairs_of(
    a: Sequence[float | None], b: Sequence[float | None], rounds: tuple[Sequence[int], Sequence[int]] | None
) -> RunPairs:
    """The runs that have a finite number; with rounds (one for each run) those of rounds in which both sides have one.

    With fewer than two such rounds nothing can be judged in pairs, and the sides count as independent: each run has an
    instance of its own, and what rounds have in common only widens the interval then. Raises ValueError where the
    rounds do not fit the runs, or one is there twice.
    """
    if rounds is None:
        return RunPairs(known(a), known(b), False)
    first, second = _by_round(a, rounds[0]), _by_round(b, rounds[1])
    both = sorted(first.keys() & second.keys())
    if len(both) < 2:
        return RunPairs(known(a), known(b), False)
    return RunPairs([first[r] for r in both], [second[r] for r in both], True, len(first.keys() | second.keys()))


def _by_round(runs: Sequence[float | None], rounds: Sequence[int]) -> dict[int, float]:
    if len(runs) != len(rounds) or len(set(rounds)) != len(rounds):
        raise ValueError(f"{len(runs)} runs cannot be of the rounds {list(rounds)}: give each run a round of its own")
    pairs = zip(rounds, runs, strict=True)
    return {place: float(run) for place, run in pairs if run is not None and math.isfinite(run)}
