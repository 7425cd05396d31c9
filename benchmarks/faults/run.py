"""Everything that can go wrong, on loopback: all parts of the campaign, one table.

    python benchmarks/faults/run.py [--part NAME ...] [--scale 1.0] [--seed 0] [--model build/models/cnn]

`--scale 0.1` runs a tenth of the counts. Each part is a program of its own too. Exit code 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import bodies
import clock
import descriptors
import disks
import interrupts
import kills
import mixed
import owners
import servers
import versions
import workers
from figures import ROOT, Figure, table

Part = Callable[[float, int, Path], list[Figure]]
"""Scale of its counts, seed, model directory; the figures."""

PARTS: dict[str, Part] = {
    "kills": lambda scale, seed, model: kills.run(_count(20, scale), seed, model),
    "bodies": lambda scale, seed, model: bodies.run(),
    "mixed": lambda scale, seed, model: mixed.run(_count(50_000, scale), seed),
    "versions": lambda scale, seed, model: versions.run(_count(30_000, scale), seed),
    "interrupts": lambda scale, seed, model: interrupts.run(_count(40, scale), seed, model),
    "servers": lambda scale, seed, model: servers.run(_count(200, scale), model),
    "workers": lambda scale, seed, model: workers.run(_count(20, scale), seed, model),
    "disks": lambda scale, seed, model: disks.run(_count(12, scale), seed, model),
    "descriptors": lambda scale, seed, model: descriptors.run(_count(10, scale), seed, model),
    "clock": lambda scale, seed, model: clock.run(_count(12, scale), seed, model),
    "studies": lambda scale, seed, model: owners.run(_count(5, scale), seed, model),
}


def _count(whole: int, scale: float) -> int:
    return max(1, round(whole * scale))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    options = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n")
    print("| part | figure | value | target |\n| --- | --- | --- | --- |", flush=True)
    missed = False
    for name in options.part:
        figures = PARTS[name](options.scale, options.seed, options.model)
        print(table(name, figures), flush=True)
        missed |= any(figure.missed for figure in figures)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
