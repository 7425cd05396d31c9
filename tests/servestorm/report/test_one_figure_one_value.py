"""One figure, one value: what cards, tables, sentences, verdicts, drawings, compare and JSON print is one number.

Held for the studies that are kept as examples and for a made-up one. Printed numbers are read back and compared with
the value of results.json, up to the rounding that the text itself shows.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from servestorm.analysis.metric import Metric, Value
from servestorm.analysis.results import Results, usable
from servestorm.analysis.stored_results import read_results
from servestorm.compare.comparison import compare
from servestorm.compare.text import cells
from servestorm.methods.verdict import Verdict, signed
from servestorm.plan.labels import ENGINE_SHORT, times_text
from servestorm.report.html_page import render
from servestorm.report.markdown import markdown
from servestorm.report.page import page_of
from servestorm.report.terminal import print_results
from servestorm.report.write import write_report
from tests.servestorm.report.printed_report import (
    HtmlTables,
    Table,
    card_texts,
    markdown_tables,
    number_of,
    prints,
    rounding_of,
)
from tests.source_tree import ROOT
from tests.stand_ins.synthetic_run import make_run

KEPT = sorted((ROOT / "docs" / "examples").iterdir())


@dataclass(frozen=True)
class Study:
    """A run's results with what was printed of them."""

    folder: Path
    results: Results
    tables: list[Table]
    """Of report.md."""
    page: str
    """report.html."""

    def table(self, section: str, title: str) -> Table | None:
        return next((table for table in self.tables if (table.section, table.title) == (section, title)), None)

    def values(self) -> list[tuple[Metric, str, Value]]:
        return [(metric, engine, metric.values[engine]) for metric in self.results.metrics for engine in metric.values]


@pytest.fixture(scope="module", params=[*KEPT, None], ids=lambda folder: folder.name if folder else "synthetic")
def study(request, tmp_path_factory):
    folder = request.param
    if folder is None:
        folder = make_run(tmp_path_factory.mktemp("runs"))
        write_report(folder)
    tables = markdown_tables((folder / "report.md").read_text())
    return Study(folder, read_results(folder / "results.json"), tables, (folder / "report.html").read_text())


def test_a_value_is_the_mean_of_its_runs_and_the_deviation_is_theirs(study):
    for metric, _, value in study.values():
        known = [run for run in value.runs if run is not None]
        assert value.n == len(known)
        assert (value.value_from == "largest") == metric.key.endswith(".p99_claim")
        if value.value_from == "largest":  # what may be promised must hold for every run
            whole = known and len(known) == len(value.runs)
            assert (value.value, value.sd, value.ci) == (max(known) if whole else None, None, None), metric.key
            continue
        if known:
            assert value.value == pytest.approx(np.mean(known), rel=1e-12), metric.key
            assert value.value_from == "runs"
        else:
            assert value.value_from == ("samples" if value.value is not None else None)
        assert value.sd == (pytest.approx(np.std(known, ddof=1), abs=1e-12) if len(known) > 1 else None)
        if value.ci:
            assert value.ci[0] <= value.value * (1 + 1e-12) and value.value <= value.ci[1] * (1 + 1e-12), metric.key


def test_the_runs_of_a_row_are_the_numbers_of_the_runs_that_count(study):
    for metric, engine, value in study.values():
        name = metric.key.rpartition(".")[2]
        runs = [run for run in usable(study.results.runs) if (run.group, run.engine) == (metric.group, engine)]
        if any(name in run.numbers for run in runs):
            assert value.runs == [run.numbers.get(name) for run in runs], metric.key


def test_the_table_of_results_prints_the_values_in_both_pages(study):
    html_rows = iter(HtmlTables(study.page).rows)
    for group, metrics in groupby(study.results.metrics, key=lambda metric: metric.group):
        table = study.table("Results", study.results.groups[group])
        for metric in metrics:
            row = table.row(f"{metric.label}, {metric.unit}")
            html = next(cells for cells in html_rows if cells and cells[0] == f"{metric.label} {metric.unit}")[1:]
            for text, twin, value in zip(row, html, metric.values.values(), strict=False):
                shown = text.removeprefix("INVALID ")
                assert prints(shown, value.value), (metric.key, text)
                assert prints(twin, value.value), (metric.key, twin)
                assert ("(samples)" in shown.partition("[")[0]) == (value.value_from == "samples")
                spread = re.search(r"± ([\d.,]+)", shown)
                assert bool(spread) == (value.sd is not None)
                assert not spread or prints(spread[1], value.sd)
                interval = re.search(r"\[(\S+) to (\S+)", shown)
                assert bool(interval) == (value.ci is not None)
                assert not interval or all(map(prints, interval.groups(), value.ci))


CARDS = {
    "median, steady load": "steady.p50",
    "p99, steady load": "steady.p99",
    "p99, bursty load": "bursty.p99",
    "cold start": "coldstart.total_s",
    "burst to a new replica": "autoscaling.ready_s",
}


def test_the_cards_print_the_values(study):
    labels = {metric.label: metric.key for metric in study.results.metrics}
    cards = card_texts(study.page)
    if all("[" in group for group in study.results.groups):  # of several variants, a card would have to choose one
        assert not cards
        return
    assert len(cards) == len(study.results.engines)
    for engine, card in zip(study.results.engines, cards, strict=True):
        assert card
        for term, text in card.items():
            metric = study.results.metric(CARDS.get(term) or labels[term])
            assert prints(text, metric.values[engine].value), (term, text)


SENTENCES = [
    ("Under steady load the median", "steady", "p50"),
    ("steady load, p99", "steady", "p99"),
    ("In bursty load the median", "bursty", "p50"),
    ("bursty load, p99", "bursty", "p99"),
    ("the largest rate is", "capacity", "images_per_s"),
    ("A cold start, from", "coldstart", "total_s"),
    ("first new replica that was ready", "autoscaling", "ready_s"),
    ("until answers met the objective again", "autoscaling", "recover_s"),
]


def test_the_sentences_print_the_values_and_their_own_ratio(study):
    bullets = summary(study)
    for mark, scenario, name in SENTENCES:
        rows = [row for row in study.results.rows(scenario, name) if row.quotable()]
        told = [text for text in bullets if mark in text]
        assert len(told) == len(rows), mark
        for metric, whole in zip(rows, told, strict=True):
            text, claimed = re.subn(CLAIM, "", whole)
            assert bool(claimed) == (name == "p99" and bool(claims(study, metric)))
            for engine, value in metric.quotable().items():
                (printed,) = re.findall(rf"([\d,.]+) \S+(?: per image)? on {ENGINE_SHORT[engine]}\b", text)
                assert prints(printed, value), (metric.key, text)
            if ratio := re.search(r"\(([\d.,]+) times as long\)", text):
                low, high = sorted(metric.quotable().values())
                assert prints(ratio[1], high / low)


CLAIM = r"With 99 % confidence the p99 of every run is at most [^A-Z]*?(?:TorchServe|savedmodel)\. "


def claims(study: Study, p99: Metric) -> dict[str, float]:
    claim = study.results.metric(f"{p99.group}.p99_claim")
    return claim.quotable() if claim else {}


def test_what_may_be_promised_of_a_p99_stands_beside_the_exact_one(study):
    bullets = [text for text in summary(study) if "With 99 % confidence" in text]
    for scenario in ("steady", "bursty"):
        for metric in study.results.rows(scenario, "p99"):
            for engine, value in claims(study, metric).items():
                (told,) = [text for text in bullets if f"({scenario} load, p99)" in text]
                claim = told.partition("With 99 % confidence")[2].partition(". ")[0]
                (printed,) = re.findall(rf"([\d,.]+) \S+(?: per image)? on {ENGINE_SHORT[engine]}\b", claim)
                assert prints(printed, value)


def summary(study: Study) -> list[str]:
    text = (study.folder / "report.md").read_text().partition("## In short")[2].partition("\n## ")[0]
    return [re.sub(r"\\(.)", r"\1", line) for line in text.partition("\n### ")[0].splitlines() if line.startswith("* ")]


def test_objectives_are_judged_by_the_values(study):
    for objective in study.results.objectives:
        metric = study.results.metric(objective.metric)
        assert objective.value == metric.values[objective.engine].quotable
    told = [text for text in summary(study) if "the objective" in text and ": it is " in text]
    judged = [objective for objective in study.results.objectives if objective.met is not None]
    for objective, text in zip(judged, told, strict=True):
        assert prints(text.rpartition(": it is ")[2].rstrip("."), objective.value)


def test_a_verdicts_difference_is_that_of_the_two_values_and_of_the_two_printed_numbers(study):
    table = study.table("Verdicts", "Verdicts")
    assert len(table.rows) == len(study.results.verdicts)
    for judged, (_, difference, interval, *_) in zip(study.results.verdicts, table.rows, strict=True):
        metric = study.results.metric(judged.metric)
        a, b = metric.values[judged.a], metric.values[judged.b]
        verdict = judged.verdict
        if "samples" in (a.value_from, b.value_from) or None in (a.quotable, b.quotable):
            assert (verdict.difference_percent, difference) == (None, "–")
            continue
        if verdict.paired and verdict.rounds < max(a.n, b.n):  # a round has the number on one side only
            assert f", from {verdict.rounds} of " in verdict.reason
            continue
        assert (verdict.mean_a, verdict.mean_b) == pytest.approx((a.value, b.value))
        if a.value == 0:
            continue
        assert verdict.difference_percent == pytest.approx(100 * (b.value / a.value - 1))
        results = study.table("Results", study.results.groups[metric.group]).row(f"{metric.label}, {metric.unit}")
        texts = [results[study.results.engines.index(engine)] for engine in (judged.a, judged.b)]
        undecided = verdict.outcome == "inconclusive" and verdict.p is not None
        if undecided and (not verdict.ci_percent or spread_of(verdict) > 3):
            assert (difference, interval) == ("–", "–")
            continue
        assert in_range_of(texts, difference), (judged.metric, texts, difference)
        if verdict.ratio_ci:
            assert interval.partition(" (")[0] == " to ".join(map(times_text, verdict.ratio_ci))
        elif verdict.ci_percent:
            assert interval.partition(" (")[0] == " to ".join(map(signed, verdict.ci_percent))
        if verdict.ci_percent:
            ends = " to ".join(map(signed, verdict.ci_percent))
            assert verdict.outcome == "inconclusive" or ends in verdict.reason


def spread_of(verdict: Verdict) -> float:
    """The upper by the lower end of the ratio's interval; 1 of a figure that can be 0, which has none."""
    low, high = verdict.ratio_ci or (1.0, 1.0)
    return high / low


def in_range_of(texts: list[str], difference: str) -> bool:
    """Whether a reader who divides the two printed numbers gets the printed difference, up to all three roundings."""
    (a, half_a), (b, half_b) = ((number_of(text), rounding_of(text)) for text in texts)
    if difference.startswith("×"):
        low, high = (b - half_b) / (a + half_a), (b + half_b) / max(a - half_a, 1e-9)
        return low - rounding_of(difference) <= number_of(difference) <= high + rounding_of(difference)
    low, high = 100 * ((b - half_b) / (a + half_a) - 1), 100 * ((b + half_b) / max(a - half_a, 1e-9) - 1)
    return low - rounding_of(difference) <= number_of(difference) <= high + rounding_of(difference)


SECTION_TABLES = ("Cold start by phase", "Throughput by replicas", "Resource use")


def test_tables_of_drawings_print_the_values(study):
    shown = 0
    for table in (
        table for table in study.tables if table.title.startswith(SECTION_TABLES) and "law" not in table.title
    ):
        rows = {f"{m.label}, {m.unit}": m for m in study.results.metrics if group_of(study, table) in (None, m.group)}
        for label, *texts in table.rows:
            for text, value in zip(texts, rows[label].values.values(), strict=True):
                shown += 1
                assert prints(text, value.value), (label, text)
                assert ("±" in text) == (value.sd is not None)
    assert shown or study.folder.name not in ("process", "docker")


def group_of(study: Study, table: Table) -> str | None:
    """The group that a table's title names; None where the scenario has one."""
    named = table.title.partition(" (")[2].removesuffix(")")
    scenario = {"Cold start by phase": "coldstart", "Resource use": "steady"}.get(
        table.title.partition(" (")[0], "scaling"
    )
    groups = {title: group for group, title in study.results.groups.items()}
    return groups.get(named, scenario)


def test_the_spectrum_prints_the_values_of_the_rows(study):
    for group in study.results.figures.spectrum:
        title = study.results.groups[group]
        table = study.table("Percentile spectrum", f"Percentile spectrum, {title}")
        texts = {label: row for label, *row in table.rows}
        for name in ("p50", "p90", "p95", "p99", "p999"):
            values = study.results.metric(f"{group}.{name}").values.values()
            if not any(value.value_from == "runs" for value in values):
                continue
            for text, value in zip(texts[name.replace("p999", "p99.9")], values, strict=True):
                assert prints(text, value.value if value.value_from == "runs" else None), (group, name)


def test_the_parts_of_a_latency_add_up_to_the_row_of_the_mean_latency(study):
    """Of loads in turns to a mean of their own: that of all requests, for a server's metrics are of all, too."""
    in_turns = study.results.study.plan.interleaved
    for group, splits in study.results.figures.split.items():
        table = study.table("Where the time goes", f"Where the time goes ({study.results.groups[group]})")
        for engine, split in splits.items():
            mean = study.results.metric(f"{group}.mean_ms").values[engine].value
            assert split.mean_ms == pytest.approx(mean, **({"rel": 0.1} if in_turns else {"abs": 1e-3}))
            mean = split.mean_ms
            assert sum(part.ms for part in split.parts if part.ms is not None) == pytest.approx(mean, abs=1e-3)
            if table:
                assert prints(table.row("total")[study.results.engines.index(engine)], mean)


def test_the_scaling_law_prints_the_values_and_linear_scaling_begins_at_them(study):
    for group, laws in study.results.figures.scaling_law.items():
        table = study.table("Scaling law", "Throughput by replicas, and the fitted law")
        for engine, law in laws.items():
            for count, rate in law.means:
                assert rate == study.results.metric(f"{group}.images_per_s_x{count}").values[engine].value
                if table:
                    row = table.row(f"{count} replica{'s' if count > 1 else ''}, mean")
                    assert prints(row[study.results.engines.index(engine)], rate)
            assert law.linear == [
                (count, pytest.approx(law.means[0][1] * count / law.means[0][0])) for count, _ in law.means
            ]


def test_efficiency_is_the_speed_up_by_the_number_of_replicas(study):
    for metric in study.results.metrics:
        if match := re.fullmatch(r"(scaling.*)\.efficiency_x(\d+)", metric.key):
            factor = study.results.metric(f"{match[1]}.factor_x{match[2]}")
            base = study.results.study.plan.scaling.replicas[0]
            for engine, value in metric.values.items():
                if value.value is not None:
                    assert value.value == pytest.approx(100 * factor.values[engine].value * base / int(match[2]))


def test_the_printed_runs_have_the_printed_mean(study):
    table = study.table("Scatter between runs", "Every run's value")
    for label, runs in table.rows if table else ():
        title, engine = label.rpartition(": ")[::2]
        (metric,) = [
            m for m in study.results.metrics if title == f"{study.results.groups[m.group]}: {m.label}, {m.unit}"
        ]
        (name,) = [name for name in metric.values if ENGINE_SHORT[name] == engine]
        known = [text for text in runs.split(", ") if text != "–"]
        if known:
            room = max(map(rounding_of, known))
            assert np.mean(list(map(number_of, known))) == pytest.approx(metric.values[name].value, abs=room)


def test_the_drawing_of_a_search_and_the_cost_are_of_the_capacity_of_the_row(study):
    for group, rates in study.results.figures.capacity_per_s.items():
        row = study.results.metric(f"{group}.images_per_s")
        images = study.results.study.plan.images_per_request[0]
        for engine, rate in rates.items():
            value = row.values[engine].value
            assert rate == pytest.approx(value / images)
            drawn = re.findall(r">([\d,.]+) images/s<", study.page)
            assert any(prints(text, value) for text in drawn)
    for group, costs in study.results.figures.cost.items():
        row = study.results.metric(f"{group}.crossing_images_per_s")
        cores = study.results.study.plan.replica_limits.cpus or len(study.results.study.cores.engine)
        for engine, own in costs.items():
            for cost in own:
                vcpus = cost.images_per_hour * cores / row.values[engine].value / 3600
                assert vcpus == pytest.approx(round(vcpus))


def test_a_sweeps_settings_are_means_of_its_valid_loads(study):
    for group, settings in study.results.figures.sweep.items():
        for engine, own in settings.items():
            runs = [run for run in usable(study.results.runs) if (run.group, run.engine) == (group, engine)]
            rates = [p.images_per_s for run in runs for p in run.points if p.valid and p.images_per_s is not None]
            assert rates
            known = [setting.images_per_s for setting in own if setting.images_per_s is not None]
            loads = len(rates) / len(known)
            assert loads != round(loads) or np.mean(known) == pytest.approx(np.mean(rates))


def test_compare_prints_the_values_and_their_difference(study):
    keys = [metric.key for metric in study.results.metrics]
    found = compare(study.folder, study.folder, keys=keys)
    assert len(found.rows) == sum(len(metric.values) for metric in study.results.metrics)
    for row in found.rows:
        value = study.results.metric(row.key).values[row.engine]
        _, _, old, new, difference, *_ = cells(row)
        assert prints(old, value.value) and prints(new, value.value), (row.key, old)
        assert ("±" in old) == (value.sd is not None)
        if row.verdict and row.verdict.difference_percent is not None:
            assert number_of(difference) == 0


def test_compare_with_another_run_prints_the_difference_of_the_two_printed_values(study, tmp_path):
    document = json.loads((study.folder / "results.json").read_text())
    for metric in document["metrics"]:
        for value in metric["values"].values():
            value["runs"] = [None if run is None else 1.3 * run for run in value["runs"]]
            for name in ("value", "sd"):
                value[name] = None if value[name] is None else 1.3 * value[name]
    other = tmp_path / "results.json"
    other.write_text(json.dumps(document))
    for row in compare(study.folder, other, keys=[metric["key"] for metric in document["metrics"]]).rows:
        _, _, old, new, difference, *_ = cells(row)
        if row.verdict and row.verdict.difference_percent is not None:
            assert row.verdict.difference_percent == pytest.approx(30.0)
            assert in_range_of([old, new], difference), (row.key, old, new, difference)


def test_the_terminal_prints_the_values(study, capsys):
    print_results(study.results)
    lines = iter(capsys.readouterr().out.splitlines())
    for metric in study.results.metrics:
        start = f"{metric.label}, {metric.unit} "
        line = next(line for line in lines if line.removeprefix("|").strip().startswith(start))
        for text, value in zip(line.split("|")[2:-1], metric.values.values(), strict=False):
            assert prints(text.strip().removeprefix("INVALID "), value.value), (metric.key, text)


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_kept_page_is_what_its_results_are_drawn_as(folder):
    told = f"draw it again: .venv/bin/servestorm report {(folder / 'results.json').relative_to(ROOT)}"
    page = page_of(read_results(folder / "results.json"))
    assert (folder / "report.md").read_text() == markdown(page), told
    assert without_drawings((folder / "report.html").read_text()) == without_drawings(render(page)), told


def without_drawings(page: str) -> str:
    """The page without its SVG: matplotlib of another version draws the same numbers a little differently."""
    return re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_results_that_are_read_back_hold_everything(folder):
    document = json.loads((folder / "results.json").read_text())
    again = json.loads(json.dumps(read_results(folder / "results.json").as_json()))
    assert {key: again[key] for key in document} == document
