"""The results as formatted cells: the cards at the top, a row for each metric, and a row for each run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from servestorm.analysis.metric import Metric, Value
from servestorm.analysis.results import Results
from servestorm.analysis.run import Run
from servestorm.analysis.slice_totals import SliceTotals, slice_totals
from servestorm.plan.labels import ENGINE_LABELS, ENGINE_SHORT, SAMPLES_MARK, number, p_text, spread
from servestorm.report import sentences, settings
from servestorm.report.part import Table

_CARD_ROWS = (
    ("steady.p50", "median, steady load"),
    ("steady.p99", "p99, steady load"),
    ("bursty.p99", "p99, bursty load"),
    ("coldstart.total_s", "cold start"),
    ("autoscaling.ready_s", "burst to a new replica"),
    ("training.epoch_s", "an epoch"),
    ("training.top1_percent", "top-1 accuracy"),
    ("training.cpu_ms_per_image", "CPU time of training"),
)


CAPTION = (
    "Every value is the mean over runs of each run's own value, percentiles too. ± is the standard deviation between "
    "runs, with the 95 % interval of the mean. A percentile marked (samples) is of all runs' answers together, because "
    "no single run has enough; an interval marked (samples) lies between two of the answers, ignores the scatter "
    "between runs, and is too narrow. p is that of the ratio of the "
    "means over runs, without a correction for the number of rows. A dash means too few answers or runs. Bold: the "
    "better one, by its verdict, or with p under 0.05 where there is no verdict."
)
"""How to read the table of results."""


SLICES_CAPTION = (
    "The load of a run is judged slice by slice. A slice is left out of every figure, in all runs of its round, if "
    "other programs or machines took too much in it, or if a request of the slice before was unanswered at its begin. "
    "It is left out of single figures if the load generator sent so late in it that they moved. These rules look at "
    "the machine and at the generator, never at an engine or at which latency is smaller."
)
"""How to read the table of slices."""


@dataclass(frozen=True)
class EngineName:
    """An engine's short name, and what must stand beside it: '(embedded, not TensorFlow Serving)', or ''."""

    name: str
    aside: str


@dataclass(frozen=True)
class CardRow:
    """One number of a card; `mark` is INVALID or DISTURBED where it comes from such runs alone, else ''."""

    term: str
    text: str
    unit: str
    mark: str


@dataclass(frozen=True)
class Card:
    """An engine's most important numbers; `colour` is its place among the colours of engines."""

    colour: int
    engine: EngineName
    rows: list[CardRow]


@dataclass(frozen=True)
class Pair:
    """Two engines that are compared: their key in Metric.p, and the column's title where there are several pairs."""

    key: str
    label: str


@dataclass(frozen=True)
class ResultCell:
    """One engine's value of a metric: its number, standard deviation and 95 % interval as text, '' where unknown."""

    text: str
    sd: str
    ci: str
    better: bool
    """Better than every other engine."""
    mark: str
    """INVALID or DISTURBED where it comes from such runs alone, else ''."""


@dataclass(frozen=True)
class ResultRow:
    """A metric with a cell for each engine and p for each pair."""

    label: str
    unit: str
    cells: list[ResultCell]
    ps: list[str]


@dataclass(frozen=True)
class ResultGroup:
    """The rows of a group of runs; `detail` is the load in words."""

    title: str
    detail: str
    rows: list[ResultRow]


@dataclass(frozen=True)
class RunRow:
    """One run; `kind` of its state is good, bad, warn or quiet."""

    id: str
    kind: str
    state: str
    cells: list[str]
    reasons: list[str]
    """Why it is INVALID, DISTURBED or not complete, and which of its figures are INVALID."""


@dataclass(frozen=True)
class RunTable:
    """Every run with its own numbers."""

    caption: str
    head: list[str]
    rows: list[RunRow]


def cards(results: Results) -> list[Card]:
    """A card for each engine; none where nothing was measured that has a place on it."""
    rows = [
        (metric, term, sentences.unit_of(results, metric))
        for key, term in _CARD_ROWS
        if (metric := results.metric(key))
    ]
    for start in ("scaling.images_per_s_x", "scaling.factor_x"):
        rows += [(m, m.label, m.unit) for m in results.metrics if m.key.startswith(start)][:1]
    if not rows:
        return []
    return [
        Card(index % 3, named(engine), [_card_row(metric.values[engine], term, unit) for metric, term, unit in rows])
        for index, engine in enumerate(results.engines)
    ]


def _card_row(value: Value, term: str, unit: str) -> CardRow:
    of_samples = f"{unit} {SAMPLES_MARK}" if value.value_from == "samples" else unit
    return CardRow(term, number(value.value), of_samples, mark_of(value))


def _text(value: Value) -> str:
    """'21.2', or '21.2 (samples)' where no run has answers enough for a percentile."""
    text = number(value.value)
    return f"{text} {SAMPLES_MARK}" if value.value_from == "samples" else text


def named(engine: str) -> EngineName:
    """The engine's names on the page."""
    return EngineName(ENGINE_SHORT[engine], ENGINE_LABELS[engine].removeprefix(ENGINE_SHORT[engine]).strip())


def mark_of(value: Value) -> str:
    """INVALID or DISTURBED for a number that comes from such runs alone, else ''."""
    if value.value is None or value.counts:
        return ""
    return "DISTURBED" if value.valid else "INVALID"


def pairs(results: Results) -> list[Pair]:
    """Every pair of engines."""
    both = list(itertools.combinations(results.engines, 2))
    return [Pair(f"{a}|{b}", f"{ENGINE_SHORT[a]} / {ENGINE_SHORT[b]}" if len(both) > 1 else "") for a, b in both]


def groups(results: Results) -> list[ResultGroup]:
    """The rows of the results by group of runs."""
    return [
        ResultGroup(
            results.groups[group], settings.load_text(results, group), [_row(results, metric) for metric in metrics]
        )
        for group, metrics in itertools.groupby(results.metrics, key=lambda metric: metric.group)
    ]


def _row(results: Results, metric: Metric) -> ResultRow:
    best = sentences.better(results, metric)
    cells = [_cell(metric.values[engine], engine == best) for engine in results.engines]
    return ResultRow(metric.label, metric.unit, cells, [p_text(metric.p[pair.key]) for pair in pairs(results)])


def _cell(value: Value, better: bool) -> ResultCell:
    _, sd = spread(value.value, value.sd)
    return ResultCell(_text(value), sd, _ci(value), better, mark_of(value))


def _ci(value: Value) -> str:
    """'11.9 to 12.7', '11.9 to 12.7 (samples)' where there are too few runs, or ''."""
    if value.ci is None:
        return ""
    return " to ".join(map(number, value.ci)) + (f" {SAMPLES_MARK}" if value.ci_from == "samples" else "")


def runs(results: Results) -> RunTable:
    """A row for each run, in the order in which they ran."""
    if any(run.scenario == "training" for run in results.runs):  # which no other run stands beside
        heads = ["epoch, s", "training, s", "images/s", "top-1, %", "loss", "cores, %", "memory, MiB"]
        return RunTable(_RUNS, ["Run", "State", *heads], [_run(run, _TRAINING_CELLS) for run in results.runs])
    head = ["Run", "State", "Requests", "p50", "p95", "p99", "mean", "images/s", "cold start, s"]
    return RunTable(
        f"{_RUNS} Latencies are ms per image.", head, [_run(run, _LOAD_CELLS, _requests(run)) for run in results.runs]
    )


_RUNS = "Every run with its own numbers, in the order in which they ran."
_LOAD_CELLS = ("p50", "p95", "p99", "mean_ms", "images_per_s", "total_s")
_TRAINING_CELLS = ("epoch_s", "total_s", "images_per_s", "top1_percent", "loss", "cpu_percent", "rss_peak_mib")


def _requests(run: Run) -> str:
    return f"{run.requests:,}" if run.requests else "–"


def slices(results: Results) -> Table | None:
    """Of how many slices of the load the figures of each engine are, and why others are left out; None without any."""
    head = ["Load", "Slices", "Count", "Disturbed", "Not drained", "Late for one figure", "INVALID figures"]
    rows = [_slice_row(results, total) for total in slice_totals(results.runs)]
    return Table("Slices of the load", head, rows) if rows else None


def _slice_row(results: Results, total: SliceTotals) -> list[str]:
    counts = (total.planned, total.counted, total.disturbed, total.undrained)
    late = ", ".join(f"{_figure(name)}: {count:,}" for name, count in total.late.items())
    invalid = ", ".join(f"{_figure(name)} in {count} of {total.runs} runs" for name, count in total.invalid.items())
    name = f"{results.groups[total.group]}: {ENGINE_SHORT[total.engine]}, slices of {number(total.length_s, 's')}"
    return [name, *(f"{count:,}" for count in counts), late or "none", invalid or "none"]


def _figure(name: str) -> str:
    """'p99.9', 'mean' or 'p99 of a request'."""
    return {"p999": "p99.9", "mean_ms": "mean"}.get(name) or (
        f"{name.removeprefix('request_')} of a request" if name.startswith("request_") else name
    )


def _run(run: Run, names: Sequence[str], *first: str) -> RunRow:
    kind, state = _state(run)
    reasons = [
        *run.reasons,
        *([run.disturbed.reason] if run.disturbed else []),
        *(f"{_figure(name)} is INVALID: {reason}" for name, reason in run.invalid_figures.items()),
    ]
    return RunRow(run.id, kind, state, [*first, *(number(run.numbers.get(name)) for name in names)], reasons)


def _state(run: Run) -> tuple[str, str]:
    """The kind of a run's state, and its name."""
    if run.state != "complete":
        return "bad", run.state
    if run.valid is False:
        return "bad", "INVALID"
    if run.disturbed:
        return "warn", "DISTURBED"
    return ("quiet", "complete") if run.valid is None else ("good", "VALID")
