"""How often is a study wrong that looks at its rounds one by one and stops as soon as a question is decided?

    python benchmarks/calibration/sequential.py [--studies 20000] [--seed 1] [--out FILE.json]

The levels of servestorm/methods/group_sequential.py are exact for normal estimates with a known scatter. A study uses
them with Student's t and the scatter of a few rounds, so its error is simulated here: with normal rounds, and with
rounds from the recorded noise (benchmarks/calibration/recorded). A false verdict is p under the level at any look where
there is no difference. Coverage is that of the repeated interval at the look at which the study ended. The last columns
are for a true ratio of 1.25: how many studies find it, and after how many rounds they end on average.
Ends with 1 where studies that look from round 3 on are wrong in more than 7 of 100.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
from scipy.stats import t as student

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from servestorm.methods.group_sequential import nominal_level
from tests.simulations.designs import ALPHA, Floats, drawn, interleaved_runs, paired
from tests.simulations.recorded_noise import FIGURES, read_recording

FIRST_LOOK = 3
ROUNDS = (5, 8, 12, 20)
FIRST = (2, 3, 4, 5)
RATIO = 1.25
SCATTER = 0.1
"""Of the log-ratio of a normal round."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20_000, help="simulated studies of each row (default: 20000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the table as JSON")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    heads = "rounds are,rounds,first look,false verdicts,coverage,finds 1.25,rounds at the end"
    print(f"| {heads.replace(',', ' | ')} |\n|{' --- |' * 7}")
    rows = [
        row(name, runs, first)
        for most in ROUNDS
        for name, runs in simulated(rng, options.studies, most).items()
        for first in FIRST
        if first < most
    ]
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"options": vars(options), "rows": rows}, default=str, indent=1))
    return 0 if all(one["false"] <= 0.07 for one in rows if one["first"] >= FIRST_LOOK) else 1


def simulated(rng: np.random.Generator, studies: int, rounds: int) -> dict[str, Floats]:
    """Figures of studies without a true difference, (studies, sides, rounds) each."""
    normal = 1 + SCATTER / math.sqrt(2) * rng.standard_normal((studies, 2, rounds))
    recorded = drawn(interleaved_runs(read_recording(), 8), rng, studies, rounds, together=True)
    return {"normal": normal, **{f"recorded, {name}": recorded[..., k] for k, name in enumerate(FIGURES)}}


def row(name: str, runs: Floats, first: int) -> dict:
    rounds = runs.shape[2]
    false, covered, _ = followed(runs, first, 0.0)
    found, _, ended = followed(runs, first, math.log(RATIO))
    facts = {
        "noise": name,
        "rounds": rounds,
        "first": first,
        "false": float(false.mean()),
        "coverage": float(covered.mean()),
        "finds": float(found.mean()),
        "ended": float(ended.mean()),
    }
    shares = " | ".join(f"{100 * facts[key]:.1f} %" for key in ("false", "coverage", "finds"))
    print(f"| {name} | {rounds} | {first} | {shares} | {facts['ended']:.1f} |", flush=True)
    return facts


def followed(runs: Floats, first: int, log_ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each study: whether a look decided, whether the interval at its end held the truth, and rounds at its end."""
    studies, _, rounds = runs.shape
    decided = np.zeros(studies, bool)
    covered, ended = np.zeros(studies, bool), np.full(studies, rounds)
    looks: list[float] = []
    for count in range(first, rounds + 1):
        looks.append(count / rounds)
        level = nominal_level(ALPHA, looks)
        estimate = paired(runs[..., :count])
        with np.errstate(all="ignore"):
            holds = np.abs(estimate.value) <= student.ppf(1 - level / 2, estimate.df) * estimate.error
        now = ~decided & (estimate.p(log_ratio) < level)
        last = now | (~decided & (count == rounds))
        covered[last], ended[now] = holds[last] | ~np.isfinite(estimate.error[last]), count
        decided |= now
    return decided, covered, ended


if __name__ == "__main__":
    sys.exit(main())
