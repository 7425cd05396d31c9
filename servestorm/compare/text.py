"""A comparison in words and as a table: Markdown for a pull request and for a pipe, lines and colour on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from servestorm.compare.comparison import Comparison, Finding, Row
from servestorm.methods.verdict import signed
from servestorm.plan.labels import ENGINE_SHORT, figure_text, p_text

HEAD = ("Engine", "Metric", "OLD", "NEW", "Difference (95 % interval)", "Holm p", "Finding")
STYLES: dict[Finding, str] = {"regression": "bold red", "worse": "yellow", "better": "green", "lost": "bold red"}
EXPLAINED: tuple[Finding, ...] = ("regression", "lost", "worse", "inconclusive", "not compared")
"""Findings whose reason a reader wants; the table says the rest."""


def headline(comparison: Comparison) -> str:
    """The answer in a sentence or two."""
    margin, judged = f"{comparison.margin_percent:g} %", len(comparison.judged)
    lost, unknown = comparison.with_finding("lost"), len(comparison.with_finding("inconclusive", "not compared"))
    if regressions := comparison.with_finding("regression"):
        answer = f"REGRESSION: NEW is worse by more than {margin} in {_several(regressions)}."
    elif judged:
        answer = f"No regression beyond {margin} was found."
    else:
        answer = "Nothing could be compared: no metric has at least two runs with scatter on both sides."
    if lost:
        answer += f" NEW gave no number for {_several(lost)}."
    if judged and unknown:
        answer += f" In {unknown} of {len(comparison.rows)} comparisons the runs do not tell whether there is one."
    return answer


def _several(rows: Sequence[Row]) -> str:
    names = [f"{row.name}{_size(row)}" for row in rows]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _size(row: Row) -> str:
    percent = row.verdict.difference_percent if row.verdict else None
    return f" ({signed(percent)})" if percent is not None else ""


def warnings(comparison: Comparison) -> list[str]:
    """What must be known before the table is believed."""
    forced = f"FORCED: the runs differ in {', '.join(comparison.differs)}." if comparison.differs else None
    return [sentence for sentence in (forced, *comparison.notes) if sentence]


def cells(row: Row) -> tuple[str, ...]:
    """One line of the table, as HEAD says."""
    return (
        ENGINE_SHORT.get(row.engine, row.engine),
        f"{row.key}: {row.label}, {row.unit}",
        figure_text(row.old),
        figure_text(row.new),
        _difference(row),
        p_text(row.verdict.p_holm if row.verdict else None),
        row.finding,
    )


def _difference(row: Row) -> str:
    if row.verdict is None or row.verdict.difference_percent is None:
        return "–"
    interval = None if row.verdict.too_wide else row.verdict.ci_percent
    ends = f" ({signed(interval[0])} to {signed(interval[1])})" if interval else ""
    return signed(row.verdict.difference_percent) + ends


def explanations(comparison: Comparison) -> list[str]:
    """A sentence for each row that raises a question."""
    return [f"{row.name}: {row.reason}" for row in comparison.with_finding(*EXPLAINED)]


def markdown(comparison: Comparison) -> str:
    """GitHub-flavoured Markdown of everything."""
    lines = [f"### {_plain(comparison.old)} → {_plain(comparison.new)}", "", f"**{_plain(headline(comparison))}**", ""]
    for sentence in warnings(comparison):
        lines += [f"> {_plain(sentence)}", ""]
    lines += [_line(HEAD), _line(["---", "---", "---:", "---:", "---:", "---:", "---"])]
    lines += [_line([_marked(part, row) for part in cells(row)]) for row in comparison.rows]
    if sentences := explanations(comparison):
        lines += ["", *(f"- {_plain(sentence)}" for sentence in sentences)]
    return "\n".join(lines) + "\n"


def _marked(part: str, row: Row) -> str:
    strong = row.finding in ("regression", "lost") and part == row.finding
    return f"**{part}**" if strong else _plain(part)


def _plain(text: str) -> str:
    """Text that cannot break a table or become a tag or a link: it may come from a file that was edited by hand."""
    text = " ".join(text.split())
    for sign in "\\|`*[]<":
        text = text.replace(sign, f"\\{sign}")
    return text


def _line(parts: Sequence[str]) -> str:
    return f"| {' | '.join(parts)} |"


def print_comparison(comparison: Comparison) -> None:
    """The table and its sentences on stdout."""
    import sys

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not sys.stdout.isatty():
        print(markdown(comparison), end="")
        return
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, title=f"{comparison.old} → {comparison.new}", title_justify="left")
    for name in HEAD:
        table.add_column(name, justify="left" if name in ("Engine", "Metric", "Finding") else "right")
    for row in comparison.rows:
        table.add_row(*(Text(part, style=STYLES.get(row.finding, "")) for part in cells(row)))
    with console.capture() as captured:
        console.print(table)
        for sentence in [*warnings(comparison), *explanations(comparison), headline(comparison)]:
            console.print(Text(sentence))
    print(captured.get(), end="")
