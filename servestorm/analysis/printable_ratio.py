"""The ratio of a verdict, where it says something: what the report prints in place of a difference in percent."""

from __future__ import annotations

from dataclasses import dataclass

from servestorm.methods.verdict import Verdict


@dataclass(frozen=True)
class Ratio:
    """One side's figure by the other's."""

    value: float
    interval: tuple[float, float] | None
    """At the verdict's confidence."""

    @property
    def inverse(self) -> Ratio:
        """The other side's figure by the one's."""
        return Ratio(1 / self.value, self.interval and (1 / self.interval[1], 1 / self.interval[0]))

    @property
    def spans_one(self) -> bool:
        """Whether both figures may be equal."""
        return self.interval is None or self.interval[0] <= 1 <= self.interval[1]

    def of(self, b: bool) -> Ratio:
        """b's figure by a's if `b`, else a's by b's."""
        return self if b else self.inverse


def says_nothing(verdict: Verdict) -> bool:
    """Whether the verdict is inconclusive because the runs scatter too much for any statement of the ratio."""
    return verdict.too_wide and verdict.p is not None and verdict.difference_percent is not None


def printable_ratio(verdict: Verdict) -> Ratio | None:
    """b's figure by a's; None where there is none or `says_nothing`."""
    percent = verdict.difference_percent
    if percent is None or percent <= -100 or says_nothing(verdict):
        return None
    return Ratio(1 + percent / 100, _interval(verdict))


def _interval(verdict: Verdict) -> tuple[float, float] | None:
    """The interval of the ratio; of a figure that can be 0 by its percentages, where they are of a ratio over 0."""
    if verdict.ratio_ci is not None or verdict.ci_percent is None:
        return verdict.ratio_ci
    low, high = verdict.ci_percent
    return (1 + low / 100, 1 + high / 100) if low > -100 else None
