"""How late the generator sends, of two trees of this project in turns, and what a request costs it.

    git worktree add build/before COMMIT
    python benchmarks/loadgen/lateness.py --before build/before --rounds 5 [--rates 70 1000] [--record FILE.npz]

Each run is `locust -f loadtests/steady.py` at a constant rate, on a core of its own, against a server on the other core
that answers after 2 ms. The lag is the time of the send minus the scheduled time. A run of each tree makes a round, so
that a bad moment of the machine hits neighbours alike; the table has the median over rounds and, in brackets, the least
and the most. --record keeps every lag at the first rate for the simulation in benchmarks/calibration/lag.py.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tools
from run import known

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="another tree of this project")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each run (default: 10)")
    parser.add_argument("--rates", type=float, nargs="+", default=[70, 1000], help="requests/s (default: 70 1000)")
    parser.add_argument("--record", type=Path, help="write the lags at the first rate, in ns, as NPZ")
    options = parser.parse_args()
    trees = {"before": options.before.resolve(), "after": tools.ROOT}
    lags: dict[tuple[float, str], list[np.ndarray]] = {}
    cpu_us: dict[tuple[float, str], list[float]] = {}
    for _ in range(options.rounds):
        for rate in options.rates:
            for name, tree in trees.items():
                lag_ns, cost_us = one_run(tree, rate, options.seconds)
                lags.setdefault((rate, name), []).append(lag_ns)
                cpu_us.setdefault((rate, name), []).append(cost_us)
    print_table(lags, cpu_us)
    if options.record:
        shortest = min(len(one) for name in trees for one in lags[options.rates[0], name])
        kept = {f"{name}_ns": np.array([one[:shortest] for one in lags[options.rates[0], name]]) for name in trees}
        np.savez_compressed(options.record, **{name: rows.astype(np.int32) for name, rows in kept.items()})


def one_run(tree: Path, rate: float, seconds: float) -> tuple[np.ndarray, float]:
    """Lag of each request (ns), and CPU microseconds a request, of the generator's whole process."""
    with tempfile.TemporaryDirectory() as folder, known("--fixed-ms", "2") as (port, _):
        out = Path(folder) / "out"
        asked = ("--rate", f"{rate:g}", "--arrivals", "constant", "--warmup", "1")
        outcome = tools.servestorm(port, seconds, *asked, keep=out, tree=tree)
        columns = pq.read_table(out / "samples.parquet", columns=["scheduled_ns", "sent_ns"])
    scheduled, sent = (columns[name].to_numpy() for name in ("scheduled_ns", "sent_ns"))
    return (sent - scheduled)[sent >= 0], outcome.cpu_us()


def print_table(lags: dict[tuple[float, str], list[np.ndarray]], cpu_us: dict[tuple[float, str], list[float]]) -> None:
    heads = [f"lag {name}, us" for name in QUANTILES]
    print(f"| requests/s | tree | {' | '.join(heads)} | CPU a request, us |\n|{' --- |' * (len(heads) + 3)}")
    for (rate, tree), runs in lags.items():
        columns = [[float(np.quantile(run, q)) / 1e3 for run in runs] for q in QUANTILES.values()]
        cells = " | ".join(spread(column) for column in [*columns, cpu_us[rate, tree]])
        print(f"| {rate:g} | {tree} | {cells} |")


def spread(values: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
