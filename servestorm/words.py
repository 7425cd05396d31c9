"""The results in sentences: what a reader should know before any table. Pure functions of the results."""

from __future__ import annotations

import itertools
from typing import Any

from servestorm.labels import ENGINE_SHORT, SCENARIO_LABELS, number, p_text
from servestorm.results import Metric, Results

ALPHA = 0.05
KEPT_UP = 0.95
"""Share of the offered images that an engine must answer in time to have kept up."""


def headline(results: Results) -> str:
    """One sentence for the top of the report."""
    engines = [ENGINE_SHORT[engine] for engine in results.engines]
    model = results.model.get("name", "the model")
    if len(engines) == 1:
        return f"How {engines[0]} serves {model}"
    return f"{', '.join(engines[:-1])} and {engines[-1]}, serving {model}"


def summary(results: Results) -> list[str]:
    """The findings, one sentence or two each, most important first."""
    found = [
        _compare(results, "steady.p50", "Under steady load the median answer took"),
        _tail(results, "steady"),
        _overload(results),
        _compare(results, "bursty.p50", "In bursty load the median answer took"),
        _tail(results, "bursty"),
        _compare(results, "coldstart.total_s", "A cold start, from process start to the first right answer, took"),
        _scaling(results),
    ]
    return [sentence for sentence in found if sentence]


def _known(metric: Metric) -> dict[str, float]:
    """Each engine's value, where there is one to be quoted."""
    return {engine: v.value for engine, v in metric.values.items() if v.value is not None and v.valid}


def _compare(results: Results, key: str, opening: str) -> str | None:
    """'opening 3.1 ms on A and 7.9 ms on B (2.5 times as long). ...'"""
    metric = results.metric(key)
    known = _known(metric) if metric else {}
    if not metric or not known:
        return None
    unit = metric.unit.split()[0]
    parts = [f"{number(value, unit)} on {ENGINE_SHORT[engine]}" for engine, value in known.items()]
    text = f"{opening} {_join(parts)}"
    if len(known) == 2 and min(known.values()) > 0:
        text += f" ({number(max(known.values()) / min(known.values()))} times as long)"
    return f"{text}. {_chance(metric, known)}".strip()


def _chance(metric: Metric, known: dict[str, float]) -> str:
    """Whether runs differ by more than their scatter, pair by pair."""
    sentences = []
    for a, b in itertools.combinations(known, 2):
        p = metric.welch_p.get(f"{a}|{b}")
        pair = f" between {ENGINE_SHORT[a]} and {ENGINE_SHORT[b]}" if len(known) > 2 else ""
        if p is None:
            sentences.append(f"There are too few runs to tell whether the difference{pair} is chance.")
        elif p < ALPHA:
            sentences.append(
                f"The difference{pair} is larger than the scatter between runs explains (Welch p {_equals(p)})."
            )
        else:
            sentences.append(f"The runs do not show that this difference{pair} is real (Welch p {_equals(p)}).")
    return " ".join(sentences)


def _equals(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _tail(results: Results, scenario: str) -> str | None:
    metric = results.metric(f"{scenario}.p99")
    if not metric:
        return None
    known = _known(metric)
    if not known:
        return None
    parts = [f"{number(value, 'ms')} on {ENGINE_SHORT[engine]}" for engine, value in known.items()]
    return f"One answer in a hundred took longer than {_join(parts)} ({SCENARIO_LABELS[scenario].lower()}, p99)."


def _overload(results: Results) -> str | None:
    """Who could not keep up with the steady load: its latencies then tell of a growing queue, not of the server."""
    metric, load = results.metric("steady.images_per_s"), results.study["plan"]["steady"]
    if not metric or not load:
        return None
    asked = load["rate_per_s"] * results.study["plan"]["images_per_request"]
    slow = [f"{ENGINE_SHORT[e]} ({number(v, 'images/s')})" for e, v in _known(metric).items() if v < KEPT_UP * asked]
    return (
        f"Did not keep up with {number(asked, 'images/s')}, so that requests queued: {_join(slow)}." if slow else None
    )


def _scaling(results: Results) -> str | None:
    factors = [m for m in results.metrics if m.key.startswith("scaling.factor_x") and _known(m)]
    if not factors:
        return None
    metric = factors[-1]
    count = metric.key.rpartition("x")[2]
    parts = [f"{number(value)} times on {ENGINE_SHORT[engine]}" for engine, value in _known(metric).items()]
    return f"{count} replicas gave {_join(parts)} the throughput of one."


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def doubts(results: Results) -> list[str]:
    """What a reader must know before believing the numbers: parity, the state of the study, cores, invalid runs."""
    parity = results.model.get("parity") or {}
    found = []
    if parity.get("status") == "NOT PROVED EQUAL":
        reason = f": {parity['reason'].rstrip('.')}" if parity.get("reason") else ""
        found.append(f"NOT PROVED EQUAL{reason}. The engines may not compute the same function.")
    if results.state != "complete":
        reason = f" ({results.reason.rstrip('.')})" if results.reason else ""
        found.append(f"This study is not complete: {results.state}{reason}.")
    found += results.notes
    for scenario, engine in results.unanswered():
        found.append(f"{SCENARIO_LABELS[scenario]} has no run of {ENGINE_SHORT[engine]} that counts.")
    return found


def parity_text(results: Results) -> str:
    """The proof of equality in a sentence."""
    parity = results.model.get("parity") or {}
    if not parity:
        return "nothing is known of the artifacts' equality"
    if parity["status"] != "proved":
        return "NOT PROVED EQUAL"
    difference = parity.get("max_abs_difference")
    figure = f"at most {difference:.1e}" if difference is not None else f"within {parity['tolerance']:g}"
    return f"proved equal: softmax outputs differ by {figure} on {parity['images']} images, encoded bytes in"


def validity(results: Results) -> str:
    """How many runs count, in a sentence."""
    judged = [run for run in results.runs if run.valid is not None]
    valid = sum(bool(run.valid) for run in judged)
    starts = [run for run in results.runs if run.scenario == "coldstart"]
    parts = []
    if judged:
        parts.append(f"{valid} of {len(judged)} load runs are VALID")
    if starts:
        parts.append(f"{sum(run.state == 'complete' for run in starts)} of {len(starts)} cold starts are complete")
    return f"{_join(parts)}." if parts else "No run has ended."


def load_text(plan: dict[str, Any], scenario: str) -> str:
    """What was asked in a scenario, such as '70 requests/s for 11 s, 3 runs'."""
    if scenario == "coldstart":
        return _times(plan["cold_starts"], "start")
    load = plan[scenario]
    if scenario == "steady":
        text = f"{load['rate_per_s']:g} requests/s for {load['duration_s']:g} s"
    elif scenario == "bursty":
        text = (
            f"{load['base_rate']:g} requests/s with bursts of {load['peak_rate']:g}/s ({load['on_s']:g} s on, "
            f"{load['off_s']:g} s off) for {load['duration_s']:g} s"
        )
    else:
        text = f"closed loop, {load['concurrency']} requests in flight for {load['duration_s']:g} s"
    return f"{text}, {_times(load.get('repetitions', plan['repetitions']), 'run')}"


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def cores_text(results: Results) -> str:
    """'core 0' or 'cores 0, 1'."""
    cores = results.study["cores"]["engine"]
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"


def batching_text(plan: dict[str, Any]) -> str:
    """Server-side batching in words."""
    batching = plan["batching"]
    if batching["max_batch_size"] == 1:
        return "off"
    return f"up to {batching['max_batch_size']} images, {batching['timeout_us']} µs wait"


def better(metric: Metric) -> str | None:
    """The engine that is better than every other with p under 0.05; None where none is."""
    known = _known(metric)
    if len(known) < 2 or len(known) < len(metric.values):
        return None
    choose = min if metric.better == "lower" else max
    best = choose(known, key=lambda engine: known[engine])
    ps = [p for pair, p in metric.welch_p.items() if best in pair.split("|")]
    return best if all(p is not None and p < ALPHA for p in ps) else None
