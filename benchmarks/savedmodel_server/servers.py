"""The servers under comparison, each started on one core with the same model and the same thread budget."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
from serving.engines.tensorflow_settings import GRPC_THREADS  # noqa: E402

PEERS = ROOT / "build" / "peers"
PEER_PACKAGES = HERE / "peers.txt"
READY_S = 180
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1", "PYTHONPATH": str(ROOT),
}  # fmt: skip
BATCHING = (
    "max_batch_size { value: 32 } batch_timeout_micros { value: 0 } num_batch_threads { value: 1 } "
    "max_enqueued_batches { value: 1000 }"
)


@dataclass(frozen=True)
class Contender:
    """A server and the client kind that speaks to it."""

    name: str
    kind: str
    is_peer: bool

    def client(self, port: int, model: Path, in_flight: int, seconds: float, cpu: int, count: int = 0) -> Any:
        """Run the client; its figures."""
        command = [sys.executable, str(HERE / "client.py"), self.kind, str(port), str(model), str(in_flight)]
        command += [str(seconds), str(cpu), *([str(count)] if count else [])]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        return json.loads(done.stdout)


SERVERS = [
    Contender("REST", "rest", False),
    Contender("gRPC", "grpc", False),
    Contender("LitServe", "litserve", True),
    Contender("BentoML", "bentoml", True),
]


def make_peers() -> Path:
    """The peers' own virtual environment, which borrows tensorflow from ours; returns its python."""
    python = PEERS / "bin" / "python"
    mark = PEERS / ".installed"
    if mark.exists() and mark.read_text() == PEER_PACKAGES.read_text():
        return python
    print(f"installing LitServe and BentoML into {PEERS}", file=sys.stderr)
    venv.create(PEERS, with_pip=True, clear=True)
    install = [python, "-m", "pip", "install", "--quiet", "--prefer-binary", "--no-deps", "--require-hashes"]
    subprocess.run([*install, "-r", PEER_PACKAGES], check=True)
    ours = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    theirs = next(PEERS.glob("lib/python*/site-packages"))
    (theirs / "zz_borrowed.pth").write_text(f"{ours}\n")
    mark.write_text(PEER_PACKAGES.read_text())
    return python


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command_of(contender: Contender, model: Path, port: int, batching: bool) -> tuple[list[str], int]:
    """What starts it, and the port that tells readiness over HTTP."""
    if contender.kind in ("rest", "grpc"):
        rest = port if contender.kind == "rest" else free_port()
        rpc = port if contender.kind == "grpc" else 0
        flags = ["--model_name=cnn", f"--model_base_path={model}", f"--rest_api_port={rest}", f"--port={rpc}"]
        flags += ["--tensorflow_intra_op_parallelism=1", "--tensorflow_inter_op_parallelism=1"]
        flags.append(f"--grpc_max_threads={GRPC_THREADS}")
        if batching:
            parameters = ROOT / "build" / "batching.txt"
            parameters.write_text(BATCHING)
            flags += ["--enable_batching", f"--batching_parameters_file={parameters}"]
        return [sys.executable, "-m", "serving.savedmodel_server", *flags], rest
    python = str(PEERS / "bin" / "python")
    if contender.kind == "litserve":
        return [python, str(HERE / "litserve_server.py"), str(model / "1"), str(port)], port
    serve = ["-m", "bentoml", "serve", "bentoml_service:Classifier", "--host", "127.0.0.1", "--port", str(port)]
    return [python, *serve, "--working-dir", str(HERE)], port


@contextlib.contextmanager
def running(contender: Contender, model: Path, cpu: int, *, batching: bool) -> Iterator[int]:
    """The server, up and warm, on one core; yields the port for the client."""
    with started(contender, model, cpu, batching=batching) as (port, _):
        yield port


@contextlib.contextmanager
def started(
    contender: Contender, model: Path, cpu: int, *, batching: bool, tree: Path | None = None
) -> Iterator[tuple[int, int]]:
    """The same of the build in `tree` (this one if None), whose own `.venv` runs it; yields port and process id."""
    port = free_port()
    command, http_port = command_of(contender, model, port, batching)
    if tree:
        command[0] = str(tree / ".venv" / "bin" / "python")
    log = ROOT / "build" / f"benchmark-{contender.kind}.log"
    environment = {**os.environ, **ENVIRONMENT, "MODEL": str(model / "1"), "PYTHONPATH": str(tree or ROOT)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["taskset", "-c", str(cpu), *command],
            cwd=tree,
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
    try:
        _wait(process, f"http://127.0.0.1:{http_port}{_READY[contender.kind]}", log)
        yield port, process.pid
    finally:
        _end(process)


_READY = {"rest": "/v1/models/cnn", "grpc": "/v1/models/cnn", "litserve": "/health", "bentoml": "/readyz"}


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"{url} did not become ready; {log} ends with:\n{log.read_text(errors='replace')[-1500:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the server and every process that it started (its session is its own)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
