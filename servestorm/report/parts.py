"""Figures drawn from plain data, with what stands beside them: caption, text for those who cannot see, numbers.

Each function gives a part of a section of the report, or None where its data holds nothing to draw: {"id", "drawing",
"caption", "alt", "table": {"title", "head", "rows"}, "subtitle"}. `name` is the part's id and must be unique on the
page; what `data` looks like stands with the drawing of the same name in plots_*.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from servestorm.plan.labels import ENGINE_SHORT, number, p_text
from servestorm.report import plots_capacity, plots_load, plots_runs, plots_tradeoff
from servestorm.report.canvas import Drawing

Part = dict[str, Any]
Data = Mapping[str, Any]


def part(name: str, drawing: Drawing, caption: str, table: dict[str, Any], subtitle: str = "") -> Part:
    """What the page shows of one figure; `subtitle` tells it from another group's figure of the same kind."""
    if subtitle and subtitle not in table["title"]:
        table = {**table, "title": f"{table['title']} ({subtitle})"}
    return {
        "id": name,
        "drawing": drawing,
        "caption": caption,
        "alt": f"{table['title']}. {caption} The numbers follow as a table.",
        "table": table,
        "subtitle": subtitle,
    }


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    return {"title": title, "head": list(head), "rows": [list(row) for row in rows]}


def _count(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def capacity(
    name: str, engines: Sequence[str], data: Data, objective_ms: float | None, subtitle: str = ""
) -> Part | None:
    """The search for the largest rate that meets the objective."""
    drawing = plots_capacity.capacity(name, engines, data, objective_ms)
    if not drawing:
        return None
    rows = []
    for engine in engines:
        for place, run in enumerate(data.get(engine, {}).get("runs", []), 1):
            title = f"{ENGINE_SHORT[engine]}, search {place}"
            rows += [[title, number(p["rate_per_s"]), number(p["p99_ms"]), _PROBE[p["verdict"]]] for p in run["probes"]]
            rows.append(
                [f"{title}: capacity", _capacity_text(run), "", "confirmed" if run["confirmed"] else "not confirmed"]
            )
            if met := run["crossing"]:
                rows.append([f"{title}: p99 meets the objective at", _met_text(met), "", "estimated"])
    limit = f" of {number(objective_ms, 'ms')}" if objective_ms else ""
    caption = (
        "Every probe of the searches by the rate it offered and the p99 it found. Filled marks met the "
        f"objective{limit}, hollow ones did not; a mark at the upper edge has too few answers for a p99. The line "
        "is the mean of the capacities found: the largest rates that held twice. A band is the 95 % interval of the "
        "rate at which p99 meets the objective, estimated from all probes near it; where they do not tell, it reaches "
        "from the largest rate that held to the smallest that did not."
    )
    head = ["Probe", "requests/s", "p99, ms", "Verdict"]
    return part(name, drawing, caption, _table("Capacity by probes", head, rows), subtitle)


_PROBE = {"pass": "held", "fail": "did not hold", "invalid": "INVALID"}


def _capacity_text(run: Mapping[str, Any]) -> str:
    """The promise and what bounds it: two outcomes, and no interval."""
    if run["high"] is None:
        return "–" if run["rate"] is None else number(run["rate"])
    last = [probe["verdict"] for probe in run["probes"] if probe["rate_per_s"] == run["high"]][-1]
    bound = f"{number(run['high'])} {'could not be offered' if last == 'invalid' else 'did not hold'}"
    return f"–; {bound}" if run["rate"] is None else f"{number(run['rate'])}; {bound}"


def _met_text(met: Mapping[str, Any]) -> str:
    return f"{number(met['rate_per_s'])} ({number(met['low'])} to {number(met['high'])})"


def usl(name: str, engines: Sequence[str], data: Data, subtitle: str = "") -> Part | None:
    """Throughput by replicas with the Universal Scalability Law fitted to it."""
    drawing = plots_capacity.usl(name, engines, data)
    if not drawing:
        return None
    found = {engine: data.get(engine) or {"points": [], "curve": []} for engine in engines}
    counts = sorted({n for entry in found.values() for n, _ in entry["points"]})
    head = ["Replicas", *(f"{ENGINE_SHORT[engine]}, images/s" for engine in engines)]
    rows = [[_replicas(n), *(_mean_at(found[engine]["points"], n) for engine in engines)] for n in counts]
    for key, title in _LAW:
        rows.append([title, *(_coefficient(found[engine].get(key)) for engine in engines)])
    caption = (
        "Each mark is one run; the line is Gunther's Universal Scalability Law fitted to them: throughput = λn / "
        "(1 + σ(n − 1) + κn(n − 1)). σ is the share of the work that replicas wait for each other with "
        "(contention), κ what each pair of them loses by keeping in step (coherency). The dotted line is where "
        "replicas that simply added up would be."
    )
    return part(name, drawing, caption, _table("Throughput by replicas, and the fitted law", head, rows), subtitle)


_LAW = (
    ("lambda", "λ, images/s of one replica"),
    ("sigma", "σ, contention"),
    ("kappa", "κ, coherency"),
    ("r2", "R², share explained"),
)


def _replicas(count: float) -> str:
    return f"{count:g} replica{'s' if count != 1 else ''}, mean"


def _mean_at(points: Sequence[Sequence[float]], count: float) -> str:
    rates = [rate for n, rate in points if n == count]
    return number(sum(rates) / len(rates) if rates else None)


def _coefficient(value: float | None) -> str:
    return "–" if value is None else f"{value:,.3g}" if abs(value) < 1000 else number(value)


def sweep(name: str, engines: Sequence[str], data: Data, subtitle: str = "") -> Part | None:
    """Throughput against p99 of every setting that was tried."""
    drawing = plots_tradeoff.sweep(name, engines, data)
    if not drawing:
        return None
    rows = []
    for engine in engines:
        place = 0
        for setting in plots_tradeoff.drawable(data.get(engine, [])):
            place += bool(setting["front"])
            mark = f"front, {place}" if setting["front"] else "beaten"
            title = f"{ENGINE_SHORT[engine]}, {setting['label']}"
            rows.append([title, number(setting["images_per_s"]), number(setting["p99_ms"]), mark])
        lacking = [s for s in data.get(engine, []) if s["images_per_s"] is None or s["p99_ms"] is None]
        rows += [
            [f"{ENGINE_SHORT[engine]}, {s['label']}", number(s["images_per_s"]), number(s["p99_ms"]), "no number"]
            for s in lacking
        ]
    caption = (
        "Every setting by its throughput and its p99 (log scale): the lower right is better. The line joins the "
        "settings that no other one of the engine beats in both; their numbers are those of the table."
    )
    head = ["Setting", "images/s", "p99, ms per request", "Pareto front"]
    return part(name, drawing, caption, _table("Throughput against p99", head, rows), subtitle)


def cost(name: str, engines: Sequence[str], data: Data, source: str, subtitle: str = "") -> Part | None:
    """US dollars a million images; `source` says where the prices are from, in a sentence."""
    drawing = plots_tradeoff.cost(name, engines, data)
    if not drawing:
        return None
    costs = {e: {(r["provider"], r["instance"]): r for r in data.get(e, [])} for e in engines}
    rows = [
        [f"{instance}, {provider}", *(_usd(costs[engine].get((provider, instance))) for engine in engines)]
        for provider, instance in plots_tradeoff.instances(data)
    ]
    caption = (
        f"What a million images cost at the capacity found, instances always at capacity. {_memory_text(data)} {source}"
    ).strip()
    head = ["Instance", *(f"{ENGINE_SHORT[engine]}, USD" for engine in engines)]
    return part(name, drawing, caption, _table("Cost of a million images", head, rows), subtitle)


_TOO_SMALL = "too little memory"


def _usd(row: Mapping[str, Any] | None) -> str:
    """'0.12', or '0.12 (too little memory)' where so many servers do not fit."""
    if row is None:
        return number(None)
    price = number(row["usd_per_million"])
    return f"{price} ({_TOO_SMALL})" if row["memory_enough"] is False else price


def _memory_text(data: Data) -> str:
    """On which instances the servers do not fit, by their peak memory; whether that is known at all."""
    found = [(engine, row) for engine, rows in data.items() for row in rows]
    small = [f"{ENGINE_SHORT[e]} on {row['instance']}" for e, row in found if row["memory_enough"] is False]
    if small:
        return (
            f"By the servers' peak memory, as many as fill the vCPUs do not fit ({_TOO_SMALL}): {', '.join(small)}; "
            "such a price cannot be had."
        )
    unknown = list(dict.fromkeys(ENGINE_SHORT[e] for e, row in found if row["memory_enough"] is None))
    if unknown:
        return f"Whether the memory is enough is not known of {' and '.join(unknown)}."
    return "By the servers' peak memory, as many as fill the vCPUs fit into every instance."


def boxes(name: str, engines: Sequence[str], data: Data, subtitle: str = "") -> Part | None:
    """How far the runs scatter."""
    drawing = plots_runs.boxes(name, engines, data)
    if not drawing:
        return None
    rows = [
        [f"{label}: {ENGINE_SHORT[engine]}", ", ".join(number(value) for value in values.get(engine, []))]
        for label, values in data.items()
        for engine in engines
    ]
    caption = (
        "Each mark is one run. A box spans the middle half of the runs, with a line at their median; its whiskers "
        "reach the outermost runs. Every panel has its own scale, which need not begin at 0."
    )
    return part(name, drawing, caption, _table("Every run's value", ["Metric", "Runs"], rows), subtitle)


def split(name: str, engines: Sequence[str], data: Data, note: str = "", subtitle: str = "") -> Part | None:
    """Where a request's time goes; `note` says what a server does not tell, in a sentence."""
    drawing = plots_load.split(name, engines, data)
    if not drawing:
        return None
    found = {engine: {row["part"]: row["ms"] for row in data.get(engine, [])} for engine in engines}
    rows = [[piece, *(number(found[engine].get(piece)) for engine in engines)] for piece in plots_load.part_names(data)]
    totals = {engine: [ms for ms in found[engine].values() if ms is not None] for engine in engines}
    rows.append(["all together", *(number(sum(totals[e]) if totals[e] else None) for e in engines)])
    caption = (
        "The mean latency of a request in its parts, from the generator's time stamps and the servers' own "
        f"metrics. {note}"
    ).strip()
    head = ["Part", *(f"{ENGINE_SHORT[engine]}, ms" for engine in engines)]
    return part(name, drawing, caption, _table("Where the time goes", head, rows), subtitle)


def bursts(name: str, engines: Sequence[str], data: Data, rule: str = "", subtitle: str = "") -> Part | None:
    """What each burst did; `rule` says what counts as a violation and as recovered, in a sentence."""
    drawing = plots_load.bursts(name, engines, data)
    if not drawing:
        return None
    rows = []
    for engine in engines:
        for burst in data.get(engine, []):
            recover = "not seen" if burst["recover_s"] is None else number(burst["recover_s"])
            share = number(plots_load.violation_percent(burst), "%")
            violations = f"{_count(burst['violations'])} of {burst['requests']:,} ({share})"
            title = f"{ENGINE_SHORT[engine]}, burst {burst['index'] + 1}"
            rows.append([title, violations, _count(burst["queue_peak"]), recover])
    caption = (
        "Of each burst: the share of its requests that violated the objective, the most requests in flight at "
        f"once, and the seconds after its end until answers were as fast as they should be. {rule}"
    ).strip()
    head = ["Burst", "Violations", "Longest queue", "s to recover"]
    return part(name, drawing, caption, _table("Burst by burst", head, rows), subtitle)


def verdicts(
    name: str, engines: Sequence[str], rows: Sequence[Mapping[str, Any]], margin_percent: float, subtitle: str = ""
) -> Part | None:
    """The verdicts' differences with their intervals."""
    drawing = plots_runs.forest(name, engines, rows, margin_percent)
    if not drawing:
        return None
    cells = [
        [
            f"{row['label']}: {ENGINE_SHORT[row['b']]} against {ENGINE_SHORT[row['a']]}",
            _percent(row["difference_percent"]),
            "–" if row["ci_percent"] is None else " to ".join(map(_percent, row["ci_percent"])),
            _effect(row["g"]),
            "–" if row["g_ci"] is None else " to ".join(map(_effect, row["g_ci"])),
            "–" if row["smallest_effect_percent"] is None else number(row["smallest_effect_percent"], "%"),
            p_text(row["p_holm"]),
            outcome_text(row),
        ]
        for row in rows
    ]
    caption = (
        "How much larger (right of 0) or smaller the second engine's figure is than the first's, with the 95 % "
        f"interval over runs. The band is the margin of {margin_percent:g} %: an interval inside it makes two "
        "engines equivalent. Colour and mark name the better one, with Holm's correction for the number of "
        "questions. Hedges' g is the difference in standard deviations of the runs; the smallest effect is the "
        "difference that so many runs with this scatter would have shown with a chance of 80 %."
    )
    head = ["Question", "Difference", "95 % interval", "Hedges' g", "95 % interval of g", "Smallest effect", "Holm p"]
    table = _table("Verdicts", [*head, "Verdict"], cells) | {"open": True}
    return part(name, drawing, caption, table, subtitle)


def _effect(g: float | None) -> str:
    """'+1.23', or '+12.3' from 10 on: standard deviations."""
    return "–" if g is None else f"{g:+.2f}" if abs(g) < 10 else f"{g:+,.1f}"


def outcome_text(row: Mapping[str, Any]) -> str:
    """'TorchServe is better', 'equivalent' or 'inconclusive'."""
    better = {"A": row["a"], "B": row["b"]}.get(row["outcome"])
    return f"{ENGINE_SHORT[better]} is better" if better else str(row["outcome"])


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+,.1f} %"
