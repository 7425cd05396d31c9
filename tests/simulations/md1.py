"""The M/D/1 queue, which a capacity is held against: Poisson arrivals, one server that takes as long for each."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
from scipy.optimize import brentq


def answered_within(rate_per_s: float, service_ms: float, t_ms: float) -> float:
    """P(waiting + service <= t), exact.

    Erlang's formula for the waiting time: P(W <= t) = (1 - rho) sum over k = 0..floor(t / D) of
    (lambda (k D - t))^k / k! e^(-lambda (k D - t)) (Crommelin, Delay probability formulae when the holding times are
    constant, 1932; Franx, A simple solution for the M/D/c waiting time distribution, 2001). Its terms cancel, hence the
    80 digits.
    """
    wait_ms = t_ms - service_ms
    if wait_ms < 0:
        return 0.0
    with localcontext() as context:
        context.prec = 80
        rate_per_ms, service, wait = Decimal(rate_per_s) / 1000, Decimal(service_ms), Decimal(wait_ms)
        total = Decimal(0)
        for k in range(int(wait / service) + 1):
            x = rate_per_ms * (k * service - wait)
            total += (x**k if k else Decimal(1)) / math.factorial(k) * (-x).exp()
        return float((1 - rate_per_ms * service) * total)


def quantile_ms(rate_per_s: float, service_ms: float, q: float = 0.99) -> float:
    """The time within which a share `q` is answered, to a millionth of a service time."""
    most_ms = 2 * service_ms
    while answered_within(rate_per_s, service_ms, most_ms) < q:
        most_ms *= 2
    within = lambda t_ms: answered_within(rate_per_s, service_ms, t_ms) - q  # noqa: E731
    return float(brentq(within, service_ms, most_ms, xtol=1e-6 * service_ms))


def capacity_per_s(service_ms: float, objective_ms: float, q: float = 0.99) -> float:
    """The rate at which exactly a share `q` is answered within the objective (over 1 service time, up to 60)."""
    missed = lambda rate: answered_within(rate, service_ms, objective_ms) - q  # noqa: E731
    return float(brentq(missed, 1e-6 / service_ms, 999.999 / service_ms))


def simulated_ms(arrivals_s: np.ndarray, service_ms: float) -> np.ndarray:
    """Milliseconds until each arrival is answered: Lindley's recursion, unrolled into a running maximum."""
    number = np.arange(arrivals_s.size)
    slack_ms = arrivals_s * 1000 - number * service_ms
    done_ms = np.maximum.accumulate(slack_ms) + (number + 1) * service_ms
    return done_ms - arrivals_s * 1000
