"""Which design of a comparison finds most in the same time, and is not wrong more often than it says?

    python benchmarks/calibration/designs.py [--studies 2000] [--seed 1] [--out FILE.json]

Studies are resampled from noise that was recorded on real servers (benchmarks/calibration/recorded). All designs get
the same machine time, their starts included: what the blocks design takes for three runs of 10 s of each engine. The
designs, and what is done with their numbers:

  blocks       a fresh server for each run, one after the other; Welch's test on the runs, interval by Fieller
  interleaved  both servers at once, slices in turns; paired log-ratio of the rounds
  unpaired     the same runs without pairing
  duet         both servers loaded at once; paired log-ratio of the rounds
  pseudo       interleaved, with the slices as the unit

A false verdict is p < 0.05 where there is no difference; for the family of p50, p99 and CPU, after Holm's correction.
Ends with 1 where the interleaved design has more than 7 % false verdicts, or a coverage outside of 93 to 97 %.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.simulations import designs
from tests.simulations.designs import ALPHA, Floats, Times
from tests.simulations.recorded_noise import FIGURES, Recording, read_recording

P = Callable[[float], Floats]
PER_SLICE_S = 1.25
LONGEST = {"pieces": (1, 2, 4), "slices": (2, 4, 6, 8, 12, 16)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies of each design (default: 2000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the tables as JSON")
    options = parser.parse_args()
    noise, times = read_recording(), Times()
    budget_s = times.blocks_s(3, 10)
    print(
        f"Noise: {len(noise.rounds)} rounds. Time of each study: {budget_s:.0f} s. {options.studies:,} studies each.\n"
    )
    tables = {
        "designs": compared(noise, times, budget_s, options),
        "lengths": lengths(noise, times, budget_s, options),
        "power": [],
    }
    tables["power"] = power(noise, times, budget_s, options)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"options": vars(options), **tables}, default=str, indent=1))
    return 0 if all(one["sound"] for one in tables["designs"] if one["design"] == "interleaved") else 1


def rounds_in(budget_s: float, round_s: float) -> int:
    """Rounds that are nearest to the budget; never under 2."""
    return max(2, round(budget_s / round_s))


def chosen(noise: Recording, times: Times, budget_s: float, options: argparse.Namespace) -> dict[str, dict[str, P]]:
    """p of each design's figures as functions of the injected log-ratio."""
    rng, studies = np.random.default_rng(options.seed), options.studies
    blocks = designs.blocks_design(noise, rng, studies)
    rounds = rounds_in(budget_s, times.round_s(8, PER_SLICE_S))
    turns = designs.interleaved_design(noise, rng, studies, rounds, 8)
    both = designs.duet_design(noise, rng, studies, rounds_in(budget_s, times.duet_s(10)))
    return {
        "blocks": {name: welch(blocks[..., k]) for k, name in enumerate(FIGURES)},
        "interleaved": {name: ratio(designs.paired, turns[..., k]) for k, name in enumerate(FIGURES)},
        "unpaired": {name: ratio(designs.unpaired, turns[..., k]) for k, name in enumerate(FIGURES)},
        "duet": {name: ratio(designs.paired, both[..., k]) for k, name in enumerate(FIGURES[:2])},
        "pseudo": pseudo(noise, rng, studies, rounds, 8),
    }


def welch(runs: Floats) -> P:
    centred = designs.centred(runs)
    return lambda log_ratio: designs.welch_p(centred, math.exp(log_ratio))


def ratio(estimate: Callable[[Floats], designs.LogRatios], runs: Floats) -> P:
    return estimate(designs.centred(runs)).p


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
            rows.append(
                {
                    "design": design,
                    "figure": name,
                    "false": false,
                    "coverage": 1 - false,
                    "smallest_log_ratio": designs.smallest_log_ratio(p),
                    "sound": false <= 0.07 and 0.93 <= 1 - false <= 0.97,
                }
            )
        rows[-1]["family_false"] = designs.holm_any([p(0.0) for p in ps.values()])
    today = {row["figure"]: row["smallest_log_ratio"] for row in rows if row["design"] == "blocks"}
    heads = "design,figure,false verdicts,coverage,smallest log-ratio found (80 %),blocks' over it,any false (Holm)"
    print(f"| {heads.replace(',', ' | ')} |\n|{' --- |' * 7}")
    for row in rows:
        row["times_smaller"] = today[row["figure"]] / row["smallest_log_ratio"]
        family = f"{100 * row['family_false']:.1f} %" if "family_false" in row else ""
        print(
            f"| {row['design']} | {row['figure']} | {100 * row['false']:.1f} % | {100 * row['coverage']:.1f} % | "
            f"{row['smallest_log_ratio']:.4f} | {row['times_smaller']:.1f} | {family} |"
        )
    return rows


def lengths(noise: Recording, times: Times, budget_s: float, options: argparse.Namespace) -> list[dict]:
    """The interleaved design with long and short slices, and many or few of them, in the same time."""
    rng, rows = np.random.default_rng(options.seed + 1), []
    heads = "slice; s,slices a round,rounds,s,p50,p50 (far),p99,CPU"
    print(f"\n| {heads.replace(',', ' | ').replace(';', ',')} |\n|{' --- |' * 8}")
    for pieces in LONGEST["pieces"]:
        for slices in LONGEST["slices"]:
            length_s = pieces * PER_SLICE_S
            if not 4 <= slices * length_s <= 20:
                continue
            rounds = rounds_in(budget_s, times.round_s(slices, length_s))
            near, far = (
                designs.interleaved_design(noise, rng, options.studies, rounds, slices, pieces, apart)
                for apart in (False, True)
            )
            smallest = [designs.smallest_log_ratio(ratio(designs.paired, near[..., k])) for k in range(len(FIGURES))]
            apart = designs.smallest_log_ratio(ratio(designs.paired, far[..., 0]))
            spent_s = rounds * times.round_s(slices, length_s)
            rows.append(
                {
                    "slice_s": length_s,
                    "slices": slices,
                    "rounds": rounds,
                    "spent_s": spent_s,
                    **dict(zip(FIGURES, smallest, strict=True)),
                    "p50_far": apart,
                }
            )
            print(
                f"| {length_s:g} | {slices} | {rounds} | {spent_s:.0f} | {smallest[0]:.4f} | {apart:.4f} | "
                f"{smallest[1]:.4f} | {smallest[2]:.4f} |",
                flush=True,
            )
    return rows


def power(noise: Recording, times: Times, budget_s: float, options: argparse.Namespace) -> list[dict]:
    """Share of the studies that find a ratio."""
    ratios = (1.02, 1.05, 1.1, 1.25, 1.5, 2.0)
    print(f"\n| design | figure | {' | '.join(f'{one:g}' for one in ratios)} |\n|{' --- |' * (2 + len(ratios))}")
    rows = []
    for design, ps in chosen(noise, times, budget_s, options).items():
        for name, p in ps.items():
            shares = [designs.found(p, math.log(one)) for one in ratios]
            rows.append({"design": design, "figure": name, "found": dict(zip(map(str, ratios), shares, strict=True))})
            print(f"| {design} | {name} | {' | '.join(f'{100 * share:.0f} %' for share in shares)} |")
    return rows


if __name__ == "__main__":
    sys.exit(main())
