"""How long one more run of two engines takes, from how long their runs took: what advice says in minutes."""

from __future__ import annotations

import datetime
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from servestorm.analysis.groups import group_key
from servestorm.rundir.record import CellRecord
from servestorm.rundir.shapes.cell import OutcomeFile
from servestorm.rundir.shapes.study import StudyFile

Span = tuple[float, float]
"""Begin and end, Unix time in s."""


def round_seconds(cells: Iterable[CellRecord], study: StudyFile) -> dict[tuple[str, str, str], float]:
    """By (group, engine, engine), mean over the repetitions that both engines completed, start and end of servers
    included.

    Where both stood together the time counts once. Pairs of which no repetition is complete are left out, and those of
    run directories without the times.
    """
    spans: dict[tuple[str, int], dict[str, list[Span]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if cell.complete and cell.outcome and (span := _span(cell.outcome)):
            group = group_key(cell.cell, study)
            spans[group, cell.cell.repetition][cell.cell.engine].append(span)
    return _means(spans, [str(engine) for engine in study.plan.engines])


def _means(
    spans: Mapping[tuple[str, int], Mapping[str, Sequence[Span]]], engines: Sequence[str]
) -> dict[tuple[str, str, str], float]:
    lengths = defaultdict(list)
    for (group, _), own in spans.items():
        for a, b in itertools.combinations(engines, 2):
            if a in own and b in own:
                lengths[group, a, b].append(_covered_s([*own[a], *own[b]]))
    return {key: sum(values) / len(values) for key, values in lengths.items()}


def _span(outcome: OutcomeFile) -> Span | None:
    if outcome.started_at is None or outcome.ended_at is None:
        return None
    begin_s, end_s = (datetime.datetime.fromisoformat(at).timestamp() for at in (outcome.started_at, outcome.ended_at))
    return (begin_s, end_s) if begin_s <= end_s else None  # the clock was set back in between


def _covered_s(spans: Iterable[Span]) -> float:
    """The time that the spans cover, what is in several of them once."""
    covered_s, until_s = 0.0, -float("inf")
    for begin_s, end_s in sorted(spans):
        covered_s += max(0.0, end_s - max(begin_s, until_s))
        until_s = max(until_s, end_s)
    return covered_s
