"""Published claims about TensorFlow and PyTorch beside this run's verdicts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from servestorm.analysis.claims import ClaimCheck, check_claims, read_claims
from servestorm.analysis.results import Results
from servestorm.plan.labels import times_text
from servestorm.report.canvas import INK, MUTED, Drawing, draw, legend
from servestorm.report.part import Section, SectionPart, Table, make_part, section_of
from servestorm.report.ratio_axis import ratio_axis

NARROW_LETTERS = 30
_UNTOLD = "cannot tell here"


def section(results: Results) -> Section:
    """One figure with every claim that a question of the run speaks to."""
    checks = [check for check in check_claims(results) if check.ratio is not None]
    return section_of("claims", "Published claims", [_part(checks)] if checks else [])


def _part(checks: Sequence[ClaimCheck]) -> SectionPart:
    file = read_claims()
    used = dict.fromkeys(check.claim.document for check in checks)
    documents = " ".join(f"{short} is {file.documents[short]}." for short in file.documents if short in used)
    caption = (
        f"What documents say, PyTorch's figure divided by TensorFlow's, against the same ratio here. {documents} "
        "Reproduced means that the same side is better, and the size is told beside it; it is not the same experiment: "
        "`servestorm claims` lists what differs."
    )
    head = ["Claim", "There", "Here", "95 % interval", "Outcome", "Why"]
    table = Table("Published claims", head, [_row(check) for check in checks])
    return make_part("claims-figure", _draw(checks), caption, table)


def _row(check: ClaimCheck) -> list[str]:
    interval = " to ".join(map(times_text, check.interval)) if check.interval and check.outcome != _UNTOLD else "–"
    ratio = "–" if check.ratio is None else f"× {times_text(check.ratio)}"
    outcome = f"{check.outcome}, {check.size}" if check.size else check.outcome
    return [_name(check), f"× {times_text(check.claim.ratio)}", ratio, interval, outcome, check.reason]


def _name(check: ClaimCheck) -> str:
    claim = check.claim
    images = f", {claim.images}" if claim.images else ""
    return f"{claim.document}, {claim.place}: {claim.what}{images}. {check.label}"


def _draw(checks: Sequence[ClaimCheck]) -> Drawing:
    def paint(figure: Figure, narrow: bool) -> None:
        axes = figure.add_subplot()
        axes.axvline(1, color=MUTED, linewidth=1)
        for place, check in enumerate(checks):
            _mark(axes, place, check)
        told = [end for check in checks if check.outcome != _UNTOLD for end in check.interval or ()]
        ratio_axis(axes, [1, *told, *(check.claim.ratio for check in checks)], narrow)
        axes.set_yticks(range(len(checks)), [_short(check, narrow) for check in checks], color=INK)
        axes.set_ylim(len(checks) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(textwrap.fill("PyTorch divided by TensorFlow (log scale)", 26 if narrow else 80))
        _legend(figure, checks, narrow)

    lines = max(_short(check, narrow=True).count("\n") for check in checks) + 1
    return draw("claims", paint, 1.2 + 0.34 * len(checks), 1.5 + (0.2 + 0.17 * lines) * len(checks))


def _short(check: ClaimCheck, narrow: bool) -> str:
    text = f"{check.claim.document}, {check.claim.place}: {check.claim.what}"
    return textwrap.fill(text, NARROW_LETTERS) if narrow else text


def _mark(axes: Axes, place: int, check: ClaimCheck) -> None:
    axes.plot(check.claim.ratio, place, "|", color=MUTED, markersize=14, markeredgewidth=2)
    if check.outcome == _UNTOLD or check.ratio is None:
        return
    if check.interval:
        axes.plot(check.interval, [place, place], color=INK, linewidth=2)
    hollow = check.outcome == "contradicted"
    axes.plot(check.ratio, place, "o", color=INK, markersize=7, markerfacecolor="none" if hollow else INK)


def _legend(figure: Figure, checks: Sequence[ClaimCheck], narrow: bool) -> None:
    handles = [Line2D([], [], color=MUTED, marker="|", markersize=12, markeredgewidth=2, linewidth=0)]
    labels = ["claimed"]
    for outcome, fill in (("reproduced", INK), ("contradicted", "none")):
        if any(check.outcome == outcome for check in checks):
            handles.append(Line2D([], [], color=INK, marker="o", markersize=7, markerfacecolor=fill))
            labels.append(f"here: {outcome}")
    legend(figure, handles, labels, narrow, columns=2)
