"""How often what is claimed of a p99 holds: LoadGen's rule and ours, on queues whose p99 is known in closed form.

    .venv/bin/python benchmarks/calibration/claims.py

Each row simulates loads of an M/D/1 queue. "false" is the share of all loads that claim less than the true p99; it
should be 1 % at most. A load without a claim claims nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from servestorm.methods.percentile_claim import percentile_claim  # noqa: E402
from tests.simulations import md1  # noqa: E402

SERVICE_MS = 8.0
UTILISATIONS = (0.1, 0.3, 0.5, 0.7, 0.8)
LENGTHS_S = (20, 60)


def claims(utilisation: float, seconds: int, loads: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """LoadGen's claim and ours of each load, ms; NaN where there is none."""
    random, rate = np.random.default_rng(seed), 1000 * utilisation / SERVICE_MS
    found = np.full((2, loads), np.nan)
    for load in range(loads):
        arrivals_s = np.cumsum(random.exponential(1 / rate, int(1.5 * rate * seconds)))
        arrivals_s = arrivals_s[arrivals_s < seconds]
        latency_ms = md1.simulated_ms(arrivals_s, SERVICE_MS)
        for place, slices in enumerate((None, arrivals_s.astype(np.int64))):
            claim = percentile_claim(latency_ms, 0.99, slices)
            found[place, load] = np.nan if claim is None else claim
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=1000, help="simulated loads of each row")
    options = parser.parse_args()
    print("| utilisation | load | LoadGen's: false | ours: false | none | over the true p99, median |")
    print("|" + " --- |" * 6)
    for utilisation in UTILISATIONS:
        true = md1.quantile_ms(1000 * utilisation / SERVICE_MS, SERVICE_MS)
        for seconds in LENGTHS_S:
            plain, own = claims(utilisation, seconds, options.loads, seed=seconds)
            false = " | ".join(f"{100 * np.mean(made < true):.1f} %" for made in (plain, own))  # NaN is not under it
            missing = np.isnan(own).mean()
            over = "" if missing == 1 else f"{np.nanmedian(own) / true:.2f}"
            print(f"| {utilisation:g} | {seconds} s | {false} | {100 * missing:.0f} % | {over} |", flush=True)


if __name__ == "__main__":
    main()
