"""Two studies at once, and resumptions while a study runs: each run directory has exactly one owner.

    python benchmarks/faults/owners.py [--rounds 5] [--seed 0] [--model build/models/cnn]

A round: two `servestorm run` begin at the same moment with the same --out; `run --resume` and `report` come while the
first of them runs; it is killed with SIGKILL, and two `run --resume` come at once. Who is refused must name the owner's
pid, and the files of finished runs must not change.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from answering import Listener, RightAnswers, answers_rightly
from figures import ROOT, Figure, table
from small_studies import ENDED, StudyProcess, changed_files, finished_files, state_of, write_plan

REPETITIONS = 4
USAGE = 2
LATEST_S = 15.0


@dataclass
class Seen:
    """What all rounds showed."""

    refused: int = 0
    not_refused: list[str] = field(default_factory=list)
    """Commands that should have been refused with the owner's pid."""
    owners: list[str] = field(default_factory=list)
    """Where not exactly one of two resumptions went on."""
    shared: list[str] = field(default_factory=list)
    """Where two studies had one directory, or one of them none."""
    files: int = 0
    changed: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    unended: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    options = parser.parse_args()
    figures = run(options.rounds, options.seed, options.model)
    print(table("studies", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run(rounds: int, seed: int, model: Path) -> list[Figure]:
    """So many rounds; the figures."""
    moments, seen = random.Random(seed), Seen()
    with Listener(answers_rightly, RightAnswers(model)) as server:
        for place in range(rounds):
            with tempfile.TemporaryDirectory(prefix="faults-studies-") as name:
                folder = Path(name)
                write_plan(folder / "plan.yaml", model, server.port, REPETITIONS)
                _round(f"round {place + 1}", folder, moments, seen)
    faults = (*seen.not_refused, *seen.owners, *seen.shared, *seen.changed, *seen.tracebacks, *seen.unended)
    return [
        Figure("rounds", rounds),
        Figure("commands refused with the owner's pid", seen.refused),
        Figure("commands not refused so", len(seen.not_refused), 0),
        Figure("pairs of resumptions without exactly one owner", len(seen.owners), 0),
        Figure("pairs of studies without a directory each", len(seen.shared), 0),
        Figure("files of runs that were finished at a kill", seen.files),
        Figure("of these changed or lost", len(seen.changed), 0),
        Figure("studies that did not come to their end", len(seen.unended), 0),
        Figure("tracebacks", len(seen.tracebacks), 0),
        *(Figure(f"detail: {text}", "") for text in faults),
    ]


def _round(what: str, folder: Path, moments: random.Random, seen: Seen) -> None:
    runs = folder / "runs"
    studies = [StudyProcess(["run", "plan.yaml"], folder, name) for name in ("first", "second")]
    paths = [study.new_run(runs, set()) for study in studies]
    first, run = studies[0], paths[0]
    if run is None or None in paths or len(set(paths)) != len(paths):
        seen.shared.append(f"{what}: {paths}")
        for study in studies:
            study.process.kill()
            study.process.wait()
        return
    time.sleep(moments.uniform(0, LATEST_S))
    if first.process.poll() is None:
        _intrude(what, run, first, folder, seen)
    finished = finished_files(run)
    first.process.kill()
    first.process.wait()
    seen.files += len(finished)
    if state_of(run) == "running":
        _resume_twice(what, run, folder, seen)
    _note_changes(what, finished, run, seen)
    _note_end(f"{what}, the other study", studies[1], paths[1], seen)


def _intrude(what: str, run: Path, owner: StudyProcess, folder: Path, seen: Seen) -> None:
    """Resume and report a run that another process owns."""
    commands = [["run", "--resume", str(run)], ["report", str(run)]]
    intruders = [StudyProcess(command, folder, command[0]) for command in commands]
    codes = [intruder.end() for intruder in intruders]
    if owner.process.poll() is not None:  # it came to its end meanwhile
        return
    for code, intruder, command in zip(codes, intruders, commands, strict=True):
        _note_refusal(f"{what}, {' '.join(command[:-1])}", code, intruder, owner, seen)


def _resume_twice(what: str, run: Path, folder: Path, seen: Seen) -> None:
    """Two commands go on with a killed study at once: one must, and the other must be refused."""
    pair = [StudyProcess(["run", "--resume", str(run)], folder, f"resumed-{n}") for n in range(2)]
    codes = [each.end() for each in pair]
    winners = [each for each, code in zip(pair, codes, strict=True) if code in ENDED]
    if len(winners) != 1:
        last = [each.output().strip().splitlines()[-1:] for each in pair]
        seen.owners.append(f"{what}: codes {codes}: {last}")
        return
    loser = pair[1 - pair.index(winners[0])]
    _note_refusal(f"{what}, second resumption", codes[pair.index(loser)], loser, winners[0], seen)
    if state_of(run) != "complete":
        seen.unended.append(f"{what}: {state_of(run)}")


def _note_refusal(what: str, code: int | None, refused: StudyProcess, owner: StudyProcess, seen: Seen) -> None:
    text = refused.output()
    if "Traceback" in text:
        seen.tracebacks.append(f"{what}: {text.strip()[-300:]}")
    if code == USAGE and f"process {owner.process.pid}" in text:
        seen.refused += 1
    else:
        seen.not_refused.append(f"{what}: code {code}: {text.strip().splitlines()[-1:]}")


def _note_changes(what: str, finished: dict[Path, str], run: Path, seen: Seen) -> None:
    seen.changed += [f"{what}: {file}" for file in changed_files(finished, run)]


def _note_end(what: str, study: StudyProcess, run: Path | None, seen: Seen) -> None:
    code = study.end()
    if "Traceback" in study.output():
        seen.tracebacks.append(f"{what}: {study.output().strip()[-300:]}")
    if code not in ENDED or run is None or state_of(run) != "complete":
        seen.unended.append(f"{what}: code {code}: {study.output().strip().splitlines()[-1:]}")


if __name__ == "__main__":
    sys.exit(main())
