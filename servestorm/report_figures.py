"""The report's figures with what stands beside them: caption, text for those who cannot see, numbers as a table."""

from __future__ import annotations

from typing import Any

from servestorm import plots, words
from servestorm.labels import ENGINE_SHORT, PHASES, SCENARIO_LABELS, number, spread_text
from servestorm.report_parts import part
from servestorm.results import Results
from servestorm.rows import Metric


def figures(results: Results) -> list[dict[str, Any]]:
    """The report's sections of figures, each with its caption and its numbers as a table; `parts` may be empty."""
    loads = [scenario for scenario in ("steady", "bursty") if scenario in results.figures["over_time"]]
    return [
        {"id": "cold-start", "title": "Cold start", "parts": _cold_start(results)},
        {"id": "over-time", "title": "Latency over time", "parts": [_over_time(results, load) for load in loads]},
        {
            "id": "spectrum",
            "title": "Percentile spectrum",
            "parts": [part for load in loads if (part := _spectrum(results, load))],
        },
        {"id": "scaling", "title": "Scaling", "parts": _scaling(results)},
        {"id": "use", "title": "Resource use", "parts": _use(results)},
    ]


def _marked(results: Results, scenario: str, caption: str) -> str:
    """The caption, with a warning where an engine's part of the figure comes from INVALID runs alone."""
    rows = [metric for metric in results.metrics if metric.scenario == scenario]
    doubtful = [ENGINE_SHORT[e] for e in results.engines if any(not metric.values[e].valid for metric in rows)]
    return f"INVALID runs only: {', '.join(doubtful)}. {caption}" if doubtful else caption


def _metric_table(results: Results, title: str, metrics: list[Metric]) -> dict[str, Any]:
    head = ["", *(ENGINE_SHORT[engine] for engine in results.engines)]
    rows = [
        [f"{m.label}, {m.unit}", *(spread_text(m.values[e].value, m.values[e].sd) for e in results.engines)]
        for m in metrics
    ]
    return {"title": title, "head": head, "rows": rows}


def _cold_start(results: Results) -> list[dict[str, Any]]:
    metrics = [m for m in results.metrics if m.scenario == "coldstart"]
    if not any(value.value is not None for metric in metrics for value in metric.values.values()):
        return []
    caption = (
        f"Mean seconds of each phase: {', '.join(PHASES.values())}. Each tick is one start's total. Files were in the "
        "page cache after the first start."
    )
    table = _metric_table(results, "Cold start by phase", metrics)
    return [part("cold-start-figure", plots.cold_start(results), caption, table)]


def _over_time(results: Results, scenario: str) -> dict[str, Any]:
    data = results.figures["over_time"][scenario]
    drawing = plots.over_time(results, scenario)
    assert drawing is not None
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
    title = SCENARIO_LABELS[scenario]
    table = {"title": f"Latency over time, {title.lower()}", "head": head, "rows": rows}
    return part(f"time-{scenario}", drawing, _marked(results, scenario, caption), table, title)


def _spectrum(results: Results, scenario: str) -> dict[str, Any] | None:
    drawing = plots.spectrum(results, scenario)
    if not drawing:
        return None
    data = results.figures["spectrum"][scenario]
    shares = sorted({share for points in data.values() for share, _ in points})
    by_engine = {engine: dict(map(tuple, points)) for engine, points in data.items()}
    rows = [
        [f"p{100 * share:.4g}", *(number(by_engine[engine].get(share)) for engine in results.engines)]
        for share in shares[::4]
    ]
    title = SCENARIO_LABELS[scenario]
    head = ["", *(f"{ENGINE_SHORT[engine]}, ms per image" for engine in results.engines)]
    caption = "How slow the slow answers are (both axes logarithmic). A line ends where samples are too few to go on."
    table = {"title": f"Percentile spectrum, {title.lower()}", "head": head, "rows": rows}
    return part(f"spectrum-{scenario}", drawing, _marked(results, scenario, caption), table, title)


def _scaling(results: Results) -> list[dict[str, Any]]:
    drawing = plots.scaling(results)
    if not drawing:
        return []
    metrics = [m for m in results.metrics if m.scenario == "scaling"]
    concurrency = results.study["plan"]["scaling"]["concurrency"]
    caption = (
        f"Throughput with {concurrency} requests in flight, all replicas on {words.cores_text(results)}. The "
        "dotted line is where replicas that simply added up would be."
    )
    table = _metric_table(results, "Throughput by replicas", metrics)
    return [part("scaling-figure", drawing, _marked(results, "scaling", caption), table)]


def _use(results: Results) -> list[dict[str, Any]]:
    drawing = plots.use(results)
    if not drawing:
        return []
    names = ("cpu_ms_per_image", "rss_peak_mib")
    metrics = [m for m in results.metrics if m.key.partition(".")[2] in names]
    caption = (
        "CPU time and the high-water mark of memory of all the servers' processes, from the kernel. Memory that "
        "processes share counts in each of them."
    )
    return [part("use-figure", drawing, caption, _metric_table(results, "Resource use", metrics))]
