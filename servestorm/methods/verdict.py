"""Is the difference real, and does it matter? One verdict for two sides of a metric, from their runs.

* equivalent: the 95 % interval of the difference lies inside the margin. It comes first, for a difference may be real
  and too small to matter.
* A or B: that side is better, with p under alpha after Holm's correction over the family.
* inconclusive: neither, with the number of runs that would tell.

`docs/explanation/statistics.md` says what each number means, and how often a verdict is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from servestorm.methods.power import MOST_RUNS_MORE, runs_more, smallest_effect_percent
from servestorm.methods.welch import Welch, constant, hedges, holm, interval_percent, known, welch

K = TypeVar("K")
Better = Literal["lower", "higher"]
Outcome = Literal["A", "B", "equivalent", "inconclusive"]
Runs = Sequence[float | None]
PAPER_RUNS = 3
PAPER_ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """What may be said of b against a. What cannot be told is None."""

    outcome: Outcome
    """A: a is better; B: b is better."""
    n_a: int
    n_b: int
    """Runs with a number."""
    mean_a: float | None
    mean_b: float | None
    difference_percent: float | None
    """(mean_b - mean_a) / mean_a * 100; None where mean_a is not over 0."""
    ci_percent: tuple[float, float] | None
    """95 % interval of it (at alpha 0.05): leaves 0 out exactly where p < alpha."""
    p: float | None
    """Welch's test, two-sided."""
    p_holm: float | None
    """p after Holm's correction over the family."""
    g: float | None
    """Hedges' g of b against a."""
    g_ci: tuple[float, float] | None
    smallest_effect_percent: float | None
    """The difference that so many runs with this scatter show with 80 % power at alpha over the family's size."""
    runs_more: int | None
    """So many more runs of each side would probably give an answer; None where there is one, or none can be told."""
    reason: str
    """One sentence for a reader."""
    ratio: float | None = None
    """mean_b / mean_a; None of a metric that can be 0."""
    ratio_ci: tuple[float, float] | None = None
    """Interval of it at `confidence`."""
    paired: bool = False
    """Whether the runs of a round were compared with each other."""
    rounds: int | None = None
    """Of a paired verdict: rounds in which both sides have a number."""
    confidence: float = 0.95
    """Of the intervals."""


def verdict(
    a: Runs,
    b: Runs,
    better: Better,
    margin: float = 0.05,
    alpha: float = 0.05,
    *,
    names: tuple[str, str] = ("A", "B"),
) -> Verdict:
    """The verdict on one metric that is a family of its own; see `verdicts`."""
    return verdicts({0: (a, b, better)}, margin, alpha, names={0: names})[0]


def verdicts(
    family: Mapping[K, tuple[Runs, Runs, Better]],
    margin: float = 0.05,
    alpha: float = 0.05,
    *,
    names: Mapping[K, tuple[str, str]] | None = None,
) -> dict[K, Verdict]:
    """A verdict for each (runs of a, runs of b, which direction is better); runs that are None are left out.

    margin: the share of mean_a under which a difference does not matter, such as 0.05. names: what the reasons call a
    and b. Holm's correction counts every member that could be tested.
    """
    if not (margin >= 0 and 0 < alpha < 1):
        raise ValueError(f"margin {margin} must be 0 or more, and alpha {alpha} between 0 and 1")
    sides = {key: (known(a), known(b)) for key, (a, b, _) in family.items()}
    tests = {key: welch(a, b) for key, (a, b) in sides.items()}
    adjusted = holm({key: test.p for key, test in tests.items() if test})
    judge = _Judge(margin, alpha, max(1, len(adjusted)))
    results = {}
    for key, (a, b) in sides.items():
        test, called = tests[key], (names or {}).get(key, ("A", "B"))
        if test is None:
            results[key] = judge.untested(a, b, called)
        else:
            results[key] = judge.tested(test, adjusted[key], hedges(a, b, alpha), family[key][2], called)
    return results


class _Judge:
    """The rules for one family."""

    def __init__(self, margin: float, alpha: float, size: int) -> None:
        self._margin, self._alpha, self._size = margin, alpha, size

    def tested(
        self,
        test: Welch,
        p_holm: float,
        effect: tuple[float | None, tuple[float, float] | None],
        better: Better,
        names: tuple[str, str],
    ) -> Verdict:
        """Where Welch's test is defined."""
        interval = _possible(interval_percent(test, self._alpha), test)
        outcome = self._outcome(test, p_holm, interval, better)
        strict = self._alpha / self._size  # what Holm asks of the smallest p: no advice may ask for less
        more = runs_more(test, self._margin, strict, self._alpha) if outcome == "inconclusive" else None
        return Verdict(
            outcome=outcome,
            n_a=test.n_a,
            n_b=test.n_b,
            mean_a=test.mean_a,
            mean_b=test.mean_b,
            difference_percent=_percent(test.mean_a, test.mean_b),
            ci_percent=interval,
            p=test.p,
            p_holm=p_holm,
            g=effect[0],
            g_ci=effect[1],
            smallest_effect_percent=smallest_effect_percent(test, strict),
            runs_more=more,
            reason=self._reason(outcome, test, p_holm, interval, more, names),
        )

    def _outcome(self, test: Welch, p_holm: float, interval: tuple[float, float] | None, better: Better) -> Outcome:
        width = 100 * self._margin
        if interval and -width <= interval[0] and interval[1] <= width:
            return "equivalent"
        if p_holm >= self._alpha:
            return "inconclusive"
        return "A" if (test.mean_a < test.mean_b) == (better == "lower") else "B"

    def _reason(
        self,
        outcome: Outcome,
        test: Welch,
        p_holm: float,
        interval: tuple[float, float] | None,
        more: int | None,
        names: tuple[str, str],
    ) -> str:
        margin = f"the margin of {100 * self._margin:g} %"
        where = f"{signed(interval[0])} to {signed(interval[1])}" if interval else None
        if outcome == "equivalent":
            return f"Equivalent: {names[1]} differs from {names[0]} by {where}, inside {margin}."
        if outcome == "inconclusive":
            open_ = f"{names[1]} may differ from {names[0]} by {where}" if where else "the runs scatter too much"
            return f"Inconclusive: {open_}; {_advice(more, test.p < self._alpha)}."
        winner = names[0] if outcome == "A" else names[1]
        size = f"{names[1]} differs from {names[0]} by {where}" if where else "by how much, the runs do not tell"
        return f"{winner} is better: {size} (Holm p {_equals(p_holm)})."

    def untested(self, a: Sequence[float], b: Sequence[float], names: tuple[str, str]) -> Verdict:
        """Where there are too few runs, or no scatter."""
        mean_a, mean_b = _mean(a), _mean(b)
        outcome: Outcome = "inconclusive"
        if len(a) < 2 or len(b) < 2:
            reason = (
                f"Inconclusive: {names[0]} has {_count(len(a))} with this number and {names[1]} has {len(b)}; "
                "at least 2 of each are needed, and 3 are wise."
            )
        elif not (constant(a) and constant(b)):
            reason = "Inconclusive: the numbers are too large to be judged."
        elif constant([*a, *b]):
            outcome, reason = "equivalent", "Equivalent: every run of both gave the same number."
        else:
            reason = "Inconclusive: the runs of each side are all alike, and runs without scatter cannot be judged."
        return _untested(outcome, len(a), len(b), mean_a, mean_b, reason)


def _untested(outcome: Outcome, n_a: int, n_b: int, mean_a: float | None, mean_b: float | None, reason: str) -> Verdict:
    return Verdict(
        outcome=outcome,
        n_a=n_a,
        n_b=n_b,
        mean_a=mean_a,
        mean_b=mean_b,
        difference_percent=_percent(mean_a, mean_b),
        ci_percent=None,
        p=None,
        p_holm=None,
        g=None,
        g_ci=None,
        smallest_effect_percent=None,
        runs_more=None,
        reason=reason,
    )


def _mean(values: Sequence[float]) -> float | None:
    with np.errstate(over="ignore"):
        mean = float(np.mean(values)) if values else math.inf
    return mean if math.isfinite(mean) else None


def _possible(interval: tuple[float, float] | None, test: Welch) -> tuple[float, float] | None:
    """The interval without what cannot be: a time or a rate is not under 0, so it is never over 100 % less."""
    if interval is None or test.mean_b < 0:
        return interval
    return max(interval[0], -100.0), interval[1]


def _percent(mean_a: float | None, mean_b: float | None) -> float | None:
    """The difference in percent of mean_a."""
    if mean_a is None or mean_b is None or mean_a <= 0:
        return None
    percent = 100 * (mean_b / mean_a - 1)
    return percent if math.isfinite(percent) else None


def _advice(more: int | None, only_holm: bool) -> str:
    """What would settle it."""
    why = "with so many comparisons that may be chance, " if only_holm else ""
    if more is None:
        return f"{why}even {MOST_RUNS_MORE:,} more runs of each would not tell"
    return f"{why}about {_count(more, 'more run')} of each would tell"


def _count(number: int, what: str = "run") -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def signed(percent: float) -> str:
    """'+12 %', '-3.4 %', '+0.21 %': the sign always, and a true minus."""
    size = abs(percent)
    decimals = 0 if size >= 100 else 1 if size >= 1 else 2
    return f"{percent:+,.{decimals}f} %".replace("-", "\u2212")


def _equals(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


@dataclass(frozen=True)
class Paper:
    """The plain form of the study that this tool repeats: three runs each, no correction, no equivalence."""

    n_a: int
    n_b: int
    mean_a: float | None
    mean_b: float | None
    sd_a: float | None
    sd_b: float | None
    """Sample standard deviations (n - 1)."""
    t: float | None
    """Welch's t of mean_b - mean_a."""
    df: float | None
    p: float | None
    significant: bool | None
    """p < 0.05; None where there is no p."""


def paper(a: Runs, b: Runs) -> Paper:
    """Mean, standard deviation, t and p < 0.05 of the first three runs of each side that have a number."""
    first, second = known(a)[:PAPER_RUNS], known(b)[:PAPER_RUNS]
    test = welch(first, second)
    sd_a, sd_b = (float(np.std(side, ddof=1)) if len(side) > 1 else None for side in (first, second))
    return Paper(
        n_a=len(first),
        n_b=len(second),
        mean_a=_mean(first),
        mean_b=_mean(second),
        sd_a=sd_a,
        sd_b=sd_b,
        t=test.t if test else None,
        df=test.df if test else None,
        p=test.p if test else None,
        significant=test.p < PAPER_ALPHA if test else None,
    )
