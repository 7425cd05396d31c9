"""Does the fitted law give back what a fleet was programmed with, and do the intervals hold what they promise?

    .venv/bin/python benchmarks/calibration/scaling.py --studies 500

Each study runs a simulated fleet at 1, 2, 4 and 8 replicas, five times each. With n replicas every one of them serves
at X(n) / n of the programmed law, with gamma service times. `saturated` counts what a closed loop gets out of a fleet
that is never idle. `capacity` searches the largest rate with p99 under an objective, as a study does (Poisson arrivals,
the first idle replica takes the next request); it is not expected to give the law back, because a queue with more
servers comes closer to saturation before its p99 rises.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from servestorm.methods.capacity_search import Probe, Search  # noqa: E402
from servestorm.methods.percentiles import percentile  # noqa: E402
from servestorm.methods.scaling_law import fit_usl, steps  # noqa: E402

COUNTS = (1, 2, 4, 8)
REPETITIONS = 5
RATE_OF_ONE = 200.0
SECONDS = 20.0
CV = 0.5
FLEETS = ((0.0, 0.0), (0.02, 0.0), (0.1, 0.002), (0.3, 0.01))


def law(n: int, sigma: float, kappa: float) -> float:
    return RATE_OF_ONE * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))


def service_s(n: int, sigma: float, kappa: float, size: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Gamma service times with the programmed mean, n / X(n)."""
    shape = 1 / CV**2
    return random.gamma(shape, n / law(n, sigma, kappa) / shape, size)


def saturated(n: int, sigma: float, kappa: float, random: np.random.Generator) -> float:
    """Requests/s of n replicas that are never idle."""
    enough = int(1.5 * SECONDS * law(n, sigma, kappa) / n) + 100
    ended_s = np.cumsum(service_s(n, sigma, kappa, (n, enough), random), axis=1)
    return float((ended_s <= SECONDS).sum() / SECONDS)


def capacity(n: int, sigma: float, kappa: float, random: np.random.Generator, objective_ms: float) -> float | None:
    """The rate that the product's search finds."""
    search = Search(law(n, sigma, kappa) * random.uniform(0.4, 1.6))
    while (rate := search.next_rate()) is not None:
        p99_ms = _p99_ms(n, rate, service_s(n, sigma, kappa, (int(rate * SECONDS) + 700,), random), random)
        search.record(Probe(rate, "pass" if p99_ms <= objective_ms else "fail", "", p99_ms, 0.0))
    return search.result().rate_per_s


def _p99_ms(n: int, rate: float, services_s: np.ndarray, random: np.random.Generator) -> float:
    arrivals_s = np.cumsum(random.exponential(1 / rate, services_s.size)).tolist()
    free_s, latency_s = [0.0] * n, []
    for arrival_s, needs_s in zip(arrivals_s, services_s.tolist(), strict=True):
        ended_s = max(arrival_s, free_s[0]) + needs_s
        heapq.heapreplace(free_s, ended_s)
        latency_s.append(ended_s - arrival_s)
    found = percentile(latency_s, 0.99)
    assert found is not None
    return 1000 * found


def study(
    sigma: float, kappa: float, random: np.random.Generator, objective_ms: float | None = None
) -> tuple[list[float], list[float | None]]:
    """Counts and throughputs of one study's runs; saturated without an objective."""
    pairs: list[tuple[float, float | None]] = []
    for n in COUNTS * REPETITIONS:
        if objective_ms is None:
            pairs.append((n, saturated(n, sigma, kappa, random)))
        else:
            pairs.append((n, capacity(n, sigma, kappa, random, objective_ms)))
    return [n for n, _ in pairs], [x for _, x in pairs]


def row(sigma: float, kappa: float, studies: int, objective_ms: float | None) -> str:
    sigmas, kappas, held, asked = [], [], 0, 0
    for seed in range(studies):
        runs = study(sigma, kappa, np.random.default_rng([seed, 3]), objective_ms)
        fitted = fit_usl(*runs)
        assert fitted is not None
        sigmas.append(fitted.sigma)
        kappas.append(fitted.kappa)
        for step in steps(*runs)[1:]:
            true = law(int(step.replicas), sigma, kappa) / RATE_OF_ONE
            if step.speedup_ci:
                asked += 1
                held += step.speedup_ci[0] <= true <= step.speedup_ci[1]
    what = "saturated" if objective_ms is None else f"capacity, p99 {objective_ms:g} ms"
    return (
        f"| {what} | {_figures(sigma, sigmas)} | {_figures(kappa, kappas)} | {100 * held / asked:.1f} % | {studies} |"
    )


def _figures(true: float, found: list[float]) -> str:
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{true:g} | {np.mean(found):.4f} | {low:.4f} to {high:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500, help="saturated studies of each fleet")
    parser.add_argument("--searches", type=int, default=5, help="studies of each fleet by capacity search (slow)")
    parser.add_argument("--objective-ms", type=float, default=100.0)
    options = parser.parse_args()
    heads = "what,sigma,found,95 % of studies,kappa,found,95 % of studies,speed-up inside its interval,studies"
    print("| " + heads.replace(",", " | ") + " |")
    print("| --- " * 9 + "|")
    for sigma, kappa in FLEETS:
        print(row(sigma, kappa, options.studies, None), flush=True)
    for sigma, kappa in FLEETS if options.searches else ():
        print(row(sigma, kappa, options.searches, options.objective_ms), flush=True)


if __name__ == "__main__":
    main()
