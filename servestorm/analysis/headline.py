"""What the first line of a report says: who is better at what, what is equal, what is open and why, what to promise.

It chooses among the verdicts of the results and decides nothing itself. The report puts it into words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from loadtests.samples.validity import samples_needed
from servestorm.analysis.judgements import Judgement
from servestorm.analysis.metric import Metric, Value
from servestorm.analysis.printable_ratio import Ratio, printable_ratio
from servestorm.analysis.results import Results
from servestorm.methods.percentiles import QUANTILES

LEADING: Final = (
    "steady.p50",
    "bursty.p50",
    "steady.p99",
    "bursty.p99",
    "steady.cpu_ms_per_image",
    "coldstart.total_s",
    "capacity.crossing_images_per_s",
    "capacity.images_per_s",
    "autoscaling.ready_s",
    "autoscaling.recover_s",
    "autoscaling.violations_percent",
    "autoscaling.replica_seconds",
    "training.epoch_s",
    "training.cpu_ms_per_image",
    "training.top1_percent",
    "training.rss_peak_mib",
)
"""The questions of the first line, the most important first; objectives on other metrics stand further below."""

Because = Literal["disturbed", "invalid", "late", "answers", "runs", "estimate", "alike", "scatter", "near"]
"""Why a question is open.

* disturbed, invalid: an engine has only such runs
* late: the load generator sent too late for this figure in the runs of an engine
* answers: no run has answers enough for this percentile
* runs: an engine has fewer than two runs with the figure
* estimate: the probes of an engine do not tell at which rate p99 meets the objective
* alike: the runs of each side are all alike, so that chance cannot be told
* scatter: the runs scatter too much to say anything of the ratio
* near: the ratio is known roughly, and is too near 1, or too uncertain, for a verdict
"""


@dataclass(frozen=True)
class Win:
    """An engine is better than another at a question."""

    question: str
    """Such as steady.p50."""
    engine: str
    over: str
    ratio: Ratio | None
    """The engine's figure by the other's; None where there is no number, or where it is so in several groups."""
    span: tuple[float, float] | None
    """The smallest and the largest ratio over those groups; None where there is one."""
    groups: list[str]
    """Titles of the groups of runs in which it is so."""
    of: int
    """Groups of runs in which it was asked."""


@dataclass(frozen=True)
class Equal:
    """Two engines are equivalent at a question, in every group of runs that is named."""

    question: str
    a: str
    b: str
    groups: list[str]
    of: int


@dataclass(frozen=True)
class Open:
    """A question without an answer."""

    question: str
    group: str
    """Title of the group of runs."""
    a: str
    b: str
    because: Because
    engines: list[str]
    """Those of the pair that are the reason; empty where it is neither."""
    detail: str
    """What the runs of those engines say of the reason; '' where there is nothing to add."""
    ratio: Ratio | None
    """b's figure by a's, where it may be printed."""
    runs_more: int | None
    """So many more runs of each (paired: rounds) would probably give an answer; None where that is not known."""
    paired: bool
    minutes_more: float | None
    """What those runs take."""
    load_s: int | None
    """Of `answers`: seconds of load in which a run gets answers enough; None where that is not known."""

    @property
    def leaves_one_out(self) -> bool:
        """Whether the interval leaves out 1, so that only the number of questions keeps it from being an answer."""
        return self.ratio is not None and self.ratio.interval is not None and not self.ratio.spans_one


@dataclass(frozen=True)
class Promise:
    """The largest rates that keep an objective, from a search."""

    group: str
    """Title of the group of runs."""
    several: bool
    """Whether there are other groups."""
    p99_ms: float
    images_per_s: dict[str, float]
    """By engine, the largest first."""
    without: list[str]
    """Engines that have no such rate."""


@dataclass(frozen=True)
class Headline:
    """All of it, the best engine's answers first."""

    wins: list[Win]
    equal: list[Equal]
    open: list[Open]
    promises: list[Promise]


def headline(results: Results) -> Headline:
    """What the first line of the results says."""
    asked = [(question, judged) for question in LEADING if (judged := _judged(results, question))]
    wins = [win for question, judged in asked for win in _wins(results, question, judged)]
    order = _best_first(results.engines, wins)
    wins.sort(key=lambda win: (order.index(win.engine), LEADING.index(win.question), order.index(win.over)))
    return Headline(
        wins=wins,
        equal=[equal for question, judged in asked for equal in _equal(results, question, judged)],
        open=[_open(results, question, one) for question, judged in asked for one in judged if _is_open(one)],
        promises=list(_promises(results)),
    )


def _judged(results: Results, question: str) -> list[Judgement]:
    scenario, name = question.split(".")
    keys = [metric.key for metric in results.rows(scenario, name)]
    return [one for one in results.verdicts if one.metric in keys]


def _is_open(judged: Judgement) -> bool:
    return judged.withheld is not None or judged.verdict.outcome == "inconclusive"


def _winner(judged: Judgement) -> str | None:
    return None if judged.withheld else {"A": judged.a, "B": judged.b}.get(judged.verdict.outcome)


def _by_pair(judged: Sequence[Judgement]) -> dict[tuple[str, str], list[Judgement]]:
    pairs: dict[tuple[str, str], list[Judgement]] = {}
    for one in judged:
        pairs.setdefault((one.a, one.b), []).append(one)
    return pairs


def _wins(results: Results, question: str, judged: Sequence[Judgement]) -> Iterator[Win]:
    for pair, own in _by_pair(judged).items():
        for engine, over in (pair, pair[::-1]):
            won = [one for one in own if _winner(one) == engine]
            if not won:
                continue
            ratios = [ratio.of(engine == one.b) for one in won if (ratio := printable_ratio(one.verdict))]
            several = len(won) > 1
            values = [ratio.value for ratio in ratios]
            yield Win(
                question=question,
                engine=engine,
                over=over,
                ratio=ratios[0] if ratios and not several else None,
                span=(min(values), max(values)) if values and several else None,
                groups=[results.groups[one.group] for one in won],
                of=len(own),
            )


def _best_first(engines: Sequence[str], wins: Sequence[Win]) -> list[str]:
    """The engines by how many questions each wins more than it loses; in the study's order where that is equal."""
    balance = dict.fromkeys(engines, 0)
    for win in wins:
        balance[win.engine] += 1
        balance[win.over] -= 1
    return sorted(engines, key=lambda engine: -balance[engine])


def _equal(results: Results, question: str, judged: Sequence[Judgement]) -> Iterator[Equal]:
    for (a, b), own in _by_pair(judged).items():
        alike = [one for one in own if not one.withheld and one.verdict.outcome == "equivalent"]
        if alike:
            yield Equal(question, a, b, [results.groups[one.group] for one in alike], len(own))


def _open(results: Results, question: str, judged: Judgement) -> Open:
    metric, verdict = results.metric(judged.metric), judged.verdict
    assert metric, "a verdict is on a row"
    because, engines, detail = _reason(results, metric, judged)
    ratio = printable_ratio(verdict) if because == "near" else None
    return Open(
        question=question,
        group=results.groups[metric.group],
        a=judged.a,
        b=judged.b,
        because=because,
        engines=engines,
        detail=detail,
        ratio=ratio,
        runs_more=verdict.runs_more,
        paired=verdict.paired,
        minutes_more=verdict.minutes_more,
        load_s=_load_s(results, question) if because == "answers" else None,
    )


def _reason(results: Results, metric: Metric, judged: Judgement) -> tuple[Because, list[str], str]:
    """Why there is no answer, which engines are the reason, and what their runs say of it."""
    pair = (judged.a, judged.b)
    values = {engine: metric.values[engine] for engine in pair}
    if disturbed := [engine for engine in pair if values[engine].disturbed]:
        return "disturbed", disturbed, "; ".join(_distinct(d.reason for v in values.values() if (d := v.disturbed)))
    if invalid := [engine for engine in pair if not values[engine].valid]:
        return "invalid", invalid, _first_reason(results, metric.group, invalid)
    if judged.withheld == "no estimate":
        return "estimate", [engine for engine in pair if not any(values[engine].runs)], ""
    if few := [engine for engine in pair if sum(run is not None for run in values[engine].runs) < 2]:
        return _too_few(results, metric, few, values)
    if judged.verdict.difference_percent is not None and judged.verdict.ci_percent is None:
        return "alike" if judged.verdict.p is None else "scatter", [], ""
    return "near" if printable_ratio(judged.verdict) else "scatter", [], ""


def _distinct(texts: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _first_reason(results: Results, group: str, engines: Sequence[str]) -> str:
    """The reason of the first run of a group that was INVALID or failed; '' where none gives one."""
    runs = [run for run in results.runs if run.group == group and run.engine in engines]
    return next((run.reasons[0] for run in runs if run.reasons), "")


def _too_few(
    results: Results, metric: Metric, few: list[str], values: Mapping[str, Value]
) -> tuple[Because, list[str], str]:
    """Fewer than two runs of an engine have the figure: for want of runs, of answers, or of a generator in time."""
    name = metric.key.rpartition(".")[2]
    counted = [run for run in results.runs if run.group == metric.group and run.engine in few and run.counts]
    if any(name in run.invalid_figures for run in counted):
        return "late", few, ""
    lacking = [engine for engine in few if len(values[engine].runs) >= 2]
    if lacking and values[lacking[0]].samples is not None:
        return "answers", lacking, ""
    return "runs", few, _first_reason(results, metric.group, few)


def _load_s(results: Results, question: str) -> int | None:
    """Seconds of steady load that give answers enough for a percentile; None of any other load."""
    load, name = results.study.plan.steady, question.rpartition(".")[2]
    if not load or not question.startswith("steady."):
        return None
    return math.ceil(samples_needed(QUANTILES[name]) / load.rate_per_s)


def _promises(results: Results) -> Iterator[Promise]:
    """The rates of every group of searches that counts."""
    rows = results.rows("capacity", "images_per_s")
    plan = results.study.plan.capacity
    for metric in rows if plan else []:
        known = metric.quotable()
        yield Promise(
            group=results.groups[metric.group],
            several=len(rows) > 1,
            p99_ms=plan.p99_ms if plan else 0.0,
            images_per_s=dict(sorted(known.items(), key=lambda item: -item[1])),
            without=[engine for engine in results.engines if engine not in known],
        )
