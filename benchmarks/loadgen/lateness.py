"""How late the generator sends, of two trees of this project in turns, and what a request costs it.

    git worktree add build/before COMMIT
    python benchmarks/loadgen/lateness.py --before build/before --rounds 5 [--rates 70 1000] [--record FILE.npz]

Each run is `locust -f loadtests/steady.py` at a constant rate, on a core of its own, against a server on the other core
that answers after 2 ms. The lag is the time of the send minus the scheduled time. A run of each tree makes a round, so
that a bad moment of the machine hits neighbours alike; rounds in which other programs used over --calm of the machine
are left out. The table has the median over rounds and, in brackets, the least and the most. --record keeps every lag at
the first rate for the simulation in benchmarks/calibration/lag.py.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
    parser.add_argument("--calm", type=float, default=0.03, help="most that others may use (default: 0.03)")
    options = parser.parse_args()
    trees = {"before": options.before.resolve(), "after": tools.ROOT}
    rounds: dict[float, list[dict[str, Run]]] = {rate: [] for rate in options.rates}
    for number in range(options.rounds):
        for rate, calm in rounds.items():
            runs = {name: one_run(tree, rate, options.seconds) for name, tree in trees.items()}
            others = max(run.others for run in runs.values())
            print(f"round {number + 1}, {rate:g}/s: others used {100 * others:.1f} %", file=sys.stderr, flush=True)
            if others <= options.calm:
                calm.append(runs)
    print_table(rounds)
    if options.record and (calm := rounds[options.rates[0]]):
        shortest = min(len(run.lag_ns) for runs in calm for run in runs.values())
        kept = {f"{name}_ns": np.array([runs[name].lag_ns[:shortest] for runs in calm], np.int32) for name in trees}
        np.savez_compressed(options.record, **kept)


@dataclass(frozen=True)
class Run:
    """One run of one tree."""

    lag_ns: np.ndarray
    cpu_us: float
    """CPU microseconds a request, of the generator's whole process."""
    others: float
    """Share of all cores that other programs and the hypervisor used meanwhile."""


def one_run(tree: Path, rate: float, seconds: float) -> Run:
    """A load of `seconds` at a constant rate."""
    begin_s, before_s = time.monotonic(), others_s()
    with tempfile.TemporaryDirectory() as folder, known("--fixed-ms", "2") as (port, _):
        out = Path(folder) / "out"
        asked = ("--rate", f"{rate:g}", "--arrivals", "constant", "--warmup", "1")
        outcome = tools.servestorm(port, seconds, *asked, keep=out, tree=tree)
        columns = pq.read_table(out / "samples.parquet", columns=["scheduled_ns", "sent_ns"])
    others = (others_s() - before_s) / (time.monotonic() - begin_s) / (os.cpu_count() or 1)
    scheduled, sent = (columns[name].to_numpy() for name in ("scheduled_ns", "sent_ns"))
    return Run((sent - scheduled)[sent >= 0], outcome.cpu_us(), others)


def others_s() -> float:
    """CPU seconds of all that is not this program and its ended children, since the machine's start."""
    whole = Path("/proc/stat").read_text().splitlines()[0]
    user, nice, system, _, _, *rest = (int(ticks) for ticks in whole.split()[1:9])
    busy_s = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return busy_s - sum(use.ru_utime + use.ru_stime for use in uses)


def print_table(rounds: dict[float, list[dict[str, Run]]]) -> None:
    heads = [f"lag {name}, us" for name in QUANTILES]
    print(f"| requests/s | tree | rounds | {' | '.join(heads)} | CPU a request, us |\n|{' --- |' * (len(heads) + 4)}")
    for rate, calm in rounds.items():
        for tree in calm[0] if calm else ():
            runs = [one[tree] for one in calm]
            columns = [[float(np.quantile(run.lag_ns, q)) / 1e3 for run in runs] for q in QUANTILES.values()]
            cells = " | ".join(spread(column) for column in [*columns, [run.cpu_us for run in runs]])
            print(f"| {rate:g} | {tree} | {len(runs)} | {cells} |")


def spread(values: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
