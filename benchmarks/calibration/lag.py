"""How far is a percentile off that counts, though the generator sent late? A simulated queue with recorded lag knows.

    python benchmarks/calibration/lag.py [--runs 300] [--seed 1] [--out FILE.json]

A queue with one server gets the recorded service times. Its generator is late as it was recorded, several times as
late, or stops for 5 to 50 ms now and then. The rule of the product (loadtests/samples/slices.py) chooses the slices and
says whether a figure counts. Its error is what was measured over what would have been measured without any lag, on the
same slices: of the reading from the schedule, and of that from the send. Several thresholds (MOST_MOVED) are tried.

`recorded` is the lag as it was; `mild` is twice that, or up to one stop of 20 ms in 5 s; `hard` is all the rest. `now`
and `now, mild` are the same with the lag of the generator as it is now in place of the recorded one.

A second table asks the same of fast servers, under the lag of the generator before it made arrivals ready ahead of
their moment and after (recorded/lag.npz, by `python benchmarks/loadgen/lateness.py --record`): a small lag is a large
share of a short latency, and makes its figures INVALID.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.simulations.late_generator import (
    GOALS,
    KINDS,
    QUANTILES,
    Carried,
    Condition,
    LateRun,
    carried,
    conditions,
    fast_servers,
    late_run,
)
from tests.simulations.recorded_noise import Floats, read_recording

TRIED = (0.005, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="simulated runs of each condition (default: 300)")
    parser.add_argument("--slices", type=int, default=10, help="slices of 2 s in a run (default: 10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the tables as JSON")
    options = parser.parse_args()
    noise, rng = read_recording(), np.random.default_rng(options.seed)
    tables = {}
    for title, asked in (("rows", conditions()), ("fast_servers", fast_servers())):
        runs = {one: [late_run(noise, one, options.slices, rng) for _ in range(options.runs)] for one in asked}
        tables[title] = table(runs, KINDS if title == "rows" else [one.name for one in asked])
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"options": vars(options), **tables}, default=str, indent=1))


def table(runs: dict[Condition, list[LateRun]], kinds: Sequence[str]) -> list[dict]:
    """One printed row for each figure, kind (or name) of lag and threshold."""
    heads = "figure,lag,most moved,counted,slices left out,error from the schedule: median,95 of 100,99 of 100"
    print(f"\n| {heads.replace(',', ' | ')} | from the send: 95 of 100 | 99 of 100 | goal |\n|{' --- |' * 11}")
    rows = []
    for most_moved in TRIED:
        results = {one: carried(of_it, most_moved) for one, of_it in runs.items()}
        for name in QUANTILES:
            for kind in kinds:
                alike = [result[name] for one, result in results.items() if kind in (one.kind, one.name)]
                rows.append({"figure": name, "lag": kind, "most_moved": most_moved, **summary(alike)})
    rows.sort(key=lambda row: (row["figure"], kinds.index(row["lag"])))
    for row in rows:
        print(line(row), flush=True)
    return rows


def summary(results: list[Carried]) -> dict[str, float | list[float]]:
    left_out = [share for result in results for share in result.left_out]
    return {
        "counted": len(left_out) / sum(result.runs for result in results),
        "left_out": float(np.mean(left_out or [0.0])),
        "from_schedule": spread(np.concatenate([result.from_schedule for result in results])),
        "from_send": spread(np.concatenate([result.from_send for result in results])),
    }


def spread(errors: Floats) -> list[float]:
    """Median, 95 and 99 of 100, and the largest error; NaN where no figure counts."""
    return np.quantile(np.abs(errors), [0.5, 0.95, 0.99, 1]).tolist() if errors.size else [float("nan")] * 4


def line(row: dict) -> str:
    shares = (row["counted"], row["left_out"], *row["from_schedule"][:3], *row["from_send"][1:3])
    goal = GOALS[row["figure"]]
    reached = "reached" if row["from_schedule"][1] < goal else "missed"
    figures = " | ".join(f"{100 * share:.{0 if place < 2 else 2}f} %" for place, share in enumerate(shares))
    limits = f"{100 * row['most_moved']:g} % | {figures} | {100 * goal:g} %: {reached}"
    return f"| {row['figure']} | {row['lag']} | {limits} |"


if __name__ == "__main__":
    main()
