"""The load generator as a subprocess: `import locust` patches the whole process, so it never happens in ours."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import loadtests
from servestorm.cells import Cell
from servestorm.children import start_child, stop_child
from servestorm.cores import pinned
from servestorm.errors import StudyEnvironmentError, StudyError
from servestorm.plan import Plan
from serving.deployment import Deployment, Endpoint
from serving.errors import DeploymentError

VALID_EXIT, INVALID_EXIT = 0, 4


class GeneratorError(StudyEnvironmentError):
    """The load generator gave no summary: this cell has no result."""


@dataclass(frozen=True)
class Generator:
    """How the generator is started; tests put a program of their own here."""

    python: tuple[str, ...] = (sys.executable, "-m", "locust", "-f")
    folder: Path = Path(loadtests.__file__).parent

    def command(self, plan: Plan, cell: Cell, endpoints: Sequence[Endpoint], manifest: Path, out: Path) -> list[str]:
        """The command line for a cell's load."""
        file = self.folder / ("bursty.py" if cell.scenario == "bursty" else "steady.py")
        return [
            *self.python,
            str(file),
            "--headless",
            "--host",
            ",".join(endpoint.rest_url for endpoint in endpoints),
            "--grpc-target",
            ",".join(endpoint.grpc_target for endpoint in endpoints),
            "--engine",
            cell.engine,
            "--protocol",
            plan.protocol,
            "--model",
            plan.model.name,
            "--payload",
            plan.payload,
            "--images-per-request",
            str(plan.images_per_request),
            "--manifest",
            str(manifest),
            "--seed",
            str(cell.seed),
            "--out",
            str(out),
            *_load(plan, cell),
        ]


def _load(plan: Plan, cell: Cell) -> list[str]:
    """The options that say what load it is."""
    if cell.scenario == "steady" and plan.steady:
        return ["--rate", f"{plan.steady.rate_per_s:g}", *_times(plan.steady.duration_s, plan.steady.warmup_s)]
    if cell.scenario == "bursty" and (load := plan.bursty):
        rates = ["--rate", f"{load.base_rate:g}", "--peak-rate", f"{load.peak_rate:g}"]
        return [*rates, "--on", f"{load.on_s:g}", "--off", f"{load.off_s:g}", *_times(load.duration_s, load.warmup_s)]
    if cell.scenario == "scaling" and plan.scaling:
        times = _times(plan.scaling.duration_s, plan.scaling.warmup_s)
        return ["--closed-loop", str(plan.scaling.concurrency), *times]
    raise ValueError(f"{cell.scenario} has no load")


def _times(duration_s: float, warmup_s: float) -> list[str]:
    return ["--duration", f"{duration_s:g}", "--warmup", f"{warmup_s:g}"]


def length_s(plan: Plan, cell: Cell) -> float:
    """Seconds of load, warm-up included."""
    load = {"steady": plan.steady, "bursty": plan.bursty, "scaling": plan.scaling}[cell.scenario]
    return load.duration_s + load.warmup_s if load else 0.0


def drive(command: Sequence[str], *, out: Path, cores: tuple[int, ...], limit_s: float, deployment: Deployment) -> None:
    """Run the generator to its end; its files lie in `out` then.

    Raises GeneratorError where it gives no summary in time, StudyError where it refuses our options, and
    DeploymentError where a server dies meanwhile.
    """
    log = out / "generator.log"
    with pinned(cores):
        process = start_child(command, log=log, cwd=out)
    try:
        code = _wait(process, deployment, limit_s)
    finally:
        stop_child(process)
    if code in (VALID_EXIT, INVALID_EXIT) and (out / "summary.json").is_file():
        return
    last = last_line(log)
    if code == 2:
        raise StudyError(f"the load generator refuses its options: {last}")
    raise GeneratorError(f"the load generator ended with code {code} and without a summary: {last} (see {log})")


def _wait(process: subprocess.Popen[bytes], deployment: Deployment, limit_s: float) -> int:
    end = time.monotonic() + limit_s
    while True:
        try:
            return process.wait(timeout=0.25)
        except subprocess.TimeoutExpired:
            pass
        if not deployment.alive():
            raise DeploymentError(f"a server died under load; its last lines: {deployment.logs(8)}")
        if time.monotonic() > end:
            raise GeneratorError(f"the load generator was still busy after {limit_s:.0f} s and was ended.")


def last_line(path: Path) -> str:
    """The last line that says something, for an error's sentence."""
    try:
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1] if lines else "it wrote nothing"
