"""The verdicts: each ratio with its interval, over the margin in which two engines count as equal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from servestorm.analysis.judgements import Judgement
from servestorm.analysis.printable_ratio import Ratio, printable_ratio, says_nothing
from servestorm.analysis.results import Results
from servestorm.methods.verdict import WIDE, Verdict, signed
from servestorm.plan.labels import ENGINE_SHORT, number, p_text, times_text
from servestorm.report import settings
from servestorm.report.canvas import INK, MARKS, MUTED, Drawing, draw, engine_colour, legend
from servestorm.report.part import Section, SectionPart, Table, make_part, section_of
from servestorm.report.ratio_axis import ratio_axis

USUAL_CONFIDENCE = "95 %"
"""Of intervals whose row does not say another."""
MOST_SHOWN_PERCENT = 1000.0
"""A smallest effect beyond it says only that the runs are too few."""
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
    """The verdicts' ratios with their intervals."""
    drawing = _draw(name, engines, rows, margin_percent)
    if not drawing:
        return None
    caption = (
        "The second engine's value divided by the first's, with the interval over runs (95 % unless the "
        f"table has another); the axis is logarithmic. The band is the margin of {margin_percent:g} %: two engines are "
        "equivalent if the interval is inside it. Colour and mark show the better one, after Holm's correction for the "
        f"number of questions. An inconclusive interval whose ends differ by more than a factor of {WIDE:g} says "
        "nothing, and is not shown. A percentage is the difference of a figure that can be 0. Paired: the runs of a "
        "round were compared with each other. Hedges' g is the difference in standard deviations of the runs; the "
        "smallest effect is the difference that as many runs with this scatter detect with 80 % power."
    )
    head = ["Question", "Difference", "95 % interval", "Runs", "Hedges' g", "95 % interval of g", "Smallest effect"]
    table = Table("Verdicts", [*head, "Holm p", "Verdict"], [_cells(row) for row in rows], open=True)
    return make_part(name, drawing, caption, table, subtitle)


def _cells(row: Judgement) -> list[str]:
    verdict = row.verdict
    g_ci = None if says_nothing(verdict) else verdict.g_ci
    return [
        f"{row.label}: {ENGINE_SHORT[row.b]} against {ENGINE_SHORT[row.a]}",
        *_difference(verdict),
        f"{verdict.rounds} rounds, paired" if verdict.paired else f"{verdict.n_a} and {verdict.n_b}",
        _effect(verdict.g),
        "–" if g_ci is None else " to ".join(map(_effect, g_ci)),
        _smallest_text(verdict.smallest_effect_percent),
        p_text(verdict.p_holm),
        _outcome_text(row),
    ]


def _smallest_text(percent: float | None) -> str:
    """'19.1 %'; of runs that could show nothing, however large, only that."""
    if percent is None:
        return "–"
    return number(percent, "%") if percent < MOST_SHOWN_PERCENT else f"over {number(MOST_SHOWN_PERCENT, '%')}"


def _difference(verdict: Verdict) -> tuple[str, str]:
    """('× 1.65', '1.58 to 1.72'), of a figure that can be 0 in percent; dashes where it says nothing."""
    if verdict.difference_percent is None or says_nothing(verdict):
        return "–", "–"
    by_ratio = verdict.ratio is not None and (verdict.ratio_ci is not None or verdict.ci_percent is None)
    ends = verdict.ratio_ci if by_ratio else verdict.ci_percent
    size = times_text if by_ratio else signed
    difference = f"× {times_text(verdict.ratio)}" if by_ratio and verdict.ratio else signed(verdict.difference_percent)
    if ends is None:
        return difference, "–"
    confidence = f"{100 * verdict.confidence:.3g} %"
    level = "" if confidence == USUAL_CONFIDENCE else f" ({confidence})"
    return difference, " to ".join(map(size, ends)) + level


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
    """Each verdict's ratio with its interval, over the band in which two engines count as equal; None without a row."""
    if not rows:
        return None
    names = {narrow: [_row_name(row, rows, narrow) for row in rows] for narrow in (False, True)}

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        margin = 1 + margin_percent / 100
        axes.axvspan(1 / margin, margin, color=MUTED, alpha=0.16, linewidth=0)
        axes.axvline(1, color=MUTED, linewidth=1)
        for place, row in enumerate(rows):
            _interval(axes, place, row, engines)
        known = [ratio for row in rows if (ratio := printable_ratio(row.verdict))]
        ratio_axis(axes, [1 / margin, margin, *(end for ratio in known for end in _ends(ratio))], narrow)
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
        return "ratio (log scale)"
    return f"{ENGINE_SHORT[rows[0].b]} divided by {ENGINE_SHORT[rows[0].a]} (log scale)"


def _winner(row: Judgement) -> str | None:
    return {"A": row.a, "B": row.b}.get(row.verdict.outcome)


def _interval(axes: Axes, place: int, row: Judgement, engines: Sequence[str]) -> None:
    winner = _winner(row)
    index = engines.index(winner) if winner else None
    colour = MUTED if index is None else engine_colour(index)
    ratio = printable_ratio(row.verdict)
    if ratio is None:
        middle = axes.get_yaxis_transform()  # across the axes, whatever the ratios of the other rows
        axes.text(0.5, place, _undrawn(row), transform=middle, ha="center", va="center", color=MUTED)
        return
    if ratio.interval is not None:
        axes.plot(ratio.interval, [place, place], color=colour, linewidth=2)
    mark = "D" if row.verdict.outcome == "equivalent" else "o" if index is None else MARKS[index % 3]
    hollow = row.verdict.outcome == "inconclusive"
    axes.plot(
        ratio.value,
        place,
        mark,
        color=colour,
        markersize=7,
        markeredgewidth=1.5,
        markerfacecolor="none" if hollow else colour,
    )


def _undrawn(row: Judgement) -> str:
    """What stands in the place of a ratio."""
    if row.withheld:
        return "no verdict"
    return "too much scatter" if says_nothing(row.verdict) else "no number"


def _ends(ratio: Ratio) -> tuple[float, ...]:
    return ratio.interval or (ratio.value,)


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
