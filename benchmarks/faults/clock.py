"""Loads and a study while the wall clock steps by an hour, back and forth: latencies and durations do not notice.

    python benchmarks/faults/clock.py [--loads 12] [--seed 0] [--model build/models/cnn]

The machine's clock is left alone: `stepping_clock/sitecustomize.py` shifts what the processes read of it, every 0.3 to
2 s. Every third load is one of a master and two workers, of which each has a clock of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from answering import Listener, RightAnswers, answers_rightly
from figures import ROOT, Figure, table
from loads import EndedLoad, LoadTally, Offer, RunningLoad, target
from small_studies import ENDED, StudyProcess, finished_files, state_of, write_plan
from workers import WORKERS, Cluster

OFFER = Offer(rate=100, duration_s=4.0, timeout_s=5.0)
CLOCK = Path(__file__).parent / "stepping_clock"
SAME_S = 0.05
REPETITIONS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    options = parser.parse_args()
    figures = run(options.loads, options.seed, options.model)
    print(table("clock", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run(loads: int, seed: int, model: Path) -> list[Figure]:
    """So many loads, and one study; the figures."""
    tally, wrong_durations, answered = LoadTally(), [], 0
    with Listener(answers_rightly, RightAnswers(model)) as server:
        options = target(model, server.port)
        for place in range(loads):
            load = _offer(options, place, seed)
            tally.take(f"load {place + 1}", load, OFFER)
            if load.summary is not None:
                answered += load.summary["ok"]
                if abs(load.summary["measured_s"] - OFFER.duration_s) > SAME_S:
                    wrong_durations.append(f"load {place + 1}: measured_s is {load.summary['measured_s']}")
        study_faults = _study(model, server.port, seed)
    return [
        *tally.figures(),
        Figure("arrivals without a right answer", loads * OFFER.arrivals - answered, 0),
        Figure("loads whose measured time is not what was asked for", len(wrong_durations), 0),
        Figure("studies that did not come to their end with all runs", len(study_faults), 0),
        *(Figure(f"detail: {text}", "") for text in (*wrong_durations, *study_faults)),
    ]


def _environment(seed: object) -> dict[str, str]:
    return {"PYTHONPATH": str(CLOCK), "FAULTS_CLOCK_SEED": str(seed)}


def _offer(options: list[str], place: int, seed: int) -> EndedLoad:
    with tempfile.TemporaryDirectory(prefix="faults-clock-") as name:
        folder = Path(name)
        out = folder / "out"
        own, clock = [*OFFER.options(out), *options], f"{seed}.{place}"
        if place % 3 != 2:
            return RunningLoad(own, folder, env=_environment(clock)).end(out)
        clocks = [_environment(f"{clock}.{process}") for process in range(WORKERS + 1)]
        return Cluster(own, out, folder, clocks).end()[0]


def _study(model: Path, port: int, seed: int) -> list[str]:
    """Carry one out; what is wrong with it."""
    with tempfile.TemporaryDirectory(prefix="faults-clock-") as name:
        folder = Path(name)
        write_plan(folder / "plan.yaml", model, port, REPETITIONS)
        study = StudyProcess(["run", "plan.yaml"], folder, env=_environment(seed))
        code = study.end()
        runs = sorted((folder / "runs").glob("*"))
        if code not in ENDED or len(runs) != 1 or state_of(runs[0]) != "complete":
            return [f"study: code {code}: {study.output().strip().splitlines()[-2:]}"]
        complete = Counter(file.name for file in finished_files(runs[0]))["outcome.json"]
        return [] if complete == REPETITIONS else [f"study: {complete} of {REPETITIONS} runs"]


if __name__ == "__main__":
    sys.exit(main())
