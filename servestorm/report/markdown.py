"""report.md: the same sentences and numbers as report.html, in GitHub-flavoured Markdown, for a pull request or a wiki.

It is made from the same Page as report.html, so that both agree. Drawings are only in report.html; their numbers are in
folded tables.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from servestorm.report.facts import Block
from servestorm.report.page import Page
from servestorm.report.part import Section
from servestorm.report.result_table import SLICES_CAPTION, ResultCell, RunTable


def markdown(page: Page) -> str:
    """The page as Markdown."""
    sections = [
        _head(page),
        _section("In short", _bullets(page.summary or ["No run counts."]), *_doubts(page)),
        _section("Results", *_results(page)),
        *(_section(section.title, *_figure_texts(section)) for section in page.sections),
        _section("Validity", escaped(page.validity), *_slices(page), _runs(page.runs)),
        _section("Environment", *(_block(block) for block in page.environment)),
        f"---\n\nRun `{page.id}`, servestorm {page.version}. Figures: report.html beside this file.",
    ]
    return "\n\n".join(sections) + "\n"


_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#$])")


def escaped(text: object) -> str:
    """Text that Markdown shows as it stands, in a table's cell too."""
    return _SPECIAL.sub(r"\\\1", str(text).replace("\n", " "))


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is left-aligned, the others to the right."""
    align = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join([_line(map(escaped, head)), _line(align), *(_line(map(escaped, row)) for row in rows)])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _section(title: str, *blocks: str) -> str:
    return "\n\n".join([f"## {title}", *(block for block in blocks if block)])


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"* {escaped(sentence)}" for sentence in sentences)


def _head(page: Page) -> str:
    badges = " · ".join(f"**{escaped(badge.text)}**" for badge in page.badges)
    meta = " · ".join([page.title, *page.meta])
    lines = [f"# {escaped(page.headline)}", *map(escaped, page.further), escaped(meta), badges]
    return "\n\n".join(line for line in lines if line)


def _doubts(page: Page) -> list[str]:
    return ["### Before you believe it", _bullets(page.doubts)] if page.doubts else []


def _results(page: Page) -> list[str]:
    engines = [" ".join(filter(None, [engine.name, engine.aside])) for engine in page.engines]
    head = ["", *engines, *(f"p {pair.label}".strip() for pair in page.pairs)]
    blocks = [escaped(page.results_caption)]
    for group in page.groups:
        rows = [
            _line([escaped(f"{row.label}, {row.unit}"), *map(_cell, row.cells), *map(escaped, row.ps)])
            for row in group.rows
        ]
        align = _line(["---", *["---:"] * (len(head) - 1)])
        blocks.append(f"### {escaped(group.title)}\n\n{escaped(group.detail)}")
        blocks.append("\n".join([_line(map(escaped, head)), align, *rows]))
    return blocks


def _cell(cell: ResultCell) -> str:
    text = f"{cell.text} ± {cell.sd}" if cell.sd else cell.text
    marked = f"**{text}**" if cell.better else f"{cell.mark} {text}" if cell.mark else text
    return f"{marked} [{cell.ci}]" if cell.ci else marked


def _figure_texts(section: Section) -> list[str]:
    blocks = []
    for part in section.parts:
        if part.subtitle:
            blocks.append(f"### {escaped(part.subtitle)}")
        blocks.append(f"*Drawn in report.html.* {escaped(part.caption)}")
        fold = f"<details{' open' if part.table.open else ''}><summary>{html.escape(part.table.title)}</summary>\n\n"
        blocks.append(f"{fold}{table(part.table.head, part.table.rows)}\n\n</details>")
    return blocks


def _slices(page: Page) -> list[str]:
    if page.slices is None:
        return []
    return [f"### {escaped(page.slices.title)}", escaped(SLICES_CAPTION), table(page.slices.head, page.slices.rows)]


def _runs(runs: RunTable) -> str:
    rows = []
    for run in runs.rows:
        state = f"{run.state}: {'; '.join(run.reasons)}" if run.reasons else run.state
        rows.append([run.id, state, *run.cells])
    return f"### Every run\n\n{table(runs.head, rows)}"


def _block(block: Block) -> str:
    return f"### {escaped(block.title)}\n\n{table(['', ''], block.facts)}"
