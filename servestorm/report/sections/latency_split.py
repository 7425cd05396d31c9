"""Where the time of a request goes, part by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from servestorm.analysis.latency_split import INFERENCE, Part, Parts
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT, number
from servestorm.report.canvas import INK, PAPER, Drawing, draw, legend, part_colour, slug
from servestorm.report.part import Section, SectionPart, Table, groups_with_samples, make_part, marked, section_of

EngineParts = Mapping[str, Parts]
"""By engine."""
_LABELLED_SHARE = 0.06
"""A part this large, against the longest bar, has room for its number."""


def section(results: Results) -> Section:
    """One figure a group of runs under load."""
    groups = groups_with_samples(results)
    return section_of("split", "Where the time goes", (_of_group(results, group) for group in groups))


def _of_group(results: Results, group: str) -> SectionPart | None:
    splits = results.figures.split.get(group, {})
    inside = [row.ms for split in splits.values() for row in split.parts if row.part == INFERENCE]
    if all(ms is None for ms in inside):  # no server exposes it: there is nothing to split
        return None
    notes = [f"{ENGINE_SHORT[engine]}: {' '.join(split.notes)}" for engine, split in splits.items() if split.notes]
    name = f"split-{slug(group)}"
    shown = part(name, results.engines, splits, " ".join(notes), results.groups[group])
    return shown and replace(shown, caption=marked(results, group, shown.caption))


def part(
    name: str, engines: Sequence[str], data: EngineParts, note: str = "", subtitle: str = ""
) -> SectionPart | None:
    """Where a request's time goes; `note` names what a server does not expose, in a sentence."""
    drawing = _draw(name, engines, data)
    if not drawing:
        return None
    times = {engine: {row.part: row.ms for row in _parts(data, engine)} for engine in engines}
    rows = [[piece, *(number(times[engine].get(piece)) for engine in engines)] for piece in _part_names(data)]
    rows.append(["total", *(number(data[engine].mean_ms if engine in data else None) for engine in engines)])
    caption = (
        "The mean latency of a request in its parts, from the generator's time stamps and the servers' own "
        f"metrics. {note}"
    ).strip()
    head = ["Part", *(f"{ENGINE_SHORT[engine]}, ms" for engine in engines)]
    return make_part(name, drawing, caption, Table("Where the time goes", head, rows), subtitle)


def _draw(name: str, engines: Sequence[str], data: EngineParts) -> Drawing | None:
    """A stacked bar an engine: the parts of a request's mean latency in the order in which they pass.

    Gives None where no engine has a part. A negative part (its sources disagree) is not drawn; the table has it.
    """
    parts = _part_names(data)
    known = [split.mean_ms for split in data.values() if split.mean_ms and any(row.ms for row in split.parts)]
    longest = max(known, default=0.0)
    if not longest:
        return None

    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        for row, engine in enumerate(engines):
            own_ms = {entry.part: entry.ms for entry in _parts(data, engine)}
            end_ms = _stack(axes, row, parts, own_ms, longest * (1.6 if narrow else 1.0))
            total = number(data[engine].mean_ms if engine in data else None, "ms")
            axes.annotate(total, (end_ms, row), xytext=(6, 0), textcoords="offset points", va="center", color=INK)
        axes.set_yticks(range(len(engines)), [ENGINE_SHORT[e] for e in engines], color=INK)
        axes.set_ylim(len(engines) - 0.5, -0.5)
        axes.set_xlim(0, longest * (1.2 if narrow else 1.1))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ms per request, mean")
        drawn = [
            place
            for place, part in enumerate(parts)
            if any(row.part == part and row.ms for engine in engines for row in _parts(data, engine))
        ]
        swatches = [Patch(facecolor=part_colour(place), linewidth=0) for place in drawn]
        legend(figure, swatches, [parts[place] for place in drawn], narrow, columns=2)

    height_in = 0.75 + 0.55 * len(engines)
    return draw(name, paint, height_in + 0.3, height_in + 0.2 * ((len(parts) + 1) // 2))


def _part_names(data: EngineParts) -> list[str]:
    """Every part of any engine, in the order given."""
    return list(dict.fromkeys(row.part for split in data.values() for row in split.parts))


def _parts(data: EngineParts, engine: str) -> Sequence[Part]:
    """In the order in which they pass."""
    return data[engine].parts if engine in data else ()


def _stack(
    axes: Axes, row: int, parts: Sequence[str], own_ms: Mapping[str, float | None], full_width_ms: float
) -> float:
    """Draws the parts over 0; returns where the bar ends on the axis."""
    left = 0.0
    for index, part in enumerate(parts):
        size = own_ms.get(part) or 0.0
        if size <= 0:
            continue
        axes.barh(row, size, 0.56, left=left, color=part_colour(index), edgecolor=PAPER, linewidth=0.8)
        if size >= _LABELLED_SHARE * full_width_ms:
            axes.text(left + size / 2, row, number(size), ha="center", va="center", color=PAPER, fontsize=8.5)
        left += size
    return left
