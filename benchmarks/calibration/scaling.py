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
import sys
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from servestorm.methods.scaling_law import fit_usl, steps  # noqa: E402
from tests.simulations.scaling import RATE_OF_ONE, law, study  # noqa: E402

FLEETS = ((0.0, 0.0), (0.02, 0.0), (0.1, 0.002), (0.3, 0.01))


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
