"""A disk that becomes full at random moments of a study and of a load: exit code 3, one message, nothing changed.

    python benchmarks/faults/disks.py [--fills 12] [--seed 0] [--model build/models/cnn]

The run directory lies on a tmpfs of 8 MiB, which is filled to its last byte. Two of three fills come in a study, the
third in a load of `servestorm load --out`. Then space is freed, and the study is resumed to its end.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from answering import Listener, RightAnswers, answers_rightly
from figures import ROOT, Figure, table
from loads import REFUSED, Offer, RunningLoad, target
from small_studies import (
    ENDED,
    StudyProcess,
    changed_files,
    finished_files,
    sentences,
    state_of,
    write_plan,
)

REPETITIONS = 3
LATEST_S = 20.0
"""The study takes about so long; a fill comes until then."""
OFFER = Offer(rate=100, duration_s=4.0, timeout_s=1.0)
SIZE = "8m"
NO_SPACE = ("no space left", "No space left")


@dataclass
class Fills:
    """What all fills did."""

    done: int = 0
    ended_before: int = 0
    codes: list[str] = field(default_factory=list)
    """Exit codes other than 3."""
    messages: list[str] = field(default_factory=list)
    """Where it was not one message that names the disk."""
    tracebacks: list[str] = field(default_factory=list)
    files: int = 0
    changed: list[str] = field(default_factory=list)
    resumed: int = 0
    unended: list[str] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    options = parser.parse_args()
    figures = run(options.fills, options.seed, options.model)
    print(table("disks", figures))
    return 1 if any(figure.missed for figure in figures) else 0


def run(fills: int, seed: int, model: Path) -> list[Figure]:
    """Fill the disk so often; the figures, or why there are none."""
    if reason := _no_mounts():
        return [Figure(f"skipped: a tmpfs cannot be mounted here ({reason})", "")]
    moments, found = random.Random(seed), Fills()
    with Listener(answers_rightly, RightAnswers(model)) as server:
        for place in range(fills):
            with tempfile.TemporaryDirectory(prefix="faults-disks-") as name:
                folder = Path(name)
                with small_disk(folder / "disk") as disk:
                    if place % 3 == 2:
                        _fill_load(disk, folder, model, server.port, moments, found)
                    else:
                        _fill_study(disk, folder, model, server.port, moments, found)
    return _figures(fills, found)


def _figures(fills: int, found: Fills) -> list[Figure]:
    faults = (*found.codes, *found.messages, *found.tracebacks, *found.changed, *found.unended)
    return [
        Figure("disks filled", fills),
        Figure("commands that had ended before", found.ended_before),
        Figure("exit codes other than 3", len(found.codes), 0),
        Figure("commands without one message that names the disk", len(found.messages), 0),
        Figure("tracebacks", len(found.tracebacks), 0),
        Figure("files that were finished at a fill", found.files),
        Figure("of these changed or lost", len(found.changed), 0),
        Figure("studies resumed with space", found.resumed),
        Figure("of these not brought to their end", len(found.unended), 0),
        *(Figure(f"detail: {text}", "") for text in faults),
    ]


def _no_mounts() -> str:
    """Why no tmpfs can be mounted; '' where it can."""
    with tempfile.TemporaryDirectory(prefix="faults-disks-") as name:
        try:
            with small_disk(Path(name) / "disk"):
                return ""
        except (OSError, subprocess.CalledProcessError) as error:
            return str(getattr(error, "stderr", "") or error).strip()


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A tmpfs at `path` while the block runs. Raises CalledProcessError where it cannot be mounted."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)]
    subprocess.run(mount, check=True, capture_output=True, text=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Write until there is no byte left; the file that takes them."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return filler


def _fill_study(disk: Path, folder: Path, model: Path, port: int, moments: random.Random, found: Fills) -> None:
    write_plan(folder / "plan.yaml", model, port, REPETITIONS)
    study = StudyProcess(["run", "plan.yaml", "--out", str(disk / "runs")], folder)
    after_s = _wait(study.process, moments.uniform(0.5, LATEST_S))
    runs = list((disk / "runs").glob("*"))
    before = finished_files(runs[0]) if runs else {}
    filler, ended = fill(disk), study.process.poll()
    code = study.end()
    what = f"study, full after {after_s:.1f} s"
    _judge(what, ended, code, study.output(), sentences(study.output()), found)
    found.files += len(before)
    found.changed += [f"{what}: {file}" for file in (changed_files(before, runs[0]) if before else ())]
    filler.unlink()
    if code == REFUSED and runs and (runs[0] / "study.json").is_file():
        _resume(what, runs[0], before, folder, found)


def _resume(what: str, run: Path, before: dict[Path, str], folder: Path, found: Fills) -> None:
    resumed = StudyProcess(["run", "--resume", str(run)], folder, "resumed")
    code = resumed.end()
    found.resumed += 1
    found.changed += [f"{what}, resumed: {file}" for file in changed_files(before, run)]
    if code not in ENDED or state_of(run) != "complete":
        last = resumed.output().strip().splitlines()[-1:]
        found.unended.append(f"{what}, resumed: code {code}, {state_of(run)}: {last}")


def _fill_load(disk: Path, folder: Path, model: Path, port: int, moments: random.Random, found: Fills) -> None:
    out = disk / "out"
    load = RunningLoad([*target(model, port), *OFFER.options(out)], folder)
    while load.process.poll() is None and not list(out.glob("samples.parts/*.parquet")):
        time.sleep(0.01)
    after_s = _wait(load.process, moments.uniform(0, OFFER.duration_s - 1))
    before = _checksums(out)
    fill(disk)
    ended, after_end = load.process.poll(), load.end(out)
    what = f"load, full {after_s:.1f} s after its first part"
    lines = [line for line in after_end.text.splitlines() if "ERROR" in line]
    _judge(what, ended, after_end.code, after_end.text, lines, found)
    found.files += len(before)
    if ended is None:
        after = _checksums(out)
        found.changed += [f"{what}: {file}" for file, checksum in before.items() if after.get(file) != checksum]


def _checksums(out: Path) -> dict[str, str]:
    """The parts that lie on the disk whole."""
    return {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in out.glob("samples.parts/*.parquet")}


def _wait(process: subprocess.Popen[bytes], after_s: float) -> float:
    """Wait so long, or until the end of the process; the seconds that passed."""
    begun_s = time.monotonic()
    while time.monotonic() - begun_s < after_s and process.poll() is None:
        time.sleep(0.01)
    return time.monotonic() - begun_s


def _judge(what: str, ended: int | None, code: int | None, text: str, lines: list[str], found: Fills) -> None:
    found.done += 1
    if "Traceback" in text or "Exception ignored" in text:
        found.tracebacks.append(f"{what}: {' / '.join(text.strip().splitlines()[-3:])[:300]}")
    if ended is not None:
        found.ended_before += 1
        return
    if code != REFUSED:
        found.codes.append(f"{what}: code {code}: {' / '.join(text.strip().splitlines()[-2:])[:300]}")
    if len(lines) != 1 or not any(words in lines[0] for words in NO_SPACE):
        found.messages.append(f"{what}: {lines}")


if __name__ == "__main__":
    sys.exit(main())
