"""Capacity: the largest rate that keeps the objective, found by probes that the caller makes. No clock, no files.

A `Search` says which rate to offer next and is told how it went; servestorm.methods.probe_verdict judges each load.

1. Bracket: from the start rate double while probes pass and halve while they fail, until one rate passed and a larger
   one failed.
2. Bisect: offer the geometric mean of the two until they are no farther apart than the tolerance.
3. Look twice where it matters: a failure from beneath which three probes in a row passed is repeated once, because one
   slow moment of the machine would else cap the capacity for good.
4. Confirm: the largest rate that passed is offered again. Where it fails this time, the search steps down by the
   tolerance, then by twice, thrice as much, until a rate has passed twice. The last three probes are kept for that,
   and where confirmations go on failing the last two for a rate three tolerances lower, so that something is promised.

What a rate is worth is what its last probe said, so a pass above a failure cannot make the search go round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

Outcome = Literal["pass", "fail", "invalid", "disturbed"]
Standing = Literal["pass", "fail", "barred", "open"]
"""What is known of a rate: `barred` gave no answer twice, `open` gave none once and waits for its second try."""
NO_ANSWER: Final[tuple[Outcome, ...]] = ("invalid", "disturbed")
"""Outcomes that say nothing about the server: the generator was at fault, or other programs disturbed the load."""

_DOUBLE: Final = 2.0
_SMALL_CLIMB: Final = 2**0.25
_MOST_HALVINGS: Final = 6
_LOOK_TWICE_AFTER: Final = 3
_KEPT_FOR_CONFIRMING: Final = 3
_SAFE_STEPS: Final = 3
_ROUNDING: Final = 1e-3
"""Rates have four digits, so two of them may be farther apart than the tolerance by this share."""


@dataclass(frozen=True)
class SearchObjective:
    """What a load must keep to pass."""

    p99_ms: float
    max_error_percent: float
    promise: bool = False
    """Whether p99 must be within its limit with 99 % confidence, not in the sample alone."""


@dataclass(frozen=True)
class LoadOutcome:
    """What a search needs to know of one load; percentiles in milliseconds are None where samples are too few."""

    valid: bool
    reasons: Sequence[str]
    """Why it is INVALID."""
    scheduled: int
    ok: int
    """Right answers."""
    dropped: int
    """Arrivals that were not sent, because too many requests were under way."""
    wrong_answers: int
    lost: int
    """Requests that a lost worker of the generator took with it."""
    p99_ms: float | None
    """Of right answers, from the scheduled time; None too where the generator's lag moved it too far."""
    service_p99_ms: float | None
    """Of right answers, from the send."""
    lag_p99_ms: float | None
    """From the scheduled time to the send."""
    p99_claim_ms: float | None = None
    """What p99 does not exceed, with 99 % confidence (see servestorm.methods.percentile_claim)."""
    given_up: bool = False
    """It was ended early because so many requests were in flight that it could not pass any more."""
    disturbed: str | None = None
    """Why it is DISTURBED (see servestorm.methods.disturbance); None where it is not."""


@dataclass(frozen=True)
class Probe:
    """One load at one rate."""

    rate_per_s: float
    """Requests/s that were asked for."""
    verdict: Outcome
    reason: str
    """Why, in one sentence without a full stop."""
    p99_ms: float | None
    """None too where the probe was given up: it would have been larger at the end."""
    error_percent: float | None
    confirms: bool = False
    """It repeats a rate that had passed; `Search.record` sets it."""
    p99_claim_ms: float | None = None
    """What p99 does not exceed, with 99 % confidence; None where that was not asked, or the answers are too few."""
    given_up: bool = False
    """It was ended early, because it could not pass any more."""


@dataclass(frozen=True)
class Capacity:
    """What the probes came to; rates in requests/s."""

    rate_per_s: float | None
    """The largest rate that passed twice; None where none did."""
    low: float | None
    """The largest rate that passes under `high`, confirmed or not."""
    high: float | None
    """The smallest rate that fails, or that could not be offered undisturbed; None where every rate passed."""
    confirmed: bool
    probes: tuple[Probe, ...]
    reason: str
    """What was found and what limited it, for a reader."""


@dataclass(frozen=True)
class Bounds:
    """Where the capacity lies by the probes so far; rates in requests/s."""

    promised: float | None
    """The largest rate under `high` that passed twice; None where none did."""
    low: float | None
    """The largest rate that passes under `high`, confirmed or not."""
    high: float | None
    """The smallest rate that fails, or gave no answer twice; None where there is none."""


def standing(verdicts: Sequence[Outcome]) -> Standing:
    """What is known of a rate by the verdicts of its probes, in order: the last one decides."""
    if len(verdicts) > 1 and all(verdict in NO_ANSWER for verdict in verdicts[-2:]):
        return "barred"
    if not verdicts or verdicts[-1] in NO_ANSWER:
        return "open"
    return "pass" if verdicts[-1] == "pass" else "fail"


def bounds(verdicts: Mapping[float, Sequence[Outcome]]) -> Bounds:
    """The bounds that the verdicts of each rate's probes give."""
    high = min((rate for rate, seen in verdicts.items() if standing(seen) in ("fail", "barred")), default=None)
    passed = [r for r, seen in verdicts.items() if standing(seen) == "pass" and (high is None or r < high)]
    twice = [rate for rate in passed if verdicts[rate].count("pass") > 1]
    return Bounds(max(twice, default=None), max(passed, default=None), high)


class Search:
    """Asks for at most `most_probes` rates, repeats included; `tolerance` is the share between `low` and `high`.

    Gives up under `least_rate_per_s` (a 64th of the start by default): an objective that a nearly idle server misses
    is missed at any rate. Raises ValueError for a start, a bound or a tolerance that makes no sense.
    """

    def __init__(
        self,
        start_rate_per_s: float,
        *,
        most_probes: int = 12,
        tolerance: float = 0.03,
        most_rate_per_s: float = 1e6,
        least_rate_per_s: float | None = None,
    ) -> None:
        least = start_rate_per_s / _DOUBLE**_MOST_HALVINGS if least_rate_per_s is None else least_rate_per_s
        if not 0 < least <= start_rate_per_s <= most_rate_per_s < math.inf:
            raise ValueError(f"a search cannot start at {start_rate_per_s}/s between {least}/s and {most_rate_per_s}/s")
        if most_probes < 2 or not 0 < tolerance < 1:
            raise ValueError(f"a search needs 2 probes and a tolerance in 0..1, not {most_probes} and {tolerance}")
        self._start, self._least, self._most = _rounded(start_rate_per_s), least, most_rate_per_s
        self._most_probes, self._tolerance = most_probes, tolerance
        self._probes: list[Probe] = []
        self._verdicts: dict[float, list[Outcome]] = {}
        self._stepped = 0
        self._climb = _DOUBLE

    def next_rate(self) -> float | None:
        """The rate to offer now, requests/s; None where the search is finished. Asking twice changes nothing."""
        left = self._most_probes - len(self._probes)
        now = bounds(self._verdicts)
        low, high = now.low, now.high
        found = low is not None and self._confirmed(low) and self._closed(low, high)
        if left <= 0 or found or self._only_disturbed:
            return None
        if left <= 2 and high is not None and now.promised is None and self._fails_on(low, high):
            return self._safe(high)
        if left == 1 and low is not None:
            return None if self._confirmed(low) else low
        if waiting := [rate for rate in self._verdicts if self._standing(rate) == "open"]:
            return waiting[-1]
        if left <= _KEPT_FOR_CONFIRMING and not self._stepping and low is not None and not self._confirmed(low):
            return low
        return self._bracketing(low, high) if low is None or high is None else self._between(low, high)

    def record(self, probe: Probe) -> None:
        """Tell how the rate that `next_rate` gave went. Raises ValueError where the probe is of another rate."""
        rate = self.next_rate()
        if rate is None or not math.isclose(rate, probe.rate_per_s, rel_tol=1e-4):
            raise ValueError(f"the search asked for {rate}, not for {probe.rate_per_s}")
        verdicts = self._verdicts.setdefault(rate, [])
        confirms = self._standing(rate) == "pass" or (verdicts[-2:-1] == ["pass"] and verdicts[-1] in NO_ANSWER)
        self._stepped += probe.verdict == "fail" and (confirms or self._stepping)
        self._climb = self._next_climb(verdicts, probe.verdict)
        verdicts.append(probe.verdict)
        self._probes.append(replace(probe, rate_per_s=rate, confirms=confirms))

    def result(self) -> Capacity:
        """What is known by now; the reason says so where the search is not finished."""
        now = bounds(self._verdicts)
        reason = self._reason(now.low, now.high)
        return Capacity(now.promised, now.low, now.high, now.promised is not None, tuple(self._probes), reason)

    def _safe(self, high: float) -> float:
        """For the last two probes: a rate far enough under the failures to pass twice, once more where it passed."""
        far = (1 + self._tolerance) ** _SAFE_STEPS
        passed = [rate for rate in self._verdicts if self._standing(rate) == "pass" and rate <= high / far]
        return max([rate for rate in passed if rate >= high / far**2], default=_rounded(high / far))

    def _fails_on(self, low: float | None, high: float) -> bool:
        """Confirmations failed more than once, or nothing close has passed: the next one beneath is no safe bet."""
        near = high / (1 + self._tolerance) ** _SAFE_STEPS
        return self._stepping and (self._stepped > 1 or low is None or low < near)

    @property
    def _stepping(self) -> bool:
        """A confirmation failed: from now on downwards only, by one tolerance more at every failure."""
        return self._stepped > 0

    @property
    def _only_disturbed(self) -> bool:
        """Nothing but DISTURBED probes, twice or more: no rate is low enough for a machine that others use."""
        return len(self._probes) > 1 and all(probe.verdict == "disturbed" for probe in self._probes)

    def _bracketing(self, low: float | None, high: float | None) -> float | None:
        if low is None and high is None:
            return self._start
        if low is None and high is not None:
            return _rounded(max(high / _DOUBLE, self._least)) if high > self._least * (1 + _ROUNDING) else None
        assert low is not None
        if low >= self._most * (1 - _ROUNDING):
            return low
        return min(_rounded(low * self._climb), self._most)

    def _next_climb(self, before: list[Outcome], verdict: Outcome) -> float:
        """Doubling, but small steps that grow again from a rate on that failed at first: it may lie at the edge."""
        if verdict == "pass" and before == ["fail"]:
            return _SMALL_CLIMB
        return min(_DOUBLE, self._climb**2) if verdict == "pass" else self._climb

    def _between(self, low: float, high: float) -> float:
        if self._deserves_second_look(high):
            return high
        if self._closed(low, high):
            return low
        if self._stepping:
            return max(low, _rounded(high / (1 + self._tolerance * self._stepped)))
        return _rounded(math.sqrt(low * high))

    def _deserves_second_look(self, high: float) -> bool:
        """One failure, and nothing but passes since: was it the rate, or a bad moment?"""
        recent = [probe.verdict for probe in self._probes if probe.verdict not in NO_ANSWER][-_LOOK_TWICE_AFTER:]
        only_passes = recent == ["pass"] * _LOOK_TWICE_AFTER
        return only_passes and not self._stepping and self._verdicts[high] == ["fail"]

    def _standing(self, rate: float) -> Standing:
        return standing(self._verdicts.get(rate, []))

    def _confirmed(self, rate: float) -> bool:
        return self._standing(rate) == "pass" and self._verdicts[rate].count("pass") > 1

    def _closed(self, low: float, high: float | None) -> bool:
        """Nothing is left to look for between them."""
        if high is None:
            return low >= self._most * (1 - _ROUNDING)
        return high / low <= (1 + self._tolerance) * (1 + _ROUNDING)

    def _reason(self, low: float | None, high: float | None) -> str:
        if self.next_rate() is not None:
            return f"The search has not ended after {len(self._probes)} of {self._most_probes} probes."
        return f"{self._result_text(low, high)} {self._limit(low, high)}"

    def _result_text(self, low: float | None, high: float | None) -> str:
        count = len(self._probes)
        if (rate := bounds(self._verdicts).promised) is not None:
            return f"{rate:g} requests/s passed twice."
        # a rate that could not be offered again has passed all the same
        passed = [rate for rate, seen in self._verdicts.items() if "pass" in seen and "fail" not in seen]
        if once := max([*passed, low or 0]):
            return f"No rate passed twice within {count} probes; the largest that passed once is {once:g} requests/s."
        return f"None of {count} probes passed."

    def _limit(self, low: float | None, high: float | None) -> str:
        if high is None:
            if low is not None and self._closed(low, high):
                return "It is the most that may be asked for, so the true capacity may be larger."
            return "No rate failed, so the true capacity may be larger: start the search higher."
        last = next(probe for probe in reversed(self._probes) if probe.rate_per_s == high)
        if self._standing(high) == "barred":
            if last.verdict == "disturbed":
                return f"{high:g} requests/s was DISTURBED twice ({last.reason}): the true capacity may be larger."
            limit = "the generator, not the server, is the limit"
            return f"{high:g} requests/s could not be offered ({last.reason}): {limit}."
        return f"{high:g} requests/s failed: {last.reason}."


def _rounded(rate: float) -> float:
    """Four digits: what a person reads, and what the generator is given without loss."""
    return float(f"{rate:.4g}")
