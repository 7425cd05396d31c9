"""Memory and time from options to the first request of a long load, against another source tree, interleaved.

    .venv/bin/python benchmarks/loadgen/schedules.py OLD_TREE [--hours 24] [--rate 1000] [--workers 1 4] [--rounds 3]

OLD_TREE is a checkout of the commit before (git worktree add). Each measurement is a process of its own that prepares
the load, takes its share, builds the generator and waits for its first arrivals; no request is sent. A table compares
peak resident memory over that of the imports, and seconds. The ratio is new over old of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

NEW_TREE = Path(__file__).parents[2]
PROCESSES = ("constant", "poisson", "gamma", "on-off", "diurnal")


def peak_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(process: str, hours: float, rate: float, workers: int) -> None:
    from loadtests.generator.generator import Generator
    from loadtests.generator.sockets_and_timers import Timer
    from loadtests.options import options_for, read_options
    from loadtests.session import prepare

    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="http://127.0.0.1:9")
    for option in options_for(process):
        option.add_to(parser)
    if process == "on-off":
        rate /= 2  # with the default bursts, at four times the base rate for a third of the time, the mean is `rate`
    words = ["--engine", "http", "--rate", f"{rate:g}", "--duration", f"{hours * 3600:g}", "--warmup", "5"]
    base_mib, begun = peak_mib(), time.monotonic()
    prepared = prepare(read_options(parser.parse_args(words)))
    if workers > 1:
        prepared = prepared.share(0, workers)
    generator = Generator(prepared.target, prepared.load)
    generator._timer = Timer()
    generator._next_block()
    print(peak_mib() - base_mib, time.monotonic() - begun, generator._due[-1])


def measured(tree: Path, *arguments: object) -> tuple[float, float, int]:
    command = [sys.executable, __file__, "--measure", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tree)
    mib, seconds, due = done.stdout.split()
    return float(mib), float(seconds), int(due)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", nargs="+", default=PROCESSES)
    asked = parser.parse_args()
    print("| process | workers | MiB before | MiB now | ratio | s before | s now |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for process in asked.processes:
        for workers in asked.workers:
            arguments = (process, asked.hours, asked.rate, workers)
            rounds = [(measured(asked.old, *arguments), measured(NEW_TREE, *arguments)) for _ in range(asked.rounds)]
            if any(old[2] != new[2] for old, new in rounds):
                sys.exit(f"{process}: the arrivals are not the same")
            old_mib, new_mib, old_s, new_s = (
                statistics.median(pair[side][at] for pair in rounds) for at in (0, 1) for side in (0, 1)
            )
            ratio = f"{new_mib / old_mib:.3f}"
            print(f"| {process} | {workers} | {old_mib:,.0f} | {new_mib:,.0f} | {ratio} | {old_s:.1f} | {new_s:.2f} |")
            sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
