"""Small studies of the campaign: of an endpoint that runs already, so that a study takes seconds."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from commands import RunningCommand

PLAN = """\
name: small
model: {{name: cnn, path: {model}}}
engines: [savedmodel]
backend: attach
attach: {{savedmodel: {{rest: "http://127.0.0.1:{port}"}}}}
repetitions: {repetitions}
steady: {{rate_per_s: 50, duration_s: 2, warmup_s: 0.5}}
disturbance: ignored
"""
HANGS_S = 180.0
ENDED = (0, 4)
"""Exit codes of a study that came to its end: this machine may make its runs INVALID."""


def write_plan(path: Path, model: Path, port: int, repetitions: int) -> None:
    """A plan of steady load on the endpoint at that port."""
    path.write_text(PLAN.format(model=model.resolve(), port=port, repetitions=repetitions))


class StudyProcess(RunningCommand):
    """`servestorm ARGUMENT...`, of studies and of what disturbs them."""

    def __init__(
        self, arguments: Sequence[str], folder: Path, name: str = "study", env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(arguments, folder, name, env)

    def end(self) -> int | None:
        """Its exit code; None where it hung, and was killed."""
        return self.code_within(HANGS_S)

    def new_run(self, runs: Path, before: set[Path]) -> Path | None:
        """The run directory that it made, once its study.json lies there; None where it ends before."""
        while self.process.poll() is None:
            for run in sorted(set(runs.glob("*")) - before):
                if (run / "study.json").is_file() and _owner(run) == self.process.pid:
                    return run
            time.sleep(0.02)
        return None


def _owner(run: Path) -> int:
    try:
        return int((run / ".owner").read_text().split()[0])
    except (OSError, IndexError):
        return -1


def finished_files(run: Path) -> dict[Path, str]:
    """Every file of the runs that are complete, with its checksum."""
    return {
        file: hashlib.sha256(file.read_bytes()).hexdigest()
        for outcome in run.glob("cells/*/outcome.json")
        if json.loads(outcome.read_text())["state"] == "complete"
        for file in sorted(outcome.parent.rglob("*"))
        if file.is_file()
    }


def changed_files(before: Mapping[Path, str], run: Path) -> list[str]:
    """Those of `before` that are no longer what they were."""
    after = finished_files(run)
    return [str(file.relative_to(run)) for file, checksum in before.items() if after.get(file) != checksum]


def state_of(run: Path) -> str:
    """Of a study, as its run directory says it."""
    return str(json.loads((run / "study.json").read_text())["state"])


def sentences(output: str) -> list[str]:
    """What servestorm said of an error: its lines on stderr, without the one that says how to go on."""
    lines = [line for line in output.splitlines() if line.startswith("servestorm: ")]
    return [line for line in lines if "goes on with it" not in line]
