"""Which estimate finds the smallest difference between two p99, in paired rounds on recorded noise?

    python benchmarks/calibration/tails.py [--studies 1000] [--rounds 7] [--seed 1] [--out FILE.json]

The studies are those of the design in turns with 5 s of warm-up (benchmarks/calibration/designs.py): 7 rounds of 8
slices of each engine take 334 s. "False" is the share of studies without a difference with p < 0.05; an estimate is
valid from 3 to 7 %. "Smallest" is the log-ratio found in 80 of 100 studies.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.simulations import tail_estimators as tails
from tests.simulations.designs import ALPHA, POWER, smallest_log_ratio, warmed
from tests.simulations.recorded_noise import read_recording

SLICES, WARM_SLICES = 8, 2
SHIFTS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3, 0.5)
PER_ROUND = {
    "p99 of a round, nearest rank (the product)": tails.nearest,
    "Harrell-Davis p99 of a round": tails.harrell_davis,
    "mean of the longest 2 % of a round": tails.tail_mean,
    "p99 of an exponential tail from p95": tails.exponential_tail,
    "p99 of a generalised Pareto tail from p90": tails.pareto_tail,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies (default: 1000)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of a study (default: 7)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    options = parser.parse_args()
    print("| estimate | false | valid | smallest log-ratio |\n| --- | --- | --- | --- |")
    rows = []
    for name, false, smallest in judged(options):
        rows.append({"estimate": name, "false": false, "smallest": smallest})
        valid = "yes" if 0.03 <= false <= 0.07 else "no"
        print(f"| {name} | {100 * false:.1f} % | {valid} | {smallest:.3f} |", flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"options": vars(options), "rows": rows}, default=str, indent=1))


def judged(options: argparse.Namespace) -> Iterator[tuple[str, float, float]]:
    """Name, share of false verdicts and smallest log-ratio of each estimate."""
    rng = np.random.default_rng(options.seed)
    latency_ms = tails.latencies(warmed(read_recording(), WARM_SLICES), SLICES)
    many = tails.studies(latency_ms, 4 * options.studies, options.rounds, rng)
    estimates = {name: tails.rounds_paired(many.logs(estimate)) for name, estimate in PER_ROUND.items()}
    few = tails.studies(latency_ms, options.studies, options.rounds, rng)
    estimates["p99 of all rounds together, jackknife"] = tails.pooled_jackknife(few)
    estimates["p99 of all rounds together, bootstrap"] = tails.pooled_bootstrap(few, rng)
    for name, one in estimates.items():
        yield name, float((one.p() < ALPHA).mean()), smallest_log_ratio(one.p)
    for quantile in (0.99, 0.95):
        shares = [float((tails.exceedance_p(few, quantile, shift) < ALPHA).mean()) for shift in SHIFTS]
        smallest = float(np.interp(POWER, shares, SHIFTS)) if max(shares) >= POWER else float("inf")
        yield f"share of requests above the p{100 * quantile:.0f} of both", shares[0], smallest


if __name__ == "__main__":
    main()
