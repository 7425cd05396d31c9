"""Does an engine beat itself? Real studies of one engine against itself: any verdict of A or B is false.

    python benchmarks/calibration/same_engine.py [--studies 20] [--engine savedmodel --engine torchserve]

In every round two servers of the engine stand at once and are loaded in turns, as two engines are in a study. Rounds,
slices, figures and verdicts are the product's own. A study of 3 rounds takes about 75 s. Every study is a line of the
raw table (--raw), and the next call continues it: `--studies 20` runs what is missing to 20 studies of each engine.
`relabel.py` takes the raw table for many relabellings. Ends with 1 where more than one study in eight has a false
verdict.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(HERE), str(Path(__file__).resolve().parent)]

from two_sides import RAW, append, carried_out, line, plan_text, rows_of  # noqa: E402

MOST_FALSE = 5 / 40


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20, help="of each engine, with those before (default: 20)")
    parser.add_argument("--engine", action="append", help="default: savedmodel and torchserve")
    parser.add_argument("--rounds", type=int, default=3, help="of each study (default: 3)")
    parser.add_argument("--slices", type=int, default=2, help="of 2 s of each side in a round (default: 2)")
    parser.add_argument("--rate", type=float, default=70, help="requests a second (default: 70)")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds of load before the slices (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("build/calibration"), help="for the run directories")
    parser.add_argument("--raw", type=Path, default=RAW / "same_engine.jsonl", help="raw table, continued")
    options = parser.parse_args()
    print(f"| engine | study | question | rounds | ratio | 95 % interval | verdict |\n|{' --- |' * 7}", flush=True)
    for engine, study in missing(options):
        text = plan_text(
            f"same-{engine}-{study}", engine, study, options.rounds, options.slices, options.rate, options.warm_up
        )
        row = {"engine": engine, "study": study, **carried_out(text, options.out)}
        append(options.raw, row)
        print(line(row, engine, study), flush=True)
        print(totals(rows_of(options.raw)), file=sys.stderr, flush=True)
    rows = rows_of(options.raw)
    print(f"\n{totals(rows)}")
    return 1 if len(false(rows)) > MOST_FALSE * len(rows) else 0


def missing(options: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """The studies that are not in the raw table, engines in turn."""
    there = {(row["engine"], row["study"]) for row in rows_of(options.raw)}
    for study in range(1, options.studies + 1):
        for engine in options.engine or ["savedmodel", "torchserve"]:
            if (engine, study) not in there:
                yield engine, study


def false(rows: list[dict]) -> list[dict]:
    return [row for row in rows if any(one["outcome"] in ("A", "B") for one in row["verdicts"].values())]


def totals(rows: list[dict]) -> str:
    seconds = sum(row["seconds"] for row in rows) / max(1, len(rows))
    return f"{len(false(rows))} of {len(rows)} studies have a false verdict; {seconds:.0f} s a study."


if __name__ == "__main__":
    sys.exit(main())
