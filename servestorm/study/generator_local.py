"""The load generator as a subprocess: `import locust` patches the whole process, so it never happens in ours."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import loadtests
from models.manifest import MANIFEST_NAME
from servestorm.errors import StudyError
from servestorm.rundir.files import GENERATOR_COMMAND, GENERATOR_LOG, SUMMARY, TURNS, write_json
from servestorm.study.child_processes import start_child, stop_child
from servestorm.study.cores import pinned
from servestorm.study.load import GeneratorError, LateStart, LoadOrder, address_options
from serving.deployment import Deployment
from serving.errors import DeploymentError

VALID_EXIT, USAGE_EXIT, ENVIRONMENT_EXIT, INVALID_EXIT = 0, 2, 3, 4
START_OPTION = "--start-at-ns"


@dataclass(frozen=True)
class LocalGenerator:
    """The generator as a subprocess; tests put a program of their own here."""

    python: tuple[str, ...] = (sys.executable, "-m", "locust", "-f")
    folder: Path = Path(loadtests.__file__).parent
    follows: bool = False
    """Whether it follows the endpoints that the deployment lists in a file, for replicas come and go."""

    def offer(self, order: LoadOrder) -> None:
        """See LoadSource."""
        command = [
            *self.python,
            str(self.folder / order.command.file),
            "--headless",
            *self._addresses(order.deployment),
            *order.request_options(),
            "--manifest",
            str(order.model.path / MANIFEST_NAME),
            "--out",
            str(order.out),
            *order.command.options,
            *_turn_options(order),
        ]
        write_json(order.out / GENERATOR_COMMAND, command)
        run_to_end(
            command,
            out=order.out,
            cores=order.cores,
            limit_s=order.limit_s,
            deployment=order.deployment,
            cancelled=order.cancelled,
        )

    def _addresses(self, deployment: Deployment) -> list[str]:
        listed = deployment.front_file if self.follows else None
        return address_options(deployment.front) if listed is None else ["--endpoints-file", str(listed)]


def _turn_options(order: LoadOrder) -> list[str]:
    """Options for a load that comes in turns, which are written into a file; none for any other load."""
    if not order.command.turns:
        return []
    write_json(order.out / TURNS, {"turns": [asdict(turn) for turn in order.command.turns]})
    return ["--turns", str(order.out / TURNS), START_OPTION, str(order.start_at_ns)]


def run_to_end(
    command: Sequence[str],
    *,
    out: Path,
    cores: tuple[int, ...],
    limit_s: float,
    deployment: Deployment,
    cancelled: threading.Event,
) -> None:
    """Run the generator to its end; its files lie in `out` then.

    Raises GeneratorError where it gives no summary in time or was cancelled, StudyError where it refuses our options,
    and DeploymentError where a server dies meanwhile.
    """
    with pinned(cores):
        process = start_child(command, log=out / GENERATOR_LOG, cwd=out)
    try:
        code = _wait(process, deployment, limit_s, cancelled)
    finally:
        stop_child(process)
    require_summary(code, out)


def require_summary(code: int, out: Path) -> None:
    """Raise StudyError or GeneratorError, as `offer` does, where a generator that ended with `code` left no summary."""
    log = out / GENERATOR_LOG
    if code in (VALID_EXIT, INVALID_EXIT) and (out / SUMMARY).is_file():
        return
    last = last_line(log)
    if code == USAGE_EXIT:
        raise StudyError(f"the load generator refuses its options: {last}")
    if code == ENVIRONMENT_EXIT and START_OPTION in last:
        raise LateStart(last)
    raise GeneratorError(f"the load generator ended with code {code} and without a summary: {last} (see {log})")


def _wait(process: subprocess.Popen[bytes], deployment: Deployment, limit_s: float, cancelled: threading.Event) -> int:
    end = time.monotonic() + limit_s
    while True:
        try:
            return process.wait(timeout=0.25)
        except subprocess.TimeoutExpired:
            pass
        if cancelled.is_set():
            raise GeneratorError("the load generator was ended: the rest of its round failed.")
        require_alive(deployment)
        if time.monotonic() > end:
            raise GeneratorError(still_busy(limit_s))


def require_alive(deployment: Deployment) -> None:
    """Raise DeploymentError where a server died under load."""
    if not deployment.alive():
        raise DeploymentError(f"a server died under load; its last lines: {deployment.logs(8)}")


def still_busy(limit_s: float) -> str:
    """The sentence for a generator that does not end."""
    return f"the load generator was still busy after {limit_s:.0f} s and was ended."


def last_line(path: Path) -> str:
    """The last line that is not empty, for an error's sentence."""
    try:
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1] if lines else "it wrote nothing"
