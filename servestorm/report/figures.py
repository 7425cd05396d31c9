"""The report's figures with what stands beside them: caption, text for those who cannot see, numbers as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from servestorm.analysis.latency_split import INFERENCE
from servestorm.analysis.metric import Metric
from servestorm.analysis.results import Results, usable
from servestorm.analysis.run import SearchResult
from servestorm.plan.labels import ENGINE_SHORT, SCENARIO_LABELS, number, phases_from_start, spread_text
from servestorm.report import autoscaling, plots, sentences
from servestorm.report import parts as report_parts
from servestorm.report.parts import Part, part


def figures(results: Results) -> list[dict[str, Any]]:
    """The report's sections of figures, each with its caption and its numbers as a table; `parts` may be empty."""
    of = {scenario: [g for g in results.groups if g.partition("[")[0] == scenario] for scenario in SCENARIO_LABELS}
    loads = [group for group in results.groups if group in results.figures["over_time"]]
    sections: list[tuple[str, str, Iterable[Part | None]]] = [
        ("verdicts", "Verdicts", [_verdicts(results)]),
        ("cold-start", "Cold start", (_cold_start(results, group) for group in of["coldstart"])),
        ("over-time", "Latency over time", (_over_time(results, group) for group in loads)),
        ("spectrum", "Percentile spectrum", (_spectrum(results, group) for group in loads)),
        ("split", "Where the time goes", (_split(results, group) for group in loads)),
        ("bursts", "Burst by burst", (_bursts(results, group) for group in of["bursty"])),
        ("capacity", "Capacity", (_capacity(results, group) for group in of["capacity"])),
        ("scaling", "Scaling", (_scaling(results, group) for group in of["scaling"])),
        ("scaling-law", "Scaling law", (_law(results, group) for group in of["scaling"])),
        ("autoscaling", "Autoscaling", (_followed(results, group) for group in of["autoscaling"])),
        ("fleet-cost", "Cost of the replicas", (_fleet_cost(results, group) for group in of["autoscaling"])),
        ("sweep", "Throughput against latency", (_sweep(results, group) for group in of["sweep"])),
        ("cost", "Cost", (_cost(results, group) for group in of["capacity"])),
        ("use", "Resource use", (_use(results, group) for group in (of["steady"] or of["bursty"]))),
        ("runs", "Scatter between runs", [_boxes(results)]),
    ]
    return [{"id": name, "title": title, "parts": [p for p in parts if p]} for name, title, parts in sections]


def _marked(results: Results, group: str, caption: str) -> str:
    """The caption, with a warning where an engine's part of the figure comes from INVALID runs alone."""
    rows = [metric for metric in results.metrics if metric.group == group]
    doubtful = [ENGINE_SHORT[e] for e in results.engines if any(not metric.values[e].valid for metric in rows)]
    return f"INVALID runs only: {', '.join(doubtful)}. {caption}" if doubtful else caption


def _subtitle(results: Results, group: str) -> str:
    """The group's title where its scenario has several groups: a section with one figure needs no second heading."""
    scenario = group.partition("[")[0]
    several = sum(other.partition("[")[0] == scenario for other in results.groups) > 1
    return results.groups[group] if several else ""


def _verdicts(results: Results) -> Part | None:
    rows = [
        {
            "label": judged.label,
            "a": judged.a,
            "b": judged.b,
            "difference_percent": judged.verdict.difference_percent,
            "ci_percent": judged.verdict.ci_percent,
            "g": judged.verdict.g,
            "g_ci": judged.verdict.g_ci,
            "smallest_effect_percent": judged.verdict.smallest_effect_percent,
            "p_holm": judged.verdict.p_holm,
            "outcome": judged.verdict.outcome,
        }
        for judged in results.verdicts
    ]
    return report_parts.verdicts("verdicts-figure", results.engines, rows, results.study.plan.margin_percent)


def _boxes(results: Results) -> Part | None:
    """Every metric that is judged, with its runs."""
    asked = dict.fromkeys(judged.metric for judged in results.verdicts)
    metrics = [metric for metric in results.metrics if metric.key in asked]
    data = {
        f"{results.groups[m.group]}: {m.label}, {m.unit}": {e: m.values[e].runs for e in results.engines}
        for m in metrics
    }
    return report_parts.boxes("runs-figure", results.engines, data)


def _capacity(results: Results, group: str) -> Part | None:
    runs = [run for run in results.runs if run.group == group and run.capacity]
    data = {
        engine: {"runs": [_search(run.capacity) for run in runs if run.engine == engine and run.capacity]}
        for engine in results.engines
    }
    asked = results.study.plan.capacity
    assert asked
    name = f"search-{plots.slug(group)}"
    return report_parts.capacity(name, results.engines, data, asked.p99_ms, _subtitle(results, group))


def _search(found: SearchResult) -> dict[str, Any]:
    whole = asdict(found)
    return {"rate": found.rate_per_s, **{k: whole[k] for k in ("low", "high", "confirmed", "probes", "crossing")}}


def _law(results: Results, group: str) -> Part | None:
    data = results.figures["scaling_law"].get(group, {})
    if not any(found["curve"] for found in data.values()):
        return None
    return report_parts.usl(f"law-{plots.slug(group)}", results.engines, data, _subtitle(results, group))


def _split(results: Results, group: str) -> Part | None:
    found = results.figures["split"].get(group, {})
    data = {engine: of["parts"] for engine, of in found.items()}
    inside = [row["ms"] for rows in data.values() for row in rows if row["part"] == INFERENCE]
    if all(ms is None for ms in inside):  # no server told anything: there is nothing to split
        return None
    notes = [f"{ENGINE_SHORT[engine]}: {' '.join(of['notes'])}" for engine, of in found.items() if of["notes"]]
    name = f"split-{plots.slug(group)}"
    part = report_parts.split(name, results.engines, data, " ".join(notes), results.groups[group])
    return part and {**part, "caption": _marked(results, group, part["caption"])}


def _bursts(results: Results, group: str) -> Part | None:
    runs = [run for run in results.runs if run.group == group and run.counts]
    data = {
        engine: [asdict(burst) for run in runs if run.engine == engine for burst in run.bursts]
        for engine in results.engines
    }
    asked = results.study.plan.bursty
    limit_ms = asked.objective_ms if asked else None
    rule = (
        f"The objective is {number(limit_ms, 'ms')} a request."
        if limit_ms
        else "Without an objective, recovered means as fast as 99 % of the answers before the first burst."
    )
    return report_parts.bursts(f"by-{plots.slug(group)}", results.engines, data, rule, _subtitle(results, group))


def _followed(results: Results, group: str) -> Part | None:
    data = results.figures["autoscaling"].get(group)
    if not data:
        return None
    counted = [run for run in usable(results.runs) if run.group == group]
    runs = {e: [run.autoscaling for run in counted if run.engine == e and run.autoscaling] for e in results.engines}
    asked = results.study.plan.autoscaling
    assert asked
    name = f"followed-{plots.slug(group)}"
    found = autoscaling.followed(name, results.engines, data, runs, asked.objective_ms, _subtitle(results, group))
    return found and {**found, "caption": _marked(results, group, found["caption"])}


def _fleet_cost(results: Results, group: str) -> Part | None:
    data = results.figures["fleet_cost"].get(group, {})
    late = results.metric(f"{group}.violations_percent")
    shares = {engine: value.value for engine, value in late.values.items()} if late else {}
    asked = results.study.plan.autoscaling
    assert asked
    name = f"fleet-{plots.slug(group)}"
    return autoscaling.cost(name, results.engines, data, asked.max_replicas, shares, _subtitle(results, group))


def _cost(results: Results, group: str) -> Part | None:
    data = results.figures["cost"].get(group, {})
    days = sorted({row["dated"] for rows in data.values() for row in rows})
    dated = " and ".join(dict.fromkeys([days[0], days[-1]])) if days else ""
    source = (
        f"On demand, from price lists of {dated}, every vCPU taken to do what one core of the study did: a figure to "
        "compare engines by, not a bill. The sources stand in results.json."
    )
    return report_parts.cost(f"cost-{plots.slug(group)}", results.engines, data, source, _subtitle(results, group))


def _sweep(results: Results, group: str) -> Part | None:
    data = results.figures["sweep"].get(group, {})
    return report_parts.sweep(f"front-{plots.slug(group)}", results.engines, data, _subtitle(results, group))


def _metric_table(results: Results, title: str, metrics: list[Metric]) -> dict[str, Any]:
    head = ["Measure", *(ENGINE_SHORT[engine] for engine in results.engines)]
    rows = [
        [f"{m.label}, {m.unit}", *(spread_text(m.values[e].value, m.values[e].sd) for e in results.engines)]
        for m in metrics
    ]
    return {"title": title, "head": head, "rows": rows}


def _cold_start(results: Results, group: str) -> Part | None:
    metrics = [m for m in results.metrics if m.group == group]
    if not any(value.value is not None for metric in metrics for value in metric.values.values()):
        return None
    named = phases_from_start(results.study.plan.backend)
    caption = (
        f"Mean seconds of each phase: {', '.join(named.values())}. Each tick is one start's first right answer. "
        f"{_PAGE_CACHE['cold' if 'cold page cache' in group else 'warm']}"
    )
    table = _metric_table(results, "Cold start by phase", metrics)
    name = f"start-{plots.slug(group)}"
    return part(name, plots.cold_start(results, group), caption, table, _subtitle(results, group))


_PAGE_CACHE = {
    "warm": "Files were in the page cache after the first start.",
    "cold": "Files were not in the page cache.",
}


def _over_time(results: Results, group: str) -> Part | None:
    data = results.figures["over_time"][group]
    drawing = plots.over_time(results, group)
    if not drawing:
        return None
    head = ["s", "offered requests/s"]
    for engine in results.engines:
        head += [f"{ENGINE_SHORT[engine]} median, ms", f"{ENGINE_SHORT[engine]} slowest, ms"]
    rows = []
    for index, second in enumerate(data["t_s"]):
        row = [f"{second:g}", number(data["offered_per_s"][index])]
        for engine in results.engines:
            series = data["engines"][engine]
            row += [number(series["median_ms"][index]), number(series["slowest_ms"][index])]
        rows.append(row)
    caption = (
        f"Above, the median answer of every {data['bin_s']:g} s, shaded up to the slowest one, all counted runs "
        "together (log scale). Beneath, the offered load."
    )
    title = results.groups[group]
    table = {"title": f"Latency over time, {title}", "head": head, "rows": rows}
    return part(f"over-time-{plots.slug(group)}", drawing, _marked(results, group, caption), table, title)


def _spectrum(results: Results, group: str) -> Part | None:
    drawing = plots.spectrum(results, group)
    if not drawing:
        return None
    data = results.figures["spectrum"][group]
    shares = sorted({share for points in data.values() for share, _ in points})
    by_engine = {engine: dict(map(tuple, points)) for engine, points in data.items()}
    rows = [
        [f"p{100 * share:.4g}", *(number(by_engine[engine].get(share)) for engine in results.engines)]
        for share in shares[::4]
    ]
    title = results.groups[group]
    head = ["Share", *(f"{ENGINE_SHORT[engine]}, ms per image" for engine in results.engines)]
    caption = "How slow the slow answers are (both axes logarithmic). A line ends where samples are too few to go on."
    table = {"title": f"Percentile spectrum, {title}", "head": head, "rows": rows}
    return part(f"tail-{plots.slug(group)}", drawing, _marked(results, group, caption), table, title)


def _scaling(results: Results, group: str) -> Part | None:
    drawing = plots.scaling(results, group)
    if not drawing:
        return None
    metrics = [m for m in results.metrics if m.group == group]
    plan = results.study.plan.scaling
    assert plan
    what = (
        "Capacity under the objective"
        if plan.measure == "capacity"
        else f"Throughput with {plan.concurrency} requests in flight"
    )
    caption = (
        f"{what}, {sentences.placed_text(results)}{sentences.limits_text(results)}. The dotted line is where replicas "
        "that simply added up would be."
    )
    table = _metric_table(results, "Throughput by replicas", metrics)
    name = f"replicas-{plots.slug(group)}"
    return part(name, drawing, _marked(results, group, caption), table, _subtitle(results, group))


def _use(results: Results, group: str) -> Part | None:
    drawing = plots.use(results, group)
    if not drawing:
        return None
    names = ("cpu_ms_per_image", "rss_peak_mib")
    metrics = [m for m in results.metrics if m.group == group and m.key.rpartition(".")[2] in names]
    caption = (
        "CPU time and the high-water mark of memory of all the servers' processes, from the kernel. Memory that "
        "processes share counts in each of them."
    )
    name = f"used-{plots.slug(group)}"
    table = _metric_table(results, "Resource use", metrics)
    return part(name, drawing, _marked(results, group, caption), table, _subtitle(results, group))
