"""Is the difference real, and does it matter? One verdict for two sides of a metric, from their runs.

* equivalent: the interval of the ratio lies inside the margin. It comes first, for a difference may be real and too
  small to matter.
* A or B: that side is better, with p under alpha after Holm's correction over the family.
* inconclusive: neither, with the number of runs that would tell.

`docs/explanation/statistics.md` says what each number means, and how often a verdict is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeVar

from servestorm.methods import reasons
from servestorm.methods.group_sequential import level_used, nominal_level
from servestorm.methods.power import runs_more, smallest_effect_percent, smallest_ratio
from servestorm.methods.ratio import Effect, effect_of, percent_interval, ratio_interval
from servestorm.methods.rounds import RunPairs, pairs_of
from servestorm.methods.welch import constant, finite_mean, hedges, holm

K = TypeVar("K")
Better = Literal["lower", "higher"]
Outcome = Literal["A", "B", "equivalent", "inconclusive"]
Runs = Sequence[float | None]
WIDE = 3.0
"""An inconclusive interval whose ends differ by a larger factor says nothing, and no sentence prints it."""


class Question(NamedTuple):
    """One member of a family: two sides of a metric, by their runs; runs that are None are left out."""

    a: Runs
    b: Runs
    better: Better
    rounds: tuple[Sequence[int], Sequence[int]] | None = None
    """The round of each run of a and of b, which pairs them; None where the sides are independent."""
    looks: Sequence[float] = ()
    """Information shares (0..1] of the looks at these data so far, this one the last; empty where this is the only."""
    names: tuple[str, str] = ("A", "B")
    """What the reason calls a and b."""
    round_s: float | None = None
    """Seconds that one more run of each side takes; None where that is unknown."""


@dataclass(frozen=True)
class Verdict:
    """What may be said of b against a. What cannot be told is None."""

    outcome: Outcome
    """A: a is better; B: b is better."""
    n_a: int
    n_b: int
    """Runs that were used: those with a number, and of paired ones those of rounds in which both sides have one."""
    mean_a: float | None
    mean_b: float | None
    """Of these runs."""
    difference_percent: float | None
    """(mean_b - mean_a) / mean_a * 100, which is 100 (ratio - 1); None where mean_a is not over 0."""
    ci_percent: tuple[float, float] | None
    """Interval of it at `confidence`: leaves 0 out exactly where p is under 1 - confidence."""
    p: float | None
    """Two-sided, of this question and this look alone."""
    p_holm: float | None
    """p after the correction for the looks so far and Holm's correction over the family: under alpha decides."""
    g: float | None
    """Hedges' g of b against a."""
    g_ci: tuple[float, float] | None
    smallest_effect_percent: float | None
    """100 (smallest_ratio - 1); where a run is not over 0, the same as a difference in percent of mean_a."""
    runs_more: int | None
    """So many more runs of each side (paired: rounds) would probably give an answer; None where there is one, or none
    can be told."""
    reason: str
    """One sentence for a reader."""
    ratio: float | None = None
    """mean_b / mean_a; None where mean_a is not over 0."""
    ratio_ci: tuple[float, float] | None = None
    """Interval of the ratio at `confidence`, over 0; None too where a run is not over 0: then only ci_percent is."""
    paired: bool = False
    """Whether the runs of one round were judged against each other."""
    rounds: int | None = None
    """Of paired runs: rounds in which both sides have a number."""
    confidence: float = 0.95
    """Of ci_percent and ratio_ci: 1 - alpha, and higher where the data were looked at before they were complete."""
    smallest_ratio: float | None = None
    """The ratio over 1 that so many runs with this scatter show with 80 % power, at this look and with alpha over the
    family's size; as small a ratio under 1 is 1 / it."""
    minutes_more: float | None = None
    """Time that `runs_more` would take; None too where the time of a run is unknown."""

    @property
    def too_wide(self) -> bool:
        """Whether it is inconclusive with an interval so wide (or none) that no sentence prints it."""
        return self.outcome == "inconclusive" and (self.ci_percent is None or _wide(self.ratio_ci))


def verdict(
    a: Runs,
    b: Runs,
    better: Better,
    margin: float = 0.05,
    alpha: float = 0.05,
    *,
    rounds: tuple[Sequence[int], Sequence[int]] | None = None,
    looks: Sequence[float] = (),
    names: tuple[str, str] = ("A", "B"),
) -> Verdict:
    """The verdict on one metric that is a family of its own; see `verdicts`."""
    return verdicts({0: Question(a, b, better, rounds, looks, names)}, margin, alpha)[0]


def verdicts(family: Mapping[K, Question], margin: float = 0.05, alpha: float = 0.05) -> dict[K, Verdict]:
    """A verdict for each question of a family.

    margin: the share by which means may differ without mattering, such as 0.05: a ratio from 1 / (1 + margin) to
    1 + margin. Holm's correction counts every member that could be tested. Raises ValueError where margin, alpha, the
    looks or the rounds are out of range.
    """
    if not (margin >= 0 and 0 < alpha < 1):
        raise ValueError(f"margin {margin} must be 0 or more, and alpha {alpha} between 0 and 1")
    sides = {key: pairs_of(question.a, question.b, question.rounds) for key, question in family.items()}
    effects = {key: effect_of(side.a, side.b, paired=side.paired) for key, side in sides.items()}
    used = {key: level_used(effect.p, family[key].looks) for key, effect in effects.items() if effect}
    adjusted = holm(used)
    judge = _Judge(margin, alpha, max(1, len(adjusted)))
    results = {}
    for key, question in family.items():
        effect, side = effects[key], sides[key]
        if effect is None:
            results[key] = judge.untested(side, question)
        else:
            results[key] = judge.tested(effect, side, question, used[key], adjusted[key])
    return results


class _Judge:
    """The rules for one family."""

    def __init__(self, margin: float, alpha: float, size: int) -> None:
        self._margin, self._alpha, self._size = margin, alpha, size

    def tested(self, effect: Effect, side: RunPairs, question: Question, used: float, p_holm: float) -> Verdict:
        """Where the test is defined; `used` is p corrected for the looks, `p_holm` for the family too."""
        level = nominal_level(self._alpha, question.looks)
        interval = _possible(percent_interval(effect, level), effect)
        ratio_ci = ratio_interval(effect, level)
        outcome = self._outcome(effect, p_holm, interval, ratio_ci, question.better)
        # what Holm asks of the smallest p: no advice may ask for less
        strict = nominal_level(self._alpha / self._size, question.looks)
        more = self._more(effect, question.looks) if outcome == "inconclusive" else None
        verdict = Verdict(
            outcome=outcome,
            n_a=effect.n_a,
            n_b=effect.n_b,
            mean_a=effect.mean_a,
            mean_b=effect.mean_b,
            difference_percent=_percent(effect.mean_a, effect.mean_b),
            ci_percent=interval,
            p=effect.p,
            p_holm=p_holm,
            g=None,
            g_ci=None,
            smallest_effect_percent=smallest_effect_percent(effect, strict),
            runs_more=more,
            reason="",
            ratio=_ratio(effect.mean_a, effect.mean_b),
            ratio_ci=ratio_ci,
            paired=effect.paired,
            rounds=effect.n_a if effect.paired else None,
            confidence=1 - level,
            smallest_ratio=smallest_ratio(effect, strict),
            minutes_more=more * question.round_s / 60 if more and question.round_s is not None else None,
        )
        g, g_ci = hedges(side.a, side.b, self._alpha)
        return replace(verdict, g=g, g_ci=g_ci, reason=self._reason(verdict, side, question, used < self._alpha))

    def _outcome(
        self,
        effect: Effect,
        p_holm: float,
        interval: tuple[float, float] | None,
        ratio_ci: tuple[float, float] | None,
        better: Better,
    ) -> Outcome:
        if ratio_ci:
            # both ways alike: b may be 5 % over a, or a 5 % over b
            equivalent = ratio_ci[0] * (1 + self._margin) >= 1 and ratio_ci[1] <= 1 + self._margin
        else:
            width = 100 * self._margin
            equivalent = interval is not None and -width <= interval[0] and interval[1] <= width
        if equivalent:
            return "equivalent"
        if p_holm >= self._alpha:
            return "inconclusive"
        return "A" if (effect.estimate > 0) == (better == "lower") else "B"

    def _more(self, effect: Effect, looks: Sequence[float]) -> int | None:
        """Runs more: as if the next look were the last, at the end of the study."""
        last = (*looks, 1.0) if looks and looks[-1] < 1 else looks
        levels = (nominal_level(alpha, last) for alpha in (self._alpha / self._size, self._alpha))
        return runs_more(effect, self._margin, *levels)

    def _reason(self, verdict: Verdict, side: RunPairs, question: Question, only_holm: bool) -> str:
        ends = None if verdict.too_wide else verdict.ci_percent
        shown = f"{signed(ends[0])} to {signed(ends[1])}" if ends else None
        used = reasons.rounds_used(len(side.a), side.rounds_seen)
        if verdict.outcome == "equivalent" and shown:
            return reasons.equivalent(question.names, shown, self._margin, used)
        if verdict.outcome == "inconclusive":
            advice = reasons.advice(verdict.runs_more, verdict.minutes_more, side.paired, only_holm)
            return reasons.inconclusive(question.names, shown, advice, used)
        return reasons.winner(question.names, verdict.outcome == "B", shown, verdict.p_holm or 0.0, used)

    def untested(self, side: RunPairs, question: Question) -> Verdict:
        """Where there are too few runs, or no scatter."""
        outcome: Outcome = "inconclusive"
        a, b = side.a, side.b
        if len(a) < 2 or len(b) < 2:
            reason = reasons.too_few(question.names, len(a), len(b))
        elif side.paired and all(map(constant, zip(a, b, strict=True))):
            outcome, reason = "equivalent", "Equivalent: in every round both gave the same number."
        elif not side.paired and constant([*a, *b]):
            outcome, reason = "equivalent", "Equivalent: every run of both gave the same number."
        elif None in (finite_mean(a), finite_mean(b)) or not (side.paired or (constant(a) and constant(b))):
            reason = "Inconclusive: the numbers are too large to be judged."
        else:
            reason = reasons.no_scatter(side.paired)
        return _untested(outcome, side, 1 - nominal_level(self._alpha, question.looks), reason)


def _untested(outcome: Outcome, side: RunPairs, confidence: float, reason: str) -> Verdict:
    mean_a, mean_b = finite_mean(side.a), finite_mean(side.b)
    return Verdict(
        outcome=outcome,
        n_a=len(side.a),
        n_b=len(side.b),
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
        ratio=_ratio(mean_a, mean_b),
        paired=side.paired,
        rounds=len(side.a) if side.paired else None,
        confidence=confidence,
    )


def _wide(ratio_ci: tuple[float, float] | None) -> bool:
    return ratio_ci is not None and ratio_ci[1] > WIDE * ratio_ci[0]


def _possible(interval: tuple[float, float] | None, effect: Effect) -> tuple[float, float] | None:
    """The interval without what cannot be: what is never under 0 is never over 100 % less."""
    if interval is None or effect.mean_b < 0:
        return interval
    return max(interval[0], -100.0), interval[1]


def _ratio(mean_a: float | None, mean_b: float | None) -> float | None:
    """mean_b / mean_a, where a's is over 0."""
    if mean_a is None or mean_b is None or mean_a <= 0:
        return None
    ratio = mean_b / mean_a
    return ratio if math.isfinite(ratio) else None


def _percent(mean_a: float | None, mean_b: float | None) -> float | None:
    """The difference in percent of mean_a."""
    ratio = _ratio(mean_a, mean_b)
    percent = math.inf if ratio is None else 100 * (ratio - 1)
    return percent if math.isfinite(percent) else None


def signed(percent: float) -> str:
    """'+12 %', '-3.4 %', '+0.21 %': the sign always, and a true minus."""
    size = abs(percent)
    decimals = 0 if size >= 100 else 1 if size >= 1 else 2
    return f"{percent:+,.{decimals}f} %".replace("-", "\u2212")
