"""Which runs of two engines are compared in pairs: those of rounds in which the engines took turns."""

from __future__ import annotations

from typing import Final

from servestorm.analysis.metric import Value
from servestorm.methods.ratio import effect_of
from servestorm.methods.rounds import pairs_of
from servestorm.plan.cells import Scenario

PAIRED: Final[frozenset[Scenario]] = frozenset({"steady", "bursty", "capacity"})
"""Scenarios whose runs are compared in pairs where the plan is interleaved: the engines of a round take turns.

Cold starts run one after another and have next to nothing in common.
"""
Rounds = tuple[list[int], list[int]]


def rounds_of(scenario: str, left: Value, right: Value, *, interleaved: bool) -> Rounds | None:
    """The round of each run of the two; None where the runs are independent, or where one may not be compared."""
    has_rounds = all(len(value.rounds) == len(value.runs) for value in (left, right))
    paired = interleaved and scenario in PAIRED and has_rounds and left.counts and right.counts
    return (left.rounds, right.rounds) if paired else None


def p_of(left: Value, right: Value, rounds: Rounds | None) -> float | None:
    """Two-sided p over runs, that of a verdict before its corrections; None where runs are too few or may not count."""
    if not (left.counts and right.counts):
        return None
    side = pairs_of(left.runs, right.runs, rounds)
    effect = effect_of(side.a, side.b, paired=side.paired)
    return effect.p if effect else None
