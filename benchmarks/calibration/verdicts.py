"""How often is a verdict wrong? Simulated studies whose truth is known, through the real verdicts.

    python benchmarks/calibration/verdicts.py [--studies 1000] [--seed 1]

Prints Markdown tables: false verdicts where both sides are the same, differences found at the stated power, coverage of
the intervals, and whether the advised number of further runs gave an answer. Exits with 1 where one of the claims of
docs/explanation/statistics.md fails. The last column is the 95 % interval (Wilson) of the simulated share.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from servestorm.methods.power import POWER
from tests.simulations.verdicts import (
    ALPHA,
    RUNS,
    SCATTER,
    SIMULATORS,
    advice,
    false_verdicts,
    found_effects,
    g_coverage,
    log_normal,
    normal,
    percent_coverage,
)

SLACK = 0.02
"""The stated power may be missed by this much: it is rounded on the way."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    faults = [fault for part in (_false, _power, _coverage, _advice) for fault in part(options.studies, options.seed)]
    print("\n".join(faults) or "\nEvery claim holds.")
    return 1 if faults else 0


def _head(title: str, *columns: str) -> None:
    print(f"\n**{title}**\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)


def _false(studies: int, seed: int) -> Iterator[str]:
    title = f"False verdicts in {studies:,} studies of one engine against itself (any A or B in a study)"
    _head(title, "runs are", "runs a side", "no margin", "95 % interval", "margin 5 %", "95 % interval")
    for name, (simulate, metrics) in SIMULATORS.items():
        for runs in RUNS:
            strict, usual = false_verdicts(simulate, metrics, runs, studies, seed)
            print(f"| {name} | {runs} | {strict} | {usual} |", flush=True)
            if max(strict.interval[0], usual.interval[0]) > ALPHA:
                yield f"{name}, {runs} runs: more false verdicts than {ALPHA:.0%}"


def _power(studies: int, seed: int) -> Iterator[str]:
    title = f"The smallest effect, and how often it was found (stated: {POWER:.0%}; runs scatter by {SCATTER:.0%})"
    _head(title, "runs a side", "B scatters", "smallest effect", "found", "95 % interval")
    for runs in RUNS:
        for ratio in (1.0, 3.0):
            effect, share = found_effects(runs, ratio, 4 * studies, seed)
            print(f"| {runs} | {ratio:g} times as much | {effect:.1f} % | {share} |", flush=True)
            if not share.interval[0] - SLACK <= POWER <= share.interval[1] + SLACK:
                yield f"{runs} runs, scatter {ratio:g}: found in {share}, not in {POWER:.0%}"


def _coverage(studies: int, seed: int) -> Iterator[str]:
    _head("Coverage of the 95 % intervals", "interval", "true difference", "runs a side", "held it", "95 % interval")
    for name, simulate in (("ci_percent, normal", normal), ("ci_percent, log-normal", log_normal)):
        for percent in (0.0, 10.0, 200.0):
            for runs in RUNS:
                share = percent_coverage(simulate, percent, runs, 2 * studies, seed)
                print(f"| {name} | {percent:g} % | {runs} | {share} |", flush=True)
                if simulate is normal and share.interval[1] < 1 - ALPHA:
                    yield f"{name}, {percent:g} %, {runs} runs: the interval is too short"
    for effect in (0.0, 1.0, 3.0):
        for runs in RUNS:
            share = g_coverage(effect, runs, 2 * studies, seed)
            print(f"| g_ci, normal | {effect:g} standard deviations | {runs} | {share} |", flush=True)
            if share.interval[1] < 1 - ALPHA:
                yield f"g_ci, {effect:g}, {runs} runs: the interval is too short"


def _advice(studies: int, seed: int) -> Iterator[str]:
    title = "Inconclusive studies that followed `runs_more` (no claim: mean and scatter of a few runs are guesses)"
    _head(title, "true difference", "runs a side", "median of runs advised", "had an answer", "95 % interval")
    for percent in (0.0, 8.0, 12.0):
        for runs in (3, 5):
            median, share = advice(percent, runs, studies, seed)
            print(f"| {percent:g} % | {runs} | {median:.0f} | {share} |", flush=True)
    yield from ()


if __name__ == "__main__":
    sys.exit(main())
