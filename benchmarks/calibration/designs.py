"""Which design of a comparison finds most in the same time, and is not wrong more often than it says?

    python benchmarks/calibration/designs.py [--studies 4000] [--seed 1] [--out FILE.json]

Studies are resampled from noise that was recorded on real servers (benchmarks/calibration/recorded). All designs get
the same machine time, their starts included: what the blocks design takes for three runs of 10 s of each engine. The
designs, and what is done with their numbers:

  blocks       a fresh server for each run, one after the other; Welch's test on the runs, interval by Fieller
               (beside it: the same where every run counts, however late the generator or disturbed the machine)
  interleaved  both servers at once, slices in turns; paired log-ratio of the rounds
               (beside it: with a warm-up of 5 s in place of 2 s, for a JVM is not warm after 2)
  unpaired     the same runs without pairing
  duet         both servers loaded at once; paired log-ratio of the rounds
  pseudo       interleaved, with the slices as the unit

A false verdict is p < 0.05 where there is no difference; for the family of p50, p99 and CPU, after Holm's correction.
The interval of a ratio leaves 1 out exactly where p < 0.05, whatever the
ratio, so coverage is one minus the share of false verdicts. Ends with 1 where that of the interleaved design is outside
of 93 to 97 %.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.simulations import designs
from tests.simulations.designs import ALPHA, Floats, Times
from tests.simulations.recorded_noise import FIGURES, Recording, read_recording

P = Callable[[float], Floats]
PER_SLICE_S = 1.25
SLICES = 8
RECORDED = 14
"""Slices of each engine in a recorded round."""
RATIOS = (1.02, 1.05, 1.1, 1.25, 1.5, 2.0)
WARM_SLICES = 2
WARM = "interleaved, warm"
EVERY = "blocks, all runs counted"
TRIED = {"pieces": (1, 2, 4), "slices": (1, 2, 3, 4, 6, 8, 12)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=4000, help="simulated studies of each design (default: 4000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the tables as JSON")
    options = parser.parse_args()
    noise, times = read_recording(), Times()
    quick_s = times.blocks_s(3, 10)
    print(f"Noise: {len(noise.rounds)} rounds; {options.studies:,} studies of each design.")
    tables: dict[str, list[dict]] = {"designs": [], "lengths": [], "power": []}
    head(
        "s", "design", "figure", "false", "smallest log-ratio", "blocks' over it", f"{EVERY}: over it", "false, family"
    )
    for budget_s in (quick_s, 1.5 * quick_s, 2 * quick_s, 3 * quick_s):
        tables["designs"] += compared(noise, times, budget_s, options)
    for budget_s in (quick_s, 2 * quick_s):
        head("slice, s", "slices a round", "rounds", "s", "p50", "p50 (far)", "p99", "CPU")
        tables["lengths"] += lengths(noise, times, budget_s, options)
    head("design", "figure", *(f"{one:g}" for one in RATIOS))
    tables["power"] = power(noise, times, 2 * quick_s, options)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"options": vars(options), **tables}, default=str, indent=1))
    judged = [row["false"] for row in tables["designs"] if row["design"] in ("interleaved", WARM)]
    return 0 if all(0.03 <= false <= 0.07 for false in judged) else 1


def head(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}", flush=True)


def fitting(budget_s: float, length_s: float) -> int:
    """Runs or rounds of that length whose time is nearest to the budget; never under 2."""
    return max(2, round(budget_s / length_s))


def chosen(noise: Recording, times: Times, budget_s: float, options: argparse.Namespace) -> dict[str, dict[str, P]]:
    """p of each design's figures as functions of the injected log-ratio, in studies of that length."""
    rng, studies = np.random.default_rng(options.seed), options.studies

    def draw(runs: Floats, count: int, together: bool) -> Floats:
        return designs.drawn(runs, rng, studies, count, together=together)

    runs = fitting(budget_s, times.blocks_s(1, 10))
    strict, every = (draw(designs.blocks_runs(noise, strict=one), runs, False) for one in (True, False))
    rounds = fitting(budget_s, times.round_s(SLICES, PER_SLICE_S))
    turns = draw(designs.interleaved_runs(noise, SLICES), rounds, True)
    longer = replace(times, warm_up=times.warm_up + WARM_SLICES * noise.slice_s)
    warm_rounds = fitting(budget_s, longer.round_s(SLICES, PER_SLICE_S))
    warm = draw(designs.interleaved_runs(designs.warmed(noise, WARM_SLICES), SLICES), warm_rounds, True)
    both = draw(designs.duet_runs(noise), fitting(budget_s, times.duet_s(10)), True)
    return {
        "blocks": {name: welch(strict[..., k]) for k, name in enumerate(FIGURES)},
        EVERY: {name: welch(every[..., k]) for k, name in enumerate(FIGURES)},
        "interleaved": {name: designs.paired(turns[..., k]).p for k, name in enumerate(FIGURES)},
        WARM: {name: designs.paired(warm[..., k]).p for k, name in enumerate(FIGURES)},
        "unpaired": {name: designs.unpaired(turns[..., k]).p for k, name in enumerate(FIGURES)},
        "duet": {name: designs.paired(both[..., k]).p for k, name in enumerate(FIGURES[:2])},
        "pseudo": pseudo(noise, rng, studies, rounds, SLICES),
    }


def welch(runs: Floats) -> P:
    return lambda log_ratio: designs.welch_p(runs, math.exp(log_ratio))


def pseudo(noise: Recording, rng: np.random.Generator, studies: int, rounds: int, slices: int) -> dict[str, P]:
    """A t-test over all slices of all rounds."""
    result: dict[str, P] = {}
    for name, values in zip(("p50", "cpu"), designs.slice_pairs(noise, rng, studies, rounds, slices), strict=True):
        flat = values.reshape(studies, -1) - values.mean()
        count = flat.shape[1]
        error = flat.std(axis=1, ddof=1) / math.sqrt(count)
        result[name] = designs.LogRatios(flat.mean(axis=1), error, np.full(studies, count - 1.0)).p
    return result


def compared(noise: Recording, times: Times, budget_s: float, options: argparse.Namespace) -> list[dict]:
    """False verdicts, smallest log-ratio found and coverage of each design."""
    rows = []
    for design, ps in chosen(noise, times, budget_s, options).items():
        for name, p in ps.items():
            false = float((p(0.0) < ALPHA).mean())
            smallest = designs.smallest_log_ratio(p)
            rows.append({"seconds": budget_s, "design": design, "figure": name, "false": false, "smallest": smallest})
        rows[-1]["family_false"] = designs.holm_any([p(0.0) for p in ps.values()])
    by = {(row["design"], row["figure"]): row["smallest"] for row in rows}
    for row in rows:
        today = [by[design, row["figure"]] for design in ("blocks", EVERY)]
        row["times_smaller"] = [over(one, row["smallest"]) for one in today]
        family = f"{100 * row['family_false']:.1f} %" if "family_false" in row else ""
        print(
            f"| {budget_s:.0f} | {row['design']} | {row['figure']} | {100 * row['false']:.1f} % | "
            f"{row['smallest']:.3f} | {' | '.join(f'{one:.1f}' for one in row['times_smaller'])} | {family} |"
        )
    return rows


def over(today: float, now: float) -> float:
    return math.nan if math.isinf(now) else today / now


def lengths(noise: Recording, times: Times, budget_s: float, options: argparse.Namespace) -> list[dict]:
    """The interleaved design with long and short slices, and many or few of them, in the same time."""
    rng, rows = np.random.default_rng(options.seed + 1), []
    for pieces in TRIED["pieces"]:
        for slices in TRIED["slices"]:
            length_s = pieces * PER_SLICE_S
            if (slices + 1) * pieces > RECORDED or slices * length_s < 3:
                continue
            round_s = times.round_s(slices, length_s)
            rounds = fitting(budget_s, round_s)
            near, far = (
                designs.drawn(
                    designs.interleaved_runs(noise, slices, pieces, apart), rng, options.studies, rounds, together=True
                )
                for apart in (False, True)
            )
            smallest = [designs.smallest_log_ratio(designs.paired(near[..., k]).p) for k in range(len(FIGURES))]
            apart = designs.smallest_log_ratio(designs.paired(far[..., 0]).p)
            row = {"slice_s": length_s, "slices": slices, "rounds": rounds, "seconds": rounds * round_s}
            rows.append({**row, **dict(zip(FIGURES, smallest, strict=True)), "p50_far": apart})
            figures = " | ".join(f"{one:.3f}" for one in (smallest[0], apart, *smallest[1:]))
            print(f"| {length_s:g} | {slices} | {rounds} | {rounds * round_s:.0f} | {figures} |", flush=True)
    return rows


def power(noise: Recording, times: Times, budget_s: float, options: argparse.Namespace) -> list[dict]:
    """Share of the studies that find a ratio."""
    rows = []
    for design, ps in chosen(noise, times, budget_s, options).items():
        for name, p in ps.items():
            shares = [designs.found(p, math.log(one)) for one in RATIOS]
            rows.append({"design": design, "figure": name, "found": dict(zip(map(str, RATIOS), shares, strict=True))})
            print(f"| {design} | {name} | {' | '.join(f'{100 * share:.0f} %' for share in shares)} |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
