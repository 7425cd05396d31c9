"""Memory of samples on their way to disk and into the summary: 0.1, 1 and 10 million of them, as a load makes them.

    .venv/bin/python benchmarks/loadgen/memory.py

Each size runs in a process of its own; what is told is the peak resident memory over that of no samples at all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = (0, 100_000, 1_000_000, 10_000_000)
_CHUNK = 4096


def measure(count: int) -> None:
    from loadtests.arrivals.measured_time import ALWAYS
    from loadtests.generator.load import ROW
    from loadtests.samples.recorder import SampleWriter
    from loadtests.samples.summary import LoadFacts, summarise

    settings = {
        **dict.fromkeys(("engine", "protocol", "model", "payload"), "x"),
        **dict.fromkeys(("max_in_flight", "connections", "closed_loop", "seed"), 0),
        "loop": "open",
        "images_per_request": 1,
        "arrivals": {},
        "rate": 1e5,
        "duration_s": count / 1e5 + 1,
        "warmup_s": 0.0,
        "timeout_s": 1.0,
        "endpoints": [],
        "started_at": "",
    }
    random = np.random.default_rng(0)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        writer = SampleWriter(Path(folder), 1)
        for first in range(0, count, _CHUNK):
            rows = np.zeros((min(_CHUNK, count - first), len(ROW)), np.int64)
            rows[:, 0] = (first + np.arange(len(rows))) * 10_000
            rows[:, 1] = rows[:, 0] + random.integers(10_000, 100_000, len(rows))
            rows[:, 2] = rows[:, 3] = rows[:, 1] + random.integers(1_000_000, 50_000_000, len(rows))
            writer.add(rows)
            if first // _CHUNK % 12 == 11:  # about a second's samples at 50,000/s
                writer.flush(ALWAYS)
        written_s = time.monotonic() - begun
        facts = LoadFacts(settings, ALWAYS, int(settings["duration_s"] * 1e9), 0.1, {}, "unchecked")
        summary = summarise(writer.close(ALWAYS), facts)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) / 1024, written_s, time.monotonic() - begun, summary.latency_ms.p99)


def main() -> None:
    print("| samples | MiB over none | s to write | s in all |\n| --- | --- | --- | --- |")
    base = None
    for count in SIZES:
        command = [sys.executable, __file__, str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak, written_s, all_s, _ = done.stdout.split()
        base = float(peak) if base is None else base
        print(f"| {count:,} | {float(peak) - base:.0f} | {float(written_s):.1f} | {float(all_s):.1f} |")


if __name__ == "__main__":
    measure(int(sys.argv[1])) if len(sys.argv) > 1 else main()
