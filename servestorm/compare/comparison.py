"""Two runs of a study against each other: the same verdicts as within one, and what is a regression.

A regression is a metric whose verdict says that OLD is better, and that is worse in NEW by more than the margin. The
difference itself is held against the margin, not the far end of its interval: the verdict has already shown that the
difference is no chance, and with three or five runs the whole interval is beyond a margin only where the difference is
several times as large, so that a gate on the interval would let most regressions through.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from servestorm.compare.conditions import differences, notes
from servestorm.errors import StudyError
from servestorm.methods.verdict import Better, Question, Verdict, verdicts
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.rundir.results_file import Recorded, RecordedMetric, RecordedValue, read_recorded

MARGIN_PERCENT = 5.0
DEFAULT_KEYS = (
    "coldstart.total_s",
    *(f"steady.{name}" for name in ("p50", "p99", "images_per_s", "failed_percent", "cpu_ms_per_image")),
    *(f"bursty.{name}" for name in ("p99", "failed_percent")),
    "capacity.crossing_images_per_s",
    *(f"autoscaling.{name}" for name in ("violations_percent", "ready_s", "recover_s")),
    *(f"training.{name}" for name in ("epoch_s", "top1_percent", "cpu_ms_per_image", "rss_peak_mib")),
    "scaling.images_per_s_x",
)
"""What is compared unless told otherwise; the last stands for every replica count."""
Finding = Literal["regression", "worse", "better", "equivalent", "inconclusive", "lost", "not compared"]


@dataclass(frozen=True)
class Row:
    """One metric of one engine. The verdict's A is OLD, its B is NEW."""

    engine: str
    key: str
    label: str
    unit: str
    better: Better
    old: RecordedValue
    new: RecordedValue
    verdict: Verdict | None
    """None where the numbers of a side are missing, INVALID or DISTURBED."""
    finding: Finding
    """worse: really worse, but by less than the margin; lost: OLD has the number and NEW has not."""
    reason: str
    """One sentence for a reader."""

    @property
    def name(self) -> str:
        """'steady.p99 of TorchServe'."""
        return f"{self.key} of {ENGINE_SHORT.get(self.engine, self.engine)}"


@dataclass(frozen=True)
class Comparison:
    """NEW against OLD."""

    old: str
    new: str
    margin_percent: float
    rows: list[Row]
    differs: list[str]
    """What differs in what was asked: the comparison was forced."""
    notes: list[str]

    def with_finding(self, *findings: Finding) -> list[Row]:
        """The rows with one of these findings."""
        return [row for row in self.rows if row.finding in findings]

    @property
    def judged(self) -> list[Row]:
        """The rows in which both sides have runs enough to be judged."""
        return [row for row in self.rows if row.verdict and (row.verdict.p is not None or row.finding == "equivalent")]


def compare(
    old: Path, new: Path, *, margin_percent: float | None = None, keys: Sequence[str] = (), force: bool = False
) -> Comparison:
    """Compare two run directories or results.json files; the margin is the plan's of OLD where none is given.

    Raises StudyError where a run cannot be read, where no metric is in both, and, unless forced, where the two did not
    ask the same: the message names what differs.
    """
    sides = read_recorded(old), read_recorded(new)
    differs = differences(*sides)
    if differs and not force:
        raise StudyError(
            f"{old} and {new} differ in {', '.join(differs)}: compare runs that asked the same, or give --force."
        )
    asked = sides[0].study.settings.margin_percent if margin_percent is None else margin_percent
    margin = MARGIN_PERCENT if asked is None else asked
    rows = _rows(*sides, margin, keys)
    if not rows:
        raise StudyError(f"{old} and {new} have no metric of an engine in common: compare runs of the same engines.")
    return Comparison(sides[0].id, sides[1].id, margin, rows, differs, notes(*sides))


def base_key(key: str) -> str:
    """'steady.p99' of 'steady[gRPC, 8 images].p99'."""
    return re.sub(r"\[[^\]]*\]", "", key)


Both = tuple[RecordedMetric, RecordedMetric]
Pair = tuple[str, RecordedMetric, RecordedValue, RecordedValue]


def _selected(keys: Sequence[str], both: Sequence[Both]) -> list[Both]:
    """The metrics to compare: those asked for, with or without their variant, or the usual ones."""
    present = [after.key for _, after in both]
    for key in keys:
        if key not in present and key not in map(base_key, present):
            close = difflib.get_close_matches(key, present, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(present) or 'none'}."
            raise StudyError(f"--metric {key} is not in both runs; {hint}")
    return [pair for pair in both if _is_wanted(pair[1].key, keys)]


def _is_wanted(key: str, keys: Sequence[str]) -> bool:
    base = base_key(key)
    return key in keys or base in keys if keys else base in DEFAULT_KEYS or base.startswith(DEFAULT_KEYS[-1])


def _rows(old: Recorded, new: Recorded, margin: float, keys: Sequence[str]) -> list[Row]:
    """Judge every selected metric of every engine as one family."""
    both = [(before, after) for after in new.metrics if (before := old.metric(after.key))]
    pairs = list(_pairs(_selected(keys, both)))
    family = {
        (engine, metric.key): Question(before.runs, after.runs, metric.better, names=("OLD", "NEW"))
        for engine, metric, before, after in pairs
        if before.counts and after.counts and _has_runs(before) and _has_runs(after) and not _are_claims(before, after)
    }
    judged = verdicts(family, margin / 100)
    return [_row(pair, judged.get((pair[0], pair[1].key)), margin) for pair in pairs]


def _pairs(both: Sequence[Both]) -> Iterable[Pair]:
    for before, after in both:
        if (before.better, before.unit) != (after.better, after.unit):
            units = f"{before.unit} ({before.better} is better) in OLD and {after.unit} ({after.better}) in NEW"
            raise StudyError(f"{after.key} is told in {units}: one was edited by hand; write both again.")
        for engine, value in after.values.items():
            if engine in before.values:
                yield engine, after, before.values[engine], value


_CLAIM: Final[tuple[Finding, str]] = (
    "not compared",
    "It is a bound that is promised, and not compared: compare the percentile itself.",
)


def _are_claims(before: RecordedValue, after: RecordedValue) -> bool:
    """Whether they are bounds, of which the difference says nothing."""
    return before.is_claim or after.is_claim


def _has_runs(value: RecordedValue) -> bool:
    return any(run is not None for run in value.runs)


def _row(pair: Pair, verdict: Verdict | None, margin: float) -> Row:
    engine, metric, before, after = pair
    if verdict:
        finding, reason = _finding(verdict, metric.better, margin), verdict.reason
    else:
        finding, reason = _CLAIM if _are_claims(before, after) else _missing(before, after)
    return Row(engine, metric.key, metric.label, metric.unit, metric.better, before, after, verdict, finding, reason)


def _finding(verdict: Verdict, better: Better, margin: float) -> Finding:
    if verdict.outcome in ("equivalent", "inconclusive"):
        return verdict.outcome
    if verdict.outcome == "B":
        return "better"
    if verdict.difference_percent is None:  # from nothing at all to something: beyond any margin
        return "regression"
    worse_percent = verdict.difference_percent if better == "lower" else -verdict.difference_percent
    return "regression" if worse_percent > margin else "worse"


def _missing(before: RecordedValue, after: RecordedValue) -> tuple[Finding, str]:
    """Why there is nothing to judge."""
    if before.counts and _has_runs(before):
        return "lost", _why_lost(after)
    if not before.valid:
        return "not compared", "OLD has only INVALID runs of it, which cannot be compared."
    if before.disturbed:
        reason = before.disturbed.reason
        return "not compared", f"OLD has only DISTURBED runs of it ({reason}), which cannot be compared: run OLD again."
    return "not compared", "OLD has no run with this number."


def _why_lost(after: RecordedValue) -> str:
    if not after.valid:
        return "NEW has only INVALID runs of it, which cannot be compared: run NEW again."
    if after.disturbed:
        reason = after.disturbed.reason
        return f"NEW has only DISTURBED runs of it ({reason}), which cannot be compared: run NEW again."
    return "NEW has no run with this number (too few right answers?): its report says why."
