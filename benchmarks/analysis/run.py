"""From Parquet to the finished report: 0.1, 1 and 10 million samples, each in a fresh process.

    .venv/bin/python benchmarks/analysis/run.py [--sizes 100000 1000000 10000000] [--cells 20] [--rounds 3]

Makes run directories as a study leaves them (two engines, steady and bursty load, samples in the recorder's schema and
row groups), runs `servestorm report` on each, and tells its wall and CPU seconds, its peak resident memory (VmHWM of
the process itself) and the size of the report, with time and memory against the size before: 10 times the samples
should cost at most 10 times as much. With 0.1 million hardly anything but the start-up is left.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from loadtests.generator.jobs import OUTCOMES  # noqa: E402
from loadtests.samples.recorder import SCHEMA  # noqa: E402
from tests.stand_ins.synthetic_run import PLAN, make_run  # noqa: E402

RATE_PER_S = 20_000
WARMUP_S = 2.0
ROW_GROUP = 65_536
START_NS = 5_000_000_000_000
REPORT = """
import sys, time
from servestorm.cli.main import main
sys.argv = ["servestorm", "report", sys.argv[1]]
try:
    code = main()
finally:
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("PEAK_KIB", peak.split()[1], "CPU_S", time.process_time(), file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True)
class Cost:
    samples: int
    wall_s: float
    cpu_s: float
    peak_mib: float
    report_kib: float


def plan_text(cells: int) -> str:
    """Two engines under steady load (half of them) and bursty load: `cells` runs with samples."""
    repetitions = max(3, cells // 4)
    text = PLAN.replace("repetitions: 3", f"repetitions: {repetitions}")
    return text[: text.index("scaling:")] + text[text.index("cpus:") :]


def write_samples(path: Path, count: int, seed: int) -> None:
    """`count` samples with every column that the load generator writes, a few of them failed."""
    random = np.random.default_rng(seed)
    with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=["outcome"]) as writer:
        for first in range(0, count, ROW_GROUP):
            size = min(ROW_GROUP, count - first)
            writer.write_table(_table(random, first, size), row_group_size=ROW_GROUP)


def _table(random: np.random.Generator, first: int, size: int) -> pa.Table:
    relative_ns = (first + np.arange(size)) * (1_000_000_000 // RATE_PER_S) + random.integers(0, 50_000, size)
    scheduled = START_NS + relative_ns
    sent = scheduled + random.integers(20_000, 200_000, size)
    done = sent + (random.gamma(2.0, 2e6, size) + 5e5).astype(np.int64)
    failed = random.random(size) < 0.001
    codes = np.where(failed, OUTCOMES.index("timeout"), OUTCOMES.index("ok")).astype(np.int8)
    columns = {
        "scheduled_ns": scheduled,
        "sent_ns": sent,
        "first_byte_ns": pa.array(done - 10_000, mask=failed),
        "done_ns": pa.array(done, mask=failed),
        "outcome": pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(OUTCOMES)),
        "status": pa.array(np.full(size, 200, np.int32), mask=failed),
        "sent_bytes": np.full(size, 1_200, np.int32),
        "received_bytes": np.full(size, 300, np.int32),
        "endpoint": np.zeros(size, np.int16),
        "image": random.integers(0, 100, size).astype(np.int32),
        "images": np.ones(size, np.int16),
        "correct": pa.array(np.ones(size, np.bool_), mask=failed),
        "warmup": relative_ns < WARMUP_S * 1e9 / 10,
    }
    return pa.Table.from_arrays([pa.array(columns[name]) for name in SCHEMA.names], schema=SCHEMA)


def make(folder: Path, samples: int, cells: int, crowded: str | None) -> Path:
    """A run directory of so many samples in all, shared evenly by its load runs, or nearly all in one of a scenario."""
    run = make_run(folder, plan_text(cells))
    loads = sorted(path for path in (run / "cells").iterdir() if (path / "samples.parquet").exists())
    one = next((cell for cell in loads if crowded and f"-{crowded}-" in cell.name), None)
    for index, cell in enumerate(loads):
        count = samples // len(loads) if one is None else 1000 if cell != one else samples - 1000 * (len(loads) - 1)
        write_samples(cell / "samples.parquet", count, index)
    return run


def measure(run: Path, samples: int, cores: int) -> Cost:
    """`servestorm report` in a process of its own, on so many cores."""
    begun = time.monotonic()
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, "-c", REPORT, str(run)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    wall_s = time.monotonic() - begun
    if done.returncode:
        sys.exit(f"the report failed:\n{done.stderr}")
    told = next(line for line in done.stderr.splitlines() if line.startswith("PEAK_KIB")).split()
    return Cost(samples, wall_s, float(told[3]), int(told[1]) / 1024, (run / "report.html").stat().st_size / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--cells", type=int, default=20, help="load runs that share the samples (at least 12)")
    parser.add_argument("--crowded", choices=["steady", "bursty"], help="nearly all samples in one run of this kind")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many is told")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    print("| samples | wall s | times | CPU s | peak MiB | times | report KiB |\n|" + " ---: |" * 7)
    before: Cost | None = None
    for samples in options.sizes:
        folder = Path(tempfile.mkdtemp(prefix="servestorm-analysis-"))
        try:
            run = make(folder, samples, options.cells, options.crowded)
            best = min((measure(run, samples, options.cores) for _ in range(options.rounds)), key=lambda c: c.wall_s)
        finally:
            shutil.rmtree(folder)
        print(_row(best, before), flush=True)
        before = best


def _row(cost: Cost, before: Cost | None) -> str:
    wall = f"{cost.wall_s / before.wall_s:.1f}" if before else ""
    peak = f"{cost.peak_mib / before.peak_mib:.1f}" if before else ""
    return (
        f"| {cost.samples:,} | {cost.wall_s:.2f} | {wall} | {cost.cpu_s:.2f} | {cost.peak_mib:.0f} | {peak} "
        f"| {cost.report_kib:.0f} |"
    )


if __name__ == "__main__":
    main()
