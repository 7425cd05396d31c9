"""`kill -9` of a study at random moments: what is left of its servers, and what becomes of its runs.

    python benchmarks/faults/kills.py [--kills 20] [--seed 0] [--model build/models/cnn]

Both real servers on loopback. One study is killed, resumed, killed again, and so on; where it comes to its end before,
another one begins. A kill comes 0 to 30 s after the command: while it imports, starts servers, or loads them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from figures import ROOT, SERVESTORM, Figure, command_of, family, living, table, tag_of, tagged

LATEST_S = 30.0
GONE_S = 10.0
"""So long after the kill, what is left is counted."""
ENGINES = 2

PLAN = """\
name: kills
model: {{name: cnn, path: {model}}}
engines: [savedmodel, torchserve]
repetitions: 3
cold_starts: 2
steady: {{rate_per_s: 40, duration_s: 4, warmup_s: 1}}
bursty: {{base_rate: 20, peak_rate: 40, on_s: 1, off_s: 1, duration_s: 4, warmup_s: 1}}
disturbance: ignored
"""


@dataclass
class Found:
    """What all kills left."""

    left: int = 0
    commands: list[str] = field(default_factory=list)
    """Of what was left."""
    slowest_s: float = 0.0
    kept: int = 0
    changed: list[str] = field(default_factory=list)
    resumed: int = 0
    refused: list[str] = field(default_factory=list)
    """Why a resumed study did not go on."""
    tracebacks: int = 0
    ended: int = 0
    """Studies that came to their end after their kills."""
    unended: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    options = parser.parse_args()
    figures = run(options.kills, options.seed, options.model)
    print(table("kill -9 of a study", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run(kills: int, seed: int, model: Path) -> list[Figure]:
    """Kill so often; the figures."""
    moments, found = random.Random(seed), Found()
    with tempfile.TemporaryDirectory(prefix="faults-kills-") as folder:
        work = Path(folder)
        (work / "plan.yaml").write_text(PLAN.format(model=model.resolve()))
        done = 0
        while done < kills:
            done += _one_study(work, moments, kills - done, found)
    return [
        Figure("kills", kills),
        Figure("processes left 10 s after a kill, grandchildren too", found.left, 0),
        Figure("longest time until all had ended, s", f"{found.slowest_s:.2f}", GONE_S),
        Figure("resumed", found.resumed),
        Figure("finished runs, summed over the kills of a resumed study", found.kept),
        Figure("files of finished runs changed or lost", len(found.changed), 0),
        Figure("studies resumed to their end", found.ended),
        Figure("studies that did not come to their end", len(found.unended), 0),
        Figure("resumptions refused", len(found.refused), 0),
        Figure("tracebacks", found.tracebacks, 0),
        *(Figure(f"detail: {text}", "") for text in (*found.commands, *found.changed, *found.refused, *found.unended)),
    ]


def _one_study(work: Path, moments: random.Random, kills: int, found: Found) -> int:
    """A study that is killed and resumed until the kills are spent, or it ends; the number of kills."""
    done = 0
    run: Path | None = None
    while done < kills:
        before = set((work / "runs").glob("*"))
        killed, code = _kill_one(work, run, moments.uniform(0, LATEST_S), found)
        new = sorted(set((work / "runs").glob("*")) - before)
        if not killed:
            _note_end(run or new[0], code, found)
            return done
        done += 1
        if run is None and new and (new[0] / "study.json").is_file():
            run = new[0]
    if run:
        log = work / "log"
        with log.open("wb") as output:
            code = subprocess.run(
                [str(SERVESTORM), "run", "--resume", str(run)], cwd=work, stdout=output, stderr=output, check=False
            ).returncode
        found.tracebacks += "Traceback" in log.read_text(errors="replace")
        _note_end(run, code, found)
    return done


def _kill_one(work: Path, run: Path | None, after_s: float, found: Found) -> tuple[bool, int]:
    """Start or resume, and kill; whether it was killed before its end, and its exit code."""
    command = [str(SERVESTORM), "run", *(["--resume", str(run)] if run else ["plan.yaml"])]
    kept = dict(_finished(run)) if run else {}
    log = work / "log"
    with log.open("wb") as output:
        study = psutil.Popen(command, cwd=work, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        tag = tag_of(study)
        end_s = time.monotonic() + after_s
        while time.monotonic() < end_s and study.poll() is None:
            time.sleep(0.01)
        ended, started = study.poll(), family(study)
        study.kill()
        killed_s = time.monotonic()
        study.wait()
    text = log.read_text(errors="replace")
    found.tracebacks += "Traceback" in text
    if run:
        found.resumed += 1
        if ended not in (None, 0, 4):
            found.refused.append(f"code {ended}: {text.strip().splitlines()[-1:]}")
    left = _left(started, tag, killed_s, found)
    found.left += len(left)
    found.commands += [command_of(process) for process in left]
    for process in left:
        process.kill()
    if run:
        after = dict(_finished(run))
        lost = [str(file) for file, content in kept.items() if after.get(file) != content]
        found.changed += lost
        found.kept += len({file.parent for file in after})
    return ended is None, ended or 0


def _left(started: list[psutil.Process], tag: str, killed_s: float, found: Found) -> list[psutil.Process]:
    """What runs GONE_S after the kill; returns as soon as nothing does."""
    while True:
        left = living([*started, *(process for process in tagged(tag) if process not in started)])
        passed_s = time.monotonic() - killed_s
        if not left or passed_s > GONE_S:
            found.slowest_s = max(found.slowest_s, passed_s)
            return left
        time.sleep(0.05)


def _finished(run: Path) -> Iterator[tuple[Path, str]]:
    """Every file of the runs that are complete, with its checksum.

    Engines that take turns are complete together: a load of one alone is offered to both again.
    """
    loads: dict[object, list[Path]] = {}
    for outcome in run.glob("cells/*/outcome.json"):
        if json.loads(outcome.read_text())["state"] == "complete":
            cell = json.loads((outcome.parent / "cell.json").read_text())
            in_turns = cell["scenario"] in ("steady", "bursty")
            load = (cell["scenario"], cell["repetition"]) if in_turns else cell["id"]
            loads.setdefault(load, []).append(outcome.parent)
    for load, folders in loads.items():
        for folder in folders if isinstance(load, str) or len(folders) == ENGINES else ():
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    yield file, hashlib.sha256(file.read_bytes()).hexdigest()


def _note_end(run: Path, code: int, found: Found) -> None:
    study = json.loads((run / "study.json").read_text())
    complete = {file.parent.name for file, _ in _finished(run)}
    if study["state"] == "complete" and complete == set(study["cells"]) and code in (0, 4):
        found.ended += 1
    else:
        found.unended.append(f"code {code}, {study['state']}, {len(complete)} of {len(study['cells'])} runs")


if __name__ == "__main__":
    sys.exit(main())
