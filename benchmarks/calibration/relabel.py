"""How often do rounds without a difference give a verdict? Recorded studies of an engine against itself, relabelled.

    python benchmarks/calibration/relabel.py [--relabellings 2000] [--rounds 6] [--seed 1] [FILE.jsonl ...]

The files are raw tables of benchmarks/calibration/same_engine.py: each row holds the numbers of both sides of a study,
round by round. A relabelling draws rounds of one engine (without replacement) from all of its studies, exchanges the
two sides of each by the toss of a coin, and puts p50, p99 and CPU time before the product's verdict as one family, as a
study does. There is no difference between the sides, so A or B is false. Without files, the recorded noise of
benchmarks/calibration/recorded is used: each engine's slices with odd and even numbers are the two sides of a round.
Ends with 1 where the upper 95 % limit of the false verdicts is 7 % or more.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from servestorm.methods.verdict import Question, verdicts
from tests.simulations.recorded_noise import FIGURES, Recording, figures, read_recording
from tests.simulations.verdicts import ALPHA, Share

MARGIN = 0.05
LIMIT = 0.07
QUESTIONS = ("steady.p50", "steady.p99", "steady.cpu_ms_per_image")
Rounds = dict[str, np.ndarray]
"""For each question (rounds, 2)."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="raw tables of same_engine.py")
    parser.add_argument("--relabellings", type=int, default=2000, help="over all engines (default: 2000)")
    parser.add_argument("--rounds", type=int, default=6, help="of each relabelled study (default: 6)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    engines = from_files(options.files) if options.files else from_noise(read_recording())
    rng = np.random.default_rng(options.seed)
    false = dict.fromkeys(("any", *QUESTIONS), 0)
    for number in range(options.relabellings):
        rounds = list(engines.values())[number % len(engines)]
        wrong = judged(relabelled(rounds, options.rounds, rng))
        false["any"] += bool(wrong)
        for question in wrong:
            false[question] += 1
    counts = ", ".join(f"{engine}: {len(next(iter(rounds.values())))}" for engine, rounds in engines.items())
    print(f"Rounds recorded ({counts}); {options.relabellings:,} relabellings to studies of {options.rounds} rounds.\n")
    print(f"| false verdict on | share | 95 % interval |\n|{' --- |' * 3}")
    for question, count in false.items():
        print(f"| {question} | {Share(count, options.relabellings)} |")
    return 1 if Share(false["any"], options.relabellings).interval[1] >= LIMIT else 0


def from_files(files: list[Path]) -> dict[str, Rounds]:
    """All rounds of each engine in the raw tables."""
    engines: dict[str, dict[str, list[list[float]]]] = {}
    for row in (json.loads(line) for file in files for line in file.read_text().splitlines()):
        table = engines.setdefault(row["engine"], {})
        for question in QUESTIONS:
            table.setdefault(question, []).extend(row["rounds"].get(question, []))
    return {engine: {name: np.array(rows, float) for name, rows in table.items()} for engine, table in engines.items()}


def from_noise(noise: Recording) -> dict[str, Rounds]:
    """Neighbouring slices of one server as two sides: what instances differ by is not in it."""
    engines = {}
    for side, engine in enumerate(noise.engines):
        halves = [[figures(sides[side][begin::2]) for begin in (0, 1)] for sides in noise.rounds]
        engines[engine] = {name: np.array(halves)[..., k] for k, name in enumerate(QUESTIONS[: len(FIGURES)])}
    return engines


def relabelled(rounds: Rounds, count: int, rng: np.random.Generator) -> Rounds:
    size = len(next(iter(rounds.values())))
    if size < count:
        raise SystemExit(f"{size} rounds are recorded: give --rounds {size} at most, or run more studies.")
    at, swapped = rng.permutation(size)[:count], rng.random(count) < 0.5
    return {name: np.where(swapped[:, None], table[at, ::-1], table[at]) for name, table in rounds.items()}


def judged(rounds: Rounds) -> list[str]:
    """The questions with a verdict of A or B."""
    family = {
        name: Question(*(clean(table[:, side]) for side in (0, 1)), "lower", rounds=(range(len(table)),) * 2)
        for name, table in rounds.items()
    }
    return [name for name, found in verdicts(family, MARGIN, ALPHA).items() if found.outcome in ("A", "B")]


def clean(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]


if __name__ == "__main__":
    sys.exit(main())
