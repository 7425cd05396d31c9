"""The verdicts: each difference with its interval, over the margin in which two engines count as equal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from servestorm.analysis.judgements import Judgement
from servestorm.analysis.results import Results
from servestorm.methods.verdict import signed
from servestorm.plan.labels import ENGINE_SHORT, number, p_text
from servestorm.report import settings
from servestorm.report.canvas import INK, MARKS, MUTED, Drawing, draw, engine_colour, legend
from servestorm.report.part import Section, SectionPart, Table, make_part, section_of

LINEAR_PERCENT = 40
"""The largest difference that is drawn on a linear axis."""
FEW_TICKS_PERCENT = 300
"""The largest difference with room for many ticks on the axis."""
NARROW_LETTERS = 26
"""Line width of a row's name on a narrow figure: it must leave room for the intervals."""


def section(results: Results) -> Section:
    """One figure of all verdicts."""
    return section_of("verdicts", "Verdicts", [_of_study(results)])


def _of_study(results: Results) -> SectionPart | None:
    return part("verdicts-figure", results.engines, results.verdicts, settings.margin_percent(results))


def part(
    name: str, engines: Sequence[str], rows: Sequence[Judgement], margin_percent: float, subtitle: str = ""
) -> SectionPart | None:
    """The verdicts' differences with their intervals."""
    drawing = _draw(name, engines, rows, margin_percent)
    if not drawing:
        return None
    cells = [
        [
            f"{row.label}: {ENGINE_SHORT[row.b]} against {ENGINE_SHORT[row.a]}",
            "–" if row.verdict.difference_percent is None else signed(row.verdict.difference_percent),
            "–" if row.verdict.ci_percent is None else " to ".join(map(signed, row.verdict.ci_percent)),
            _effect(row.verdict.g),
            "–" if row.verdict.g_ci is None else " to ".join(map(_effect, row.verdict.g_ci)),
            "–" if row.verdict.smallest_effect_percent is None else number(row.verdict.smallest_effect_percent, "%"),
            p_text(row.verdict.p_holm),
            _outcome_text(row),
        ]
        for row in rows
    ]
    caption = (
        "How much larger (right of 0) or smaller the second engine's value is than the first's, with the 95 % "
        f"interval over runs. The band is the margin of {margin_percent:g} %: two engines are equivalent if the "
        "interval is inside it. Colour and mark show the better one, after Holm's correction for the number of "
        "questions. Hedges' g is the difference in standard deviations of the runs; the smallest effect is the "
        "difference that as many runs with this scatter detect with 80 % power."
    )
    head = ["Question", "Difference", "95 % interval", "Hedges' g", "95 % interval of g", "Smallest effect", "Holm p"]
    table = Table("Verdicts", [*head, "Verdict"], cells, open=True)
    return make_part(name, drawing, caption, table, subtitle)


def _effect(g: float | None) -> str:
    """'+1.23', or '+12.3' from 10 on: standard deviations."""
    return "–" if g is None else f"{g:+.2f}" if abs(g) < 10 else f"{g:+,.1f}"


def _outcome_text(row: Judgement) -> str:
    """'TorchServe is better; savedmodel did not batch', 'equivalent', 'inconclusive' or 'no verdict (disturbed)'."""
    if row.withheld:
        return f"no verdict ({row.withheld})"
    winner = _winner(row)
    outcome = f"{ENGINE_SHORT[winner]} is better" if winner else row.verdict.outcome
    return "; ".join([outcome, *row.unbatched_texts])


def _draw(name: str, engines: Sequence[str], rows: Sequence[Judgement], margin_percent: float) -> Drawing | None:
    """Each verdict's difference with its 95 % interval, over the band in which two engines count as equal.

    None without a row. Linear within LINEAR_PERCENT, beyond that logarithmic outside the margin, because one metric may
    differ by 3 % and the next one threefold.
    """
    if not rows:
        return None
    names = {narrow: [_row_name(row, rows, narrow) for row in rows] for narrow in (False, True)}

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.axvspan(-margin_percent, margin_percent, color=MUTED, alpha=0.16, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=1)
        for place, row in enumerate(rows):
            _interval(axes, place, row, engines)
        _percent_axis(axes, rows, margin_percent, narrow)
        axes.set_yticks(range(len(rows)), names[narrow], color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(textwrap.fill(_axis_name(rows), 26 if narrow else 80))
        _legend(figure, engines, rows, narrow)

    most_lines = max(name.count("\n") for name in names[True]) + 1
    return draw(name, paint, 1.2 + 0.34 * len(rows), 1.5 + (0.2 + 0.17 * most_lines) * len(rows))


def _many_pairs(rows: Sequence[Judgement]) -> bool:
    return len({(row.a, row.b) for row in rows}) > 1


def _row_name(row: Judgement, rows: Sequence[Judgement], narrow: bool) -> str:
    text = "; ".join([row.label, *row.unbatched_texts])
    label = textwrap.fill(text, NARROW_LETTERS) if narrow else text
    if not _many_pairs(rows):
        return label
    pair = f"{ENGINE_SHORT[row.b]} against {ENGINE_SHORT[row.a]}"
    return f"{label}\n{pair}" if narrow else f"{label}, {pair}"


def _axis_name(rows: Sequence[Judgement]) -> str:
    if _many_pairs(rows):
        return "difference, %"
    return f"{ENGINE_SHORT[rows[0].b]} against {ENGINE_SHORT[rows[0].a]}, %"


def _winner(row: Judgement) -> str | None:
    return {"A": row.a, "B": row.b}.get(row.verdict.outcome)


def _interval(axes: Axes, place: int, row: Judgement, engines: Sequence[str]) -> None:
    winner = _winner(row)
    index = engines.index(winner) if winner else None
    colour = MUTED if index is None else engine_colour(index)
    if row.verdict.difference_percent is None:
        text = "no verdict" if row.withheld else "no number"
        axes.annotate(text, (0, place), xytext=(6, 0), textcoords="offset points", va="center", color=MUTED)
        return
    if row.verdict.ci_percent is not None:
        axes.plot(row.verdict.ci_percent, [place, place], color=colour, linewidth=2)
    mark = "D" if row.verdict.outcome == "equivalent" else "o" if index is None else MARKS[index % 3]
    hollow = row.verdict.outcome == "inconclusive"
    axes.plot(
        row.verdict.difference_percent,
        place,
        mark,
        color=colour,
        markersize=7,
        markeredgewidth=1.5,
        markerfacecolor="none" if hollow else colour,
    )


def _percent_axis(axes: Axes, rows: Sequence[Judgement], margin_percent: float, narrow: bool) -> None:
    known = [row.verdict.difference_percent for row in rows if row.verdict.difference_percent is not None]
    known += [end for row in rows for end in row.verdict.ci_percent or ()]
    low, high = min([*known, -margin_percent]), max([*known, margin_percent])
    if max(-low, high) <= LINEAR_PERCENT:
        axes.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))
        axes.xaxis.set_major_locator(MaxNLocator(5 if narrow else 9))
    else:
        axes.set_xscale("symlog", linthresh=margin_percent, linscale=0.6)
        axes.set_xlim(low * 1.4, high * 1.4)
        few = narrow or max(-low, high) > FEW_TICKS_PERCENT
        steps = (5, 30, 200, 1000, 10_000) if few else (5, 10, 20, 50, 100, 200, 500, 1000, 10_000)
        ticks = [sign * step for step in steps if step >= margin_percent for sign in (-1, 1)]
        axes.xaxis.set_major_locator(FixedLocator([0, *(tick for tick in ticks if low * 1.4 <= tick <= high * 1.4)]))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(_signed))


def _signed(value: float, _position: object = None) -> str:
    text = f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.3g}"
    return text.replace("-", "\N{MINUS SIGN}") if value else "0"


def _legend(figure: Figure, engines: Sequence[str], rows: Sequence[Judgement], narrow: bool) -> None:
    handles, labels = [], []
    outcomes = {row.verdict.outcome for row in rows}
    for index, engine in enumerate(engines):
        if any(_winner(row) == engine for row in rows):
            handles.append(Line2D([], [], color=engine_colour(index), marker=MARKS[index % 3], markersize=7))
            labels.append(f"{ENGINE_SHORT[engine]} is better")
    if "equivalent" in outcomes:
        handles.append(Line2D([], [], color=MUTED, marker="D", markersize=7))
        labels.append("equivalent")
    if "inconclusive" in outcomes:
        handles.append(Line2D([], [], color=MUTED, marker="o", markersize=7, markerfacecolor="none"))
        labels.append("inconclusive")
    legend(figure, handles, labels, narrow, columns=2)
