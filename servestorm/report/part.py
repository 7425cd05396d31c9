"""What the page shows of one subject: a section, its figures with captions, and the tables of their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from servestorm.analysis.metric import Metric
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, figure_text
from servestorm.report.canvas import Drawing


@dataclass(frozen=True)
class Table:
    """The numbers of a figure as text; every row has as many cells as the head."""

    title: str
    head: list[str]
    rows: list[list[str]]
    open: bool = False
    """Shown without a click."""


@dataclass(frozen=True)
class SectionPart:
    """One figure of a section with what stands beside it."""

    id: str
    """Unique on the page."""
    drawing: Drawing
    caption: str
    alt: str
    """The figure in words, for screen readers."""
    table: Table
    subtitle: str
    """Heading above the figure; '' where the section needs none."""


@dataclass(frozen=True)
class Section:
    """A section of the report; without parts it is left out."""

    id: str
    title: str
    parts: list[SectionPart]


def section_of(name: str, title: str, parts: Iterable[SectionPart | None]) -> Section:
    """The section with those parts that have something to show; `name` is its id."""
    return Section(name, title, [part for part in parts if part])


def make_part(name: str, drawing: Drawing, caption: str, table: Table, subtitle: str = "") -> SectionPart:
    """A figure with its text for screen readers; `name` is its id, and `subtitle` becomes part of the table's title."""
    if subtitle and subtitle not in table.title:
        table = replace(table, title=f"{table.title} ({subtitle})")
    alt = f"{table.title}. {caption} The numbers follow as a table."
    return SectionPart(name, drawing, caption, alt, table, subtitle)


def groups_of(results: Results, scenario: str) -> list[str]:
    """The groups of runs of a scenario."""
    return [group for group in results.groups if group.partition("[")[0] == scenario]


def groups_with_samples(results: Results) -> list[str]:
    """The groups of runs under steady or bursty load of which there are samples."""
    return [group for group in results.groups if group in results.figures.over_time]


def marked(results: Results, group: str, caption: str) -> str:
    """The caption, with a warning where an engine's part of the figure comes from INVALID or DISTURBED runs alone."""
    rows = [metric for metric in results.metrics if metric.group == group]
    invalid = [ENGINE_SHORT[e] for e in results.engines if any(not metric.values[e].valid for metric in rows)]
    disturbed = [ENGINE_SHORT[e] for e in results.engines if any(metric.values[e].disturbed for metric in rows)]
    warnings = [
        f"{state} runs only: {', '.join(names)}."
        for state, names in (("INVALID", invalid), ("DISTURBED", disturbed))
        if names
    ]
    return " ".join([*warnings, caption])


def subtitle_of(results: Results, group: str) -> str:
    """The group's title where its scenario has several groups: a section with one figure needs no second heading."""
    return results.groups[group] if len(groups_of(results, group.partition("[")[0])) > 1 else ""


def metric_table(results: Results, title: str, metrics: Sequence[Metric]) -> Table:
    """One row a metric, one column an engine: means with their standard deviations."""
    head = ["Measure", *(ENGINE_SHORT[engine] for engine in results.engines)]
    rows = [[f"{m.label}, {m.unit}", *(figure_text(m.values[e]) for e in results.engines)] for m in metrics]
    return Table(title, head, rows)
