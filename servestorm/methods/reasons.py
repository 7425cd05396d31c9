"""What a verdict says to a reader, in one sentence.

In every function `names` are a and b, `where` is the interval, such as "+1.0 % to +2.0 %", or None where it says
nothing, and `used` is what `rounds_used` gives.
"""

from __future__ import annotations

from servestorm.methods.power import MOST_RUNS_MORE

Names = tuple[str, str]


def equivalent(names: Names, where: str, margin: float, used: str) -> str:
    """The difference does not matter; `margin` is a share."""
    inside = f"inside the margin of {100 * margin:g} %"
    return f"Equivalent{used}: {names[1]} differs from {names[0]} by {where}, {inside}."


def winner(names: Names, b_is_better: bool, where: str | None, p_holm: float, used: str) -> str:
    """One side is better."""
    size = f"{names[1]} differs from {names[0]} by {where}" if where else "by how much, the runs do not tell"
    return f"{names[b_is_better]} is better{used}: {size} (Holm p {_equals(p_holm)})."


def inconclusive(names: Names, where: str | None, advice: str, used: str) -> str:
    """Neither; `advice` is what would settle it."""
    size = f"{names[1]} may differ from {names[0]} by {where}" if where else "the runs scatter too much to say"
    return f"Inconclusive{used}: {size}; {advice}."


def advice(more: int | None, minutes: float | None, paired: bool, only_holm: bool) -> str:
    """What would settle it; `only_holm` where the question would be decided if it were the only one."""
    why = "with so many comparisons that may be chance, " if only_holm else ""
    each = "" if paired else " of each"
    if more is None:
        return f"{why}even {MOST_RUNS_MORE:,} more {'rounds' if paired else 'runs'}{each} would not tell"
    count = _count(more, "more round" if paired else "more run")
    return f"{why}about {count}{each}{_minutes(minutes)} would tell"


def _minutes(minutes: float | None) -> str:
    """' (about 12 minutes)'."""
    if minutes is None:
        return ""
    text = _count(max(1, round(minutes)), "minute") if minutes < 90 else f"{minutes / 60:,.1f} hours"
    return f" (about {text})"


def rounds_used(used: int, seen: int | None) -> str:
    """', from 3 of 5 rounds' where some round has a number on one side only."""
    return "" if seen is None or used == seen else f", from {used} of {_count(seen, 'round')}"


def too_few(names: Names, n_a: int, n_b: int) -> str:
    """A side has fewer than two runs."""
    return (
        f"Inconclusive: {names[0]} has {_count(n_a, 'run')} with this number and {names[1]} has {n_b}; "
        "at least 2 of each are needed, and 3 are wise."
    )


def no_scatter(paired: bool) -> str:
    """There is a difference, and nothing to judge it by."""
    if paired:
        return "Inconclusive: all rounds differ alike, and rounds without scatter cannot be judged."
    return "Inconclusive: the runs of each side are all alike, and runs without scatter cannot be judged."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _equals(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
