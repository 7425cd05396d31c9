"""The verdict on one load of a capacity search: it passes, it fails, or it gives no answer."""

from __future__ import annotations

from loadtests.samples.validity import GENERATOR, MAX_RATE_DEVIATION, MOST_MOVED, samples_needed
from servestorm.methods.capacity_search import LoadOutcome, Outcome, Probe, SearchObjective


def judge(load: LoadOutcome, objective: SearchObjective) -> tuple[Outcome, str]:
    """The verdict on a load, and its reason.

    p99 is of right answers, a whole request, from the scheduled time. Where a promise is asked, what p99 does not
    exceed with 99 % confidence must be within the objective too. A load that was given up fails. An INVALID load whose
    fault is the server's (dropped arrivals, wrong answers, failures) fails; one whose fault is the generator's, or of
    which it moved p99 too far, is `invalid`, unless the server was too slow even with all of the generator's lag taken
    off. One that is DISTURBED is `disturbed` whatever its answers were: to believe what passed and not what failed
    would favour one answer.
    """
    if load.disturbed:
        return "disturbed", load.disturbed
    if failed := _failure(load, objective):
        return "fail", failed
    if not load.valid:
        return "invalid", "; ".join(load.reasons)
    return _latency_verdict(load, objective)


def _latency_verdict(load: LoadOutcome, objective: SearchObjective) -> tuple[Outcome, str]:
    """The verdict on a load that is VALID and without too many failures."""
    limit_ms = objective.p99_ms
    if load.p99_ms is None:
        return _without_p99(load)
    if load.p99_ms > limit_ms:
        return "fail", _over(load.p99_ms, limit_ms)
    if not objective.promise:
        return "pass", f"p99 {load.p99_ms:.4g} ms is within the objective of {limit_ms:g} ms"
    if load.p99_claim_ms is None:
        return "fail", f"too few of {load.ok} answers are independent to promise a p99: let each probe last longer"
    claim = f"p99 is at most {load.p99_claim_ms:.4g} ms with 99 % confidence"
    if load.p99_claim_ms > limit_ms:
        return "fail", f"{claim}, over the objective of {limit_ms:g} ms, and {load.p99_ms:.4g} ms in the sample"
    return "pass", f"{claim}, within the objective of {limit_ms:g} ms"


def _without_p99(load: LoadOutcome) -> tuple[Outcome, str]:
    need = samples_needed(0.99)
    if load.ok >= need:
        return "invalid", f"{GENERATOR} sent late: its lag moved the p99 by more than {MOST_MOVED['p99']:.0%}"
    return "fail", f"only {load.ok} right answers came, and a p99 needs {need}: let each probe last longer"


def probe_of(rate_per_s: float, load: LoadOutcome, objective: SearchObjective) -> Probe:
    """A load at that rate, judged."""
    verdict, reason = judge(load, objective)
    return Probe(
        rate_per_s,
        verdict,
        reason,
        None if load.given_up else load.p99_ms,
        error_percent(load),
        p99_claim_ms=load.p99_claim_ms,
        given_up=load.given_up,
    )


def error_percent(load: LoadOutcome) -> float | None:
    """Requests without a right answer, dropped arrivals too, of all scheduled; None where none was scheduled.

    What a lost worker of the generator took with it is not the server's and counts on neither side.
    """
    asked = load.scheduled - load.lost
    return 100 * (asked - load.ok) / asked if asked > 0 else None


def _failure(load: LoadOutcome, objective: SearchObjective) -> str | None:
    """What the server did wrong, whatever the generator did."""
    # over this share of failures a load is INVALID, whatever the objective allows
    percent, most = error_percent(load), min(objective.max_error_percent, 100 * MAX_RATE_DEVIATION)
    if load.given_up:
        return _given_up(load, objective)
    if not load.ok:
        return "no right answer came"
    if percent is not None and percent > most:
        return f"{percent:.3g} % of the requests got no right answer, over {most:g} %"
    return None if load.valid and load.p99_ms is not None else _failure_of_invalid(load, objective)


def _failure_of_invalid(load: LoadOutcome, objective: SearchObjective) -> str | None:
    """What the server did wrong in a load of which the generator's part is in doubt."""
    if not load.valid and (load.dropped or load.wrong_answers):
        return f"{load.dropped} arrivals were dropped and {load.wrong_answers} answers were wrong"
    service_ms, lag_ms = load.service_p99_ms, load.lag_p99_ms
    # late sends come in bunches, and a bunch of that length costs the server no more than its length
    if service_ms is not None and lag_ms is not None and service_ms - lag_ms > objective.p99_ms:
        return _over(service_ms, objective.p99_ms) + " even without the generator's lag"
    return None


def _given_up(load: LoadOutcome, objective: SearchObjective) -> str | None:
    """A load is only given up that is late by several times the objective, which a smaller lag cannot have caused."""
    if load.lag_p99_ms is not None and load.lag_p99_ms > objective.p99_ms:
        return None
    return "it was given up, because so many requests were in flight that it could not pass any more"


def _over(p99_ms: float, limit_ms: float) -> str:
    return f"p99 {p99_ms:.4g} ms is over the objective of {limit_ms:g} ms"
