"""Does the default study answer its main questions? `make run` as often as asked, on a quiet machine.

    python benchmarks/calibration/quickstart.py [--runs 10]

Each run is `make run` in this working tree; its verdicts are read from results.json. Every run is a line of the raw
table (--raw), with the share of the machine that others took meanwhile, and the next call continues it. Ends with 1
where a main question of a run on a quiet machine has no verdict for want of valid data.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(HERE), str(Path(__file__).resolve().parent)]

from two_sides import RAW, append, rows_of  # noqa: E402

from servestorm.rundir.machine_table import read_machine  # noqa: E402
from servestorm.rundir.record import RunRecord, read_run  # noqa: E402

MAIN = ("steady.p50", "steady.cpu_ms_per_image", "bursty.p50", "coldstart.total_s")
QUIET_PERCENT = 2.0
"""Steal under which a machine is quiet."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="with those before (default: 10)")
    parser.add_argument("--raw", type=Path, default=RAW / "quickstart.jsonl", help="raw table, continued")
    options = parser.parse_args()
    for number in range(len(rows_of(options.raw)) + 1, options.runs + 1):
        row = {"number": number, **run_once()}
        append(options.raw, row)
        print("\n".join(lines_of(row)), flush=True)
    rows = rows_of(options.raw)
    print("\n" + "\n".join(totals(rows)))
    return 1 if any(without_data(row, metric) for row in rows if row["quiet"] for metric in MAIN) else 0


def run_once() -> dict:
    """One `make run`, and what its results say."""
    began_s = time.monotonic()
    before = set((HERE / "runs").glob("*-quickstart*"))
    code = subprocess.run(["make", "run"], check=False, cwd=HERE).returncode
    (path,) = set((HERE / "runs").glob("*-quickstart*")) - before
    record = read_run(path)
    document = json.loads((path / "results.json").read_text())
    verdicts = {one["metric"]: one["verdict"] for one in document["verdicts"]}
    shown = ("outcome", "ratio", "ratio_ci", "p_holm", "rounds", "reason")
    steal, other = worst_percent(record)
    return {
        "run": path.name,
        "code": code,
        "seconds": round(time.monotonic() - began_s, 1),
        "budget_spent_s": record.study.budget_spent.all_s if record.study.budget_spent else None,
        "steal_percent": steal,
        "other_percent": other,
        "quiet": steal < QUIET_PERCENT,
        "verdicts": {name: {key: verdicts[name][key] for key in shown} for name in MAIN if name in verdicts},
    }


def worst_percent(record: RunRecord) -> tuple[float, float]:
    """Mean shares of the cores under load that the hypervisor and other programs took."""
    seconds = [second for cell in record.cells for second in read_machine(cell.path / "machine.parquet")]
    shares = []
    for name in ("steal_share", "other_share"):
        known = [share for second in seconds if (share := getattr(second, name)) is not None]
        shares.append(round(100 * sum(known) / len(known), 2) if known else 0.0)
    return shares[0], shares[1]


def without_data(row: dict, metric: str) -> bool:
    """Whether there is no verdict, or one that could not be asked: it has no ratio."""
    verdict = row["verdicts"].get(metric)
    return verdict is None or verdict["ratio"] is None


def answered(row: dict, metric: str) -> bool:
    verdict = row["verdicts"].get(metric)
    return verdict is not None and verdict["outcome"] in ("A", "B", "equivalent")


def lines_of(row: dict) -> list[str]:
    lines = []
    for metric in MAIN:
        verdict = row["verdicts"].get(metric) or {"outcome": "none", "ratio": None, "ratio_ci": None, "rounds": 0}
        ends = verdict["ratio_ci"]
        interval = f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else "none"
        ratio = "none" if verdict["ratio"] is None else f"{verdict['ratio']:.2f}"
        cells = (row["number"], metric, verdict["rounds"] or "", ratio, interval, verdict["outcome"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def totals(rows: list[dict]) -> list[str]:
    steals = [row["steal_percent"] for row in rows]
    seconds = [row["seconds"] for row in rows]
    head = f"{len(rows)} runs, {min(seconds):.0f} to {max(seconds):.0f} s, steal {min(steals)} to {max(steals)} %"
    return [head] + [
        f"{metric}: answered in {sum(answered(row, metric) for row in rows)}, without valid data in "
        f"{sum(without_data(row, metric) for row in rows)}"
        for metric in MAIN
    ]


if __name__ == "__main__":
    sys.exit(main())
