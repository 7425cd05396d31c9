"""How training scales over processes: speed-up and efficiency of each number of them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from servestorm.analysis.figures import DataParallel
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number, times_text
from servestorm.report.canvas import INK, MUTED, Drawing, draw, engine_colour, legend
from servestorm.report.part import SectionPart, Table, make_part
from servestorm.report.ratio_axis import ratio_axis

Line = tuple[str, str, DataParallel]
"""Title of the group, framework, and what was found."""


def data_parallel_part(results: Results) -> SectionPart | None:
    """The figure of all groups together; None where no training had several processes beside fewer."""
    lines = [
        (results.groups[group], engine, found)
        for group, own in results.figures.data_parallel.items()
        for engine, found in own.items()
    ]
    if not lines:
        return None
    fewest = lines[0][2].fewest
    than = "one process" if fewest == 1 else f"{fewest} processes"
    caption = (
        f"Images learnt from in a second, divided by those of {than}, with the 95 % interval over repetitions; the bar "
        "is what would be reached without any loss. Efficiency is the share of it that is reached. Processes of one "
        "machine share its memory and, where there are more threads than cores, its cores."
    )
    head = ["Trainings", "Framework", "Processes", "Times as fast", "95 % interval", "Efficiency, %", "95 % interval"]
    table = Table("Training in several processes", head, [_row(line) for line in lines])
    return make_part("data-parallel", _draw(results, lines), caption, table, "Several processes")


def _row(line: Line) -> list[str]:
    title, engine, found = line
    times, percent = found.speedup_ci, found.efficiency_percent_ci
    return [
        title,
        ENGINE_SHORT[engine],
        str(found.processes),
        times_text(found.speedup),
        " to ".join(map(times_text, times)) if times else number(None),
        number(found.efficiency_percent),
        " to ".join(map(number, percent)) if percent else number(None),
    ]


def _draw(results: Results, lines: Sequence[Line]) -> Drawing:
    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.axvline(1, color=MUTED, linewidth=1)
        shown = [1.0]
        for place, (_, engine, found) in enumerate(lines):
            colour, ideal = engine_colour(results.engines.index(engine)), found.processes / found.fewest
            axes.plot(ideal, place, "|", color=MUTED, markersize=14, markeredgewidth=2)
            if found.speedup_ci:
                axes.plot(found.speedup_ci, [place, place], color=colour, linewidth=2)
            axes.plot(found.speedup, place, "o", color=colour, markersize=7)
            shown += [ideal, found.speedup, *(found.speedup_ci or ())]
        ratio_axis(axes, shown, narrow)
        names = [f"{ENGINE_SHORT[engine]}: {title}" for title, engine, _ in lines]
        axes.set_yticks(range(len(lines)), [textwrap.fill(name, 26 if narrow else 60) for name in names], color=INK)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("times as fast (log scale)")
        handles = [
            Line2D([], [], color=INK, marker="o", markersize=7),
            Line2D([], [], color=MUTED, marker="|", markersize=12, markeredgewidth=2, linewidth=0),
        ]
        legend(figure, handles, ["measured", "without any loss"], narrow, columns=2)

    return draw("data-parallel", paint, 1.3 + 0.4 * len(lines), 1.6 + 0.7 * len(lines))
