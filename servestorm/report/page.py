"""The page: every section in its place, in words and formatted numbers. HTML and Markdown show the same page."""

from __future__ import annotations

from dataclasses import dataclass

from servestorm import __version__
from servestorm.analysis.counts_of_runs import run_counts
from servestorm.analysis.results import Results
from servestorm.report import facts, result_table, sentences
from servestorm.report.facts import Block
from servestorm.report.headline import first_line
from servestorm.report.part import Section, Table
from servestorm.report.result_table import Card, EngineName, Pair, ResultGroup, RunTable
from servestorm.report.sections.table import SECTIONS


@dataclass(frozen=True)
class Badge:
    """A short statement at the top of the page; `kind` is good, bad or warn."""

    kind: str
    text: str


@dataclass(frozen=True)
class Page:
    """What the report shows, from top to bottom."""

    version: str
    """Of servestorm."""
    id: str
    """Of the run."""
    title: str
    """What the page is about."""
    headline: str
    """The verdict."""
    further: list[str]
    """What else a reader must know at once, a sentence each."""
    meta: list[str]
    badges: list[Badge]
    contents: list[tuple[str, str]]
    """(id, title) of every section of the page."""
    cards: list[Card]
    summary: list[str]
    """One sentence or two a finding."""
    doubts: list[str]
    engines: list[EngineName]
    pairs: list[Pair]
    results_caption: str
    groups: list[ResultGroup]
    sections: list[Section]
    """Those with figures."""
    validity: str
    slices: Table | None
    """Of how many slices the figures are; None where no load had slices."""
    runs: RunTable
    environment: list[Block]


def page_of(results: Results) -> Page:
    """The page of a study's results."""
    sections = [section for make in SECTIONS if (section := make(results)).parts]
    first = first_line(results)
    return Page(
        version=__version__,
        id=results.id,
        title=sentences.title(results),
        headline=first.verdict,
        further=first.further,
        meta=facts.meta(results),
        badges=_badges(results),
        contents=[
            ("summary", "In short"),
            ("results", "Results"),
            *((section.id, section.title) for section in sections),
            ("validity", "Validity"),
            ("environment", "Environment"),
            ("method", "How to read this"),
        ],
        cards=result_table.cards(results),
        summary=sentences.summary(results),
        doubts=sentences.doubts(results),
        engines=[result_table.named(engine) for engine in results.engines],
        pairs=result_table.pairs(results),
        results_caption=result_table.CAPTION,
        groups=result_table.groups(results),
        sections=sections,
        validity=sentences.validity(results),
        slices=result_table.slices(results),
        runs=result_table.runs(results),
        environment=facts.environment(results),
    )


def _badges(results: Results) -> list[Badge]:
    badges = []
    if results.state != "complete":
        badges.append(Badge("bad", results.state))
    counts = run_counts(results.runs)
    if counts.invalid:
        badges.append(Badge("bad", f"{counts.invalid} of {counts.loads} load runs INVALID"))
    if counts.disturbed:
        badges.append(Badge("warn", f"{counts.disturbed} of {len(results.runs)} runs DISTURBED"))
    if counts.loads and not counts.invalid and not counts.disturbed:
        badges.append(Badge("good", f"all {counts.loads} load runs VALID"))
    if counts.trainings and counts.trainings == counts.complete_trainings and not counts.disturbed:
        badges.append(Badge("good", f"all {counts.trainings} trainings count"))
    if any(judged.unbatched for judged in results.verdicts):
        badges.append(Badge("bad", "batching did not happen"))
    parities = [model.parity.status for model in results.models if model and model.parity]
    if parities:
        proved = set(parities) == {"proved"}
        text = "artifacts proved equal" if proved else next(status for status in parities if status != "proved")
        badges.append(Badge("good" if proved else "bad", text))
    return badges
