"""Seconds and memory to read a day of Azure Functions 2019 into a schedule: 46,413 functions, a column a minute.

    .venv/bin/python benchmarks/traces/azure_day.py

The file is made up in the form of the data set (hashed names, a trigger, 1,440 counts) in a temporary folder. Each
reading runs in a process of its own: into the arrivals, and by `servestorm schedule` with statistics and a drawing.
What is printed is the time of the whole process and its peak resident memory.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FUNCTIONS, MINUTES = 46_413, 1440
DAY_S = 86_400
MOST_S, MOST_BYTES = 30.0, 1.5e9
TRIGGERS = ("http", "timer", "event", "queue", "storage", "orchestration", "others")
READ = """
import sys
from pathlib import Path
from loadtests.arrivals.traces.replay import TraceOptions, read_trace
print(read_trace(TraceOptions(Path(sys.argv[1])), 86_400, 0).schedule.count())
"""


def make_day(path: Path, functions: int, arrivals: float) -> int:
    """Write the file; most functions are called rarely, a few of them often. Returns the sum of its counts."""
    random = np.random.default_rng(0)
    rates = np.minimum(random.pareto(0.6, functions), 1000)
    rates *= arrivals / MINUTES / rates.sum()
    total = 0
    with path.open("w") as file:
        file.write("HashOwner,HashApp,HashFunction,Trigger," + ",".join(map(str, range(1, MINUTES + 1))) + "\n")
        for function, rate in enumerate(rates):
            counts = random.poisson(rate, MINUTES)
            total += int(counts.sum())
            names = [hashlib.sha256(f"{kind}{function}".encode()).hexdigest() for kind in ("owner", "app", "function")]
            row = [*names, TRIGGERS[function % len(TRIGGERS)], *map(str, counts.tolist())]
            file.write(",".join(row) + "\n")
    return total


def measure(command: list[str], cwd: Path) -> tuple[float, int, str]:
    """Seconds, peak resident bytes and output of a process."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return time.monotonic() - begun, usage.ru_maxrss * 1024, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", type=int, default=FUNCTIONS, help="rows of the file")
    parser.add_argument("--arrivals", type=float, default=86.4e6, help="about so many invocations in the day")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    root = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "invocations_per_function_md.anon.d01.csv"
        total = make_day(path, options.functions, options.arrivals)
        print(f"{options.functions:,} x {MINUTES:,}, {path.stat().st_size / 1e6:.0f} MB, {total:,} invocations\n")
        schedule = ["-m", "servestorm.cli.main", "schedule", "--arrivals", "trace", "--duration", str(DAY_S)]
        cases = {
            "read into a schedule": [sys.executable, "-c", READ, str(path)],
            "servestorm schedule": [sys.executable, *schedule, "--trace", str(path)],
        }
        print("| process | s | peak memory, GB | target |\n| --- | ---: | ---: | --- |")
        for name, command in cases.items():
            rounds = [measure(command, root) for _ in range(options.rounds)]
            seconds, peak = float(np.median([one[0] for one in rounds])), max(one[1] for one in rounds)
            reached = "reached" if seconds < MOST_S and peak < MOST_BYTES else "MISSED"
            target = f"under {MOST_S:g} s and {MOST_BYTES / 1e9:g} GB: {reached}" if "read" in name else ""
            print(f"| {name} | {seconds:.1f} | {peak / 1e9:.2f} | {target} |", flush=True)
            assert f"{total:,}".replace(",", "") in rounds[0][2].replace(",", "")


if __name__ == "__main__":
    main()
