"""What five headers and a bearer token cost the generator: CPU a request with them and without, in turns.

    python benchmarks/loadgen/headers.py --rounds 7 [--seconds 10] [--rate 2000]

Each run is `locust -f loadtests/steady.py` on a core of its own, against a server on the other core that answers at
once. A round is a run without headers and one with them, for a closed loop of 32 requests in flight and for an open
loop at a constant rate; every second round begins with the other one. The table has the medians over rounds of the CPU
a request and of the ratio within a round and, in brackets, the least and the most.
"""

from __future__ import annotations

import argparse
import os
import sys
from statistics import median

import tools
from run import known

TARGET = 1.05
HEADERS = (
    "X-Request-Class=interactive",
    "X-Team=vision",
    "X-Region=eu-central-1",
    "X-Model-Version=2026-11-29",
    "Accept-Language=en-GB",
    "Authorization=Bearer env:SERVESTORM_BENCHMARK_TOKEN",
)
TOKEN = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9" * 20
"""As long as a signed JWT (720 characters)."""


def cpu_us(load: tuple[str, ...], headers: tuple[str, ...], seconds: float) -> float:
    """CPU microseconds a request of one run."""
    given = [option for header in headers for option in ("--header", header)]
    with known() as (port, _):
        return tools.servestorm(port, seconds, *load, "--warmup", "1", *given).cpu_us()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10, help="of each run (default: 10)")
    parser.add_argument("--rate", type=float, default=2000, help="requests/s of the open loop (default: 2000)")
    options = parser.parse_args()
    os.environ["SERVESTORM_BENCHMARK_TOKEN"] = TOKEN
    loads = {
        "closed loop, 32 in flight": ("--closed-loop", "32"),
        f"open loop, {options.rate:g}/s": ("--rate", f"{options.rate:g}"),
    }
    sides = {"without": (), "with": HEADERS}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in loads}
    for number in range(options.rounds):
        for name, load in loads.items():
            order = list(sides) if number % 2 == 0 else list(reversed(sides))
            found = {side: cpu_us(load, sides[side], options.seconds) for side in order}
            print(f"round {number + 1}, {name}: {found['with'] / found['without']:.3f}", file=sys.stderr, flush=True)
            rounds[name].append(found)
    print_table(rounds)


def print_table(rounds: dict[str, list[dict[str, float]]]) -> None:
    print(f"| load | rounds | without, us | with, us | ratio | target: under {TARGET:g} |\n|{' --- |' * 6}")
    for name, found in rounds.items():
        ratios = [one["with"] / one["without"] for one in found]
        cells = [spread([one[side] for one in found]) for side in ("without", "with")]
        verdict = "reached" if median(ratios) < TARGET else "MISSED"
        print(f"| {name} | {len(found)} | {' | '.join(cells)} | {spread(ratios)} | {verdict} |")


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
