"""The summary, the reasons for doubt and other sentences of the report, as pure functions of the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from servestorm.analysis.counts_of_runs import run_counts
from servestorm.analysis.judgements import ObjectiveResult
from servestorm.analysis.looks import Looks, looks_of
from servestorm.analysis.metric import Metric
from servestorm.analysis.offered_rate import offered_rate
from servestorm.analysis.results import Results
from servestorm.analysis.rows import REQUEST_ROWS
from servestorm.plan.labels import ENGINE_SHORT, SCENARIO_LABELS, number, start_of
from servestorm.report import settings
from servestorm.rundir.shapes.environment import ManifestFile

ALPHA = 0.05


def title(results: Results) -> str:
    """What the report is about, in a line."""
    engines = [ENGINE_SHORT[engine] for engine in results.engines]
    if trained := settings.trained_text(results):
        return f"{listed(engines)}, training {trained}"
    model = listed([model.name if model else "the model" for model in results.models])
    if len(engines) == 1:
        return f"How {engines[0]} serves {model}"
    return f"{', '.join(engines[:-1])} and {engines[-1]}, serving {model}"


def summary(results: Results) -> list[str]:
    """The findings, one or two sentences each, most important first, for every group of runs."""
    findings = [
        *_each(results, "steady", "p50", "Under steady load the median answer took", _compare),
        *_each(results, "steady", "p99", "", _tail),
        *_each(results, "steady", "images_per_s", "", _overload),
        *_each(results, "capacity", "images_per_s", "", _capacity),
        *_each(results, "bursty", "p50", "In bursty load the median answer took", _compare),
        *_each(results, "bursty", "p99", "", _tail),
        *_each(results, "training", "epoch_s", "An epoch took", _compare),
        *_each(results, "training", "top1_percent", "", _accuracy),
        *_each(results, "coldstart", "total_s", _cold_start_text(results), _compare),
        *_scaling(results),
        *_each(results, "autoscaling", "ready_s", _FIRST_READY, _compare),
        *_each(results, "autoscaling", "recover_s", _RECOVERED, _compare),
        *_each(results, "autoscaling", "replicas_mean", "", _trade),
    ]
    return [*_disturbed(results), *_objectives(results), *(sentence for sentence in findings if sentence)]


def _disturbed(results: Results) -> list[str]:
    """For each group in which an engine has DISTURBED runs alone: that there is no verdict, and why."""
    sentences = []
    for group, title in results.groups.items():
        rows = [metric for metric in results.metrics if metric.group == group]
        found = {e: d for metric in rows for e in results.engines if (d := metric.values[e].disturbed)}
        if found:
            reasons = dict.fromkeys(one.reason for one in found.values())
            names = listed([ENGINE_SHORT[engine] for engine in found])
            sentences.append(f"{title}: no verdict, for every run of {names} was disturbed ({'; '.join(reasons)}).")
    return sentences


def _cold_start_text(results: Results) -> str:
    """How a sentence on cold starts begins."""
    return f"A cold start, from {start_of(settings.backend(results))} to the first right answer, took"


_FIRST_READY = "From the onset of a burst to the first new replica that was ready, it took"
_RECOVERED = "From the onset of a burst until answers met the objective again, it took at most"


def _each(
    results: Results, scenario: str, name: str, opening: str, make: Callable[[Results, Metric, str], str | None]
) -> list[str | None]:
    """The sentence for that row of every group, beginning with the group's title where there are several."""
    rows = results.rows(scenario, name)
    sentences = [(metric, make(results, metric, opening)) for metric in rows]
    return [f"{results.groups[m.group]}: {text}" if text and len(rows) > 1 else text for m, text in sentences]


def _objectives(results: Results) -> list[str]:
    return [_objective(results, objective) for objective in results.objectives if objective.met is not None]


def _objective(results: Results, objective: ObjectiveResult) -> str:
    """'A meets the objective steady.p99 of at most 50 ms per image: it is 20.7.' The bound as in the plan."""
    metric = results.metric(objective.metric)
    bound = f"at most {objective.at_most:,g}" if objective.at_most is not None else f"at least {objective.at_least:,g}"
    return (
        f"{ENGINE_SHORT[objective.engine]} {'meets' if objective.met else 'misses'} the objective {objective.metric} "
        f"of {bound}{f' {metric.unit}' if metric else ''}: it is {number(objective.value)}."
    )


def _compare(results: Results, metric: Metric, opening: str) -> str | None:
    """'opening 3.1 ms on A and 7.9 ms on B (2.5 times as long). ...'"""
    known = metric.quotable()
    if not known:
        return None
    text = f"{opening} {listed(_latencies(results, metric))}"
    if (times := metric.times_as_much()) is not None:
        text += f" ({number(times)} times as long)"
    return f"{text}. {_pooled(metric)}{_judgement(results, metric)}".strip()


def _latencies(results: Results, metric: Metric) -> list[str]:
    """'3.1 ms on A', or '0.9 ms per image on A' where a request holds several images."""
    unit = unit_of(results, metric)
    return [f"{number(value, unit)} on {ENGINE_SHORT[engine]}" for engine, value in metric.quotable().items()]


def unit_of(results: Results, metric: Metric) -> str:
    """The unit of a metric in a sentence: 'ms' for 'ms per image' where every request holds one image."""
    several = results.metric(f"{metric.group}.{REQUEST_ROWS[0].name}") is not None
    return metric.unit if several or metric.scenario == "training" else metric.unit.removesuffix(" per image")


def _pooled(metric: Metric) -> str:
    """Where a percentile is of all runs together, for no run has answers enough."""
    own = [ENGINE_SHORT[engine] for engine in metric.quotable() if metric.values[engine].value_from == "samples"]
    return f"Of {listed(own)} this is a percentile of all runs' answers together: no run has enough. " if own else ""


def _judgement(results: Results, metric: Metric) -> str:
    """What the verdicts on a metric say, pair by pair."""
    return " ".join(judged.verdict.reason for judged in results.verdicts if judged.metric == metric.key)


def _capacity(results: Results, metric: Metric, _opening: str) -> str | None:
    """'With a p99 of at most 50 ms the largest rate is 480 images/s on A and ...'"""
    known = metric.quotable()
    if not known:
        return None
    limit = settings.capacity_p99_ms(results)
    parts = [f"{number(value, 'images/s')} on {ENGINE_SHORT[engine]}" for engine, value in known.items()]
    text = f"With a p99 of at most {number(limit, 'ms')} the largest rate is {listed(parts)}."
    estimate = results.metric(f"{metric.group}.crossing_images_per_s")
    return f"{text} {_judgement(results, estimate) if estimate else ''}".strip()


def _tail(results: Results, metric: Metric, _opening: str) -> str | None:
    if not metric.quotable():
        return None
    load = SCENARIO_LABELS[metric.scenario].lower()
    text = f"One answer in a hundred took longer than {listed(_latencies(results, metric))} ({load}, p99)."
    return f"{text} {_claim(results, metric)}{_pooled(metric)}{_judgement(results, metric)}".strip()


def _claim(results: Results, p99: Metric) -> str:
    """What may be promised of a p99, where its samples allow a claim."""
    claim = results.metric(f"{p99.group}.p99_claim")
    if not claim or not claim.quotable():
        return ""
    return f"With 99 % confidence the p99 of every run is at most {listed(_latencies(results, claim))}. "


def _overload(results: Results, metric: Metric, _opening: str) -> str | None:
    """Engines that could not keep up with the steady load: their latency is that of a growing queue."""
    offered = offered_rate(metric, results.study)
    slow = [f"{ENGINE_SHORT[engine]} ({number(rate, 'images/s')})" for engine, rate in offered.behind.items()]
    asked = number(offered.images_per_s, "images/s")
    return f"Did not keep up with {asked}, so that requests queued: {listed(slow)}." if slow else None


def _accuracy(results: Results, metric: Metric, _opening: str) -> str | None:
    """'98.1 % of the held-out images were recognised by Keras and 97.9 % by PyTorch. ...'"""
    known = metric.quotable()
    if not known:
        return None
    parts = [f"{number(value, '%')} by {ENGINE_SHORT[engine]}" for engine, value in known.items()]
    return f"Held-out images were recognised right: {listed(parts)} (top-1). {_judgement(results, metric)}".strip()


def _scaling(results: Results) -> list[str]:
    """The gain from the largest number of replicas, group by group."""
    counts = settings.scaling_counts(results)
    if len(counts) < 2:
        return []
    base, count = counts[0], counts[-1]
    rows = [metric for metric in results.rows("scaling", f"factor_x{count}") if metric.quotable()]
    what = "capacity" if settings.scaling_measures_capacity(results) else "throughput"
    sentences = []
    for metric in rows:
        parts = [f"{number(value)} times on {ENGINE_SHORT[engine]}" for engine, value in metric.quotable().items()]
        text = f"{count} replicas gave {listed(parts)} the {what} of {'one' if base == 1 else base}."
        sentences.append(f"{results.groups[metric.group]}: {text}" if len(rows) > 1 else text)
    return sentences


def _trade(results: Results, metric: Metric, _opening: str) -> str | None:
    """'On average 1.6 on A of at most 3 replicas existed. Over the objective or unanswered: 4.1 % on A of ...'"""
    late = results.metric(f"{metric.group}.violations_percent")
    known, violations = metric.quotable(), late.quotable() if late else {}
    if not known or known.keys() - violations.keys():
        return None
    most = settings.most_replicas(results)
    replicas = [f"{number(value)} on {ENGINE_SHORT[engine]}" for engine, value in known.items()]
    missed = [f"{number(violations[engine], '%')} on {ENGINE_SHORT[engine]}" for engine in known]
    return (
        f"On average {listed(replicas)} of at most {most} replicas existed. Over the objective or unanswered: "
        f"{listed(missed)} of the requests."
    )


def listed(parts: Sequence[str]) -> str:
    """'a', 'a and b', or 'a, b and c'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def doubts(results: Results) -> list[str]:
    """Reasons to doubt the numbers: parity, the state of the study, shared cores, INVALID and DISTURBED runs."""
    sentences = []
    for model in results.models:
        parity = model.parity if model else None
        if parity and parity.status == "NOT PROVED EQUAL":
            reason = f": {parity.reason.rstrip('.')}" if parity.reason else ""
            sentences.append(f"NOT PROVED EQUAL{reason}. The engines may not compute the same function.")
    if results.state != "complete":
        reason = f" ({results.reason.rstrip('.')})" if results.reason else ""
        sentences.append(f"This study is not complete: {results.state}{reason}.")
    sentences += results.notes
    sentences += [doubt.sentence for doubt in results.doubts]
    for group, engine in results.unanswered():
        sentences.append(f"{results.groups[group]} has no run of {ENGINE_SHORT[engine]} that counts.")
    return sentences


def parity_text(model: ManifestFile | None) -> str:
    """The proof of a model's equality in a sentence."""
    parity = model.parity if model else None
    if not parity:
        return "equality of the artifacts is unknown"
    if parity.status != "proved":
        return "NOT PROVED EQUAL"
    difference = parity.max_abs_difference
    figure = f"at most {difference:.1e}" if difference is not None else f"within {parity.tolerance:g}"
    return f"proved equal: softmax outputs of {parity.images} encoded images differ by {figure}"


def validity(results: Results) -> str:
    """How many runs count, in a sentence."""
    counts = run_counts(results.runs)
    parts = []
    if counts.loads:
        parts.append(f"{counts.valid} of {counts.loads} load runs are VALID")
    if counts.disturbed:
        parts.append(f"{counts.disturbed} of {len(results.runs)} runs are DISTURBED")
    if counts.starts:
        parts.append(f"{counts.complete_starts} of {counts.starts} cold starts are complete")
    if counts.trainings:
        parts.append(f"{counts.complete_trainings} of {counts.trainings} trainings are complete")
    count = f"{listed(parts)}." if parts else "No run has ended."
    return " ".join([count, *map(_looks_text, looks_of(results))])


def _looks_text(looks: Looks) -> str:
    """'Steady load stopped after 4 rounds, because every question was decided (judged 3 times while it ran).'"""
    rounds, times = _counted(looks.rounds, "round"), _counted(looks.looks, "time")
    if looks.stopped_early:
        return f"{looks.title} stopped after {rounds}, because every question was decided (judged {times} on the way)."
    return f"{looks.title} ran for all of its time, {rounds} (judged {times} on the way)."


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def better(results: Results, metric: Metric) -> str | None:
    """The engine that is better than every other: by its verdicts if the metric is judged, else if p < 0.05."""
    known = metric.quotable()
    if len(known) < 2 or len(known) < len(metric.values):
        return None
    if any(one.unbatched and one.metric.rpartition(".")[0] == metric.group for one in results.verdicts):
        return None  # a mark cannot say that an engine did not batch, as a sentence does
    choose = min if metric.better == "lower" else max
    best = choose(known, key=lambda engine: known[engine])
    judged = [one for one in results.verdicts if one.metric == metric.key and best in (one.a, one.b)]
    if judged:
        wins = [one.verdict.outcome == ("A" if best == one.a else "B") for one in judged]
        return best if all(wins) else None
    ps = [p for pair, p in metric.p.items() if best in pair.split("|")]
    return best if all(p is not None and p < ALPHA for p in ps) else None
