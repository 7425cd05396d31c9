"""The `torchserve` engine: TorchServe's Java front end and its Python worker.

The front end is started directly, not through the `torchserve` script: that daemonises, keeps one pid file a
temporary folder (a second server refuses to start), and would stand between us and the signals.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import orjson
import yaml

from models.manifest import ModelDir
from serving import extras
from serving.containers import CONFIG, MODELS, image
from serving.deployment import Batching, Budget, ContainerLaunch, Endpoint, Launch
from serving.engines import model_snapshot
from serving.engines.described_model import settings_of, workers_ready
from serving.engines.java import find_java
from serving.engines.java_files import LOG4J2, properties
from serving.errors import EngineUnavailable
from serving.orphans import scratch_folder
from serving.ports import HOST, free_ports, is_bound_at
from serving.probe import http_get
from serving.server_settings import OrderedSettings, RunningServer, ServerSettings

MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Largest request and reply; TorchServe's own 6.5 MB are less than 32 images of 224x224 as JSON numbers."""

_LONGEST_TMP = 85
"""Characters; the worker's socket lies in the temporary folder, and a socket's path ends at 107."""

_WORKER_PORT = 9000
"""Names the worker's socket; no such port is bound."""

_METRICS = "metrics.yaml"

HANDLER_COUNTERS = ("PreprocessTime", "InferenceTime", "PostprocessTime", "HandledRequests")
"""What models/artifacts/handler/handler.py counts: milliseconds, and requests."""

_MAIN_CLASS = "org.pytorch.serve.ModelServer"
_FATAL = (
    "Failed to load model|Error while registering model|InvalidSnapshotException|Backend worker process died|"
    "Load model failed"
)
"""A worker that cannot load its model is started again and again: the first death says why."""
IMAGE_METRICS = "/etc/servestorm/metrics.yaml"
"""In our image: TorchServe's own metrics and those of our handler."""


@dataclass(frozen=True)
class _Ports:
    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int

    def all(self) -> tuple[int, ...]:
        return (self.inference, self.management, self.metrics, self.grpc_inference, self.grpc_management)


_CONTAINER_PORTS = _Ports(8080, 8081, 8082, 7070, 7071)
"""Ports in a container, TorchServe's own."""


@dataclass(frozen=True)
class _Place:
    """Where a replica runs: its configuration beyond the study's own settings."""

    host: str
    """Address that it listens on."""
    ports: _Ports
    store: str
    """Folder of the archive."""
    workflows: str
    metrics: str
    """metrics.yaml."""


class TorchServeEngine:
    """Runs the installed TorchServe with one worker a replica."""

    name = "torchserve"
    artifact = "mar"

    @property
    def image(self) -> str:
        """Our own; see Engine."""
        return image(self.name)

    def check(self) -> str:
        """Versions of TorchServe and Java; see Engine."""
        _home()
        java = find_java()
        return f"TorchServe {importlib.metadata.version('torchserve')} (Java {java.version})"

    def launch(
        self,
        model: ModelDir,
        replica: int,
        budget: Budget,
        batching: Batching,
        workdir: Path,
        port: int | None,
    ) -> Launch:
        """Write config.properties, log4j2.xml and metrics.yaml, and return the command; see Engine."""
        first, *others = free_ports(5)
        ports = _Ports(port or first, *others)
        tmp, scratch = _temporary(workdir)
        config, logging = workdir / "config.properties", workdir / "log4j2.xml"
        (workdir / _METRICS).write_bytes(_metrics())
        store, workflows = str(_archive(model).parent), str(_made(workdir / "workflows"))
        place = _Place(HOST, ports, store, workflows, str(workdir / _METRICS))
        config.write_text(properties(_settings(model, budget, batching, place)), encoding="latin-1")
        logging.write_text(LOG4J2)
        return Launch(
            command=_command(budget, tmp, config, logging),
            env=_environment(budget, workdir, tmp, config),
            endpoint=_endpoint(replica, ports),
            workdir=workdir,
            ports=ports.all(),
            scratch=scratch,
            fatal=_FATAL,
            precursor=tmp / f".ts.sock.{_WORKER_PORT}",
        )

    def contain(self, model: ModelDir, budget: Budget, batching: Batching, config: Path) -> ContainerLaunch:
        """Container of our image, with a config.properties of the study in place of its own; see Engine."""
        ports, folder = _CONTAINER_PORTS, f"{MODELS}/{model.name}"
        # workflows are none, and the model's folder is there; the image brings its own metrics.yaml and log4j2.xml
        place = _Place("0.0.0.0", ports, folder, folder, IMAGE_METRICS)
        text = properties(_settings(model, budget, batching, place))
        (config / "config.properties").write_text(text, encoding="latin-1")
        return ContainerLaunch(
            command=[],
            env={
                **_threads(budget),
                "TS_CONFIG_FILE": f"{CONFIG}/config.properties",
                "JAVA_ACTIVE_PROCESSORS": str(_processors(budget)),
                "MODEL_NAME": model.name,
                "MODEL_BASE_PATH": MODELS,
            },
            config=config,
            rest_port=ports.inference,
            grpc_port=ports.grpc_inference,
            metrics_port=ports.metrics,
            metrics_path="/metrics",
            management_port=ports.management,
            fatal=_FATAL,
        )

    def ready(self, endpoint: Endpoint, model: ModelDir) -> bool:
        """True once every worker is READY and the gRPC port, bound last, is there; see Engine."""
        reply = http_get(f"{endpoint.management_url}{_description(model)}")
        if reply is None or reply[0] != 200:
            return False
        return workers_ready(reply[1]) and is_bound_at(endpoint.grpc_target)

    def ordered(self, budget: Budget, batching: Batching) -> OrderedSettings:
        """What config.properties and its snapshot say; see Engine."""
        return model_snapshot.ordered(budget, batching)

    def settings(self, server: RunningServer, model: ModelDir) -> ServerSettings:
        """What the management API says of the model; see Engine."""
        path = _description(model)
        return settings_of(server.manage(path), f"GET {path}")


def _home() -> Path:
    """The folder that holds the `ts` package, found without importing it."""
    spec = importlib.util.find_spec("ts")
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / "frontend").is_dir():
        raise EngineUnavailable(extras.sentence("torchserve", "engine torchserve", ["ts"]))
    extras.require("torchserve", "engine torchserve")
    return Path(spec.origin).resolve().parent.parent


def _temporary(workdir: Path) -> tuple[Path, tuple[Path, ...]]:
    """A temporary folder of the replica's own, and what of it lies outside `workdir`."""
    tmp = workdir / "tmp"
    if len(str(tmp)) > _LONGEST_TMP:
        tmp = scratch_folder()
        return tmp, (tmp,)
    tmp.mkdir(exist_ok=True)
    return tmp, ()


def _command(budget: Budget, tmp: Path, config: Path, logging: Path) -> list[str]:
    home = _home()
    return [
        find_java().path,
        f"-XX:ActiveProcessorCount={_processors(budget)}",
        "-XX:+ExitOnOutOfMemoryError",
        f"-Dmodel_server_home={home}",
        f"-Djava.io.tmpdir={tmp}",
        f"-Dlog4j.configurationFile={logging.as_uri()}",
        "-cp",
        str(home / "ts" / "frontend" / "*"),
        _MAIN_CLASS,
        *("--python", sys.executable),
        *("-f", str(config)),
        "-ncs",  # no snapshot of the configuration: it would be preferred at the next start
    ]


def _processors(budget: Budget) -> int:
    """Cores that Java is to see: those of the CPU set, or as many as the quota comes to."""
    return max(1, min(len(budget.cpus), math.ceil(budget.cpu_quota or len(budget.cpus))))


def _threads(budget: Budget) -> dict[str, str]:
    return {
        "OMP_NUM_THREADS": str(budget.threads),
        "MKL_NUM_THREADS": str(budget.threads),
        "SERVESTORM_WARMUP": str(int(budget.warmup)),  # our handler's; TorchServe itself has no warm-up
        "CUDA_VISIBLE_DEVICES": "",  # a budget holds CPUs: no engine may use a GPU that the other cannot
    }


def _environment(budget: Budget, workdir: Path, tmp: Path, config: Path) -> dict[str, str]:
    """Sets all that TorchServe prefers to its own configuration, so that the caller's does not leak in."""
    return {
        **_threads(budget),
        "TS_CONFIG_FILE": str(config),
        "TS_MODEL_SERVER_HOME": str(_home()),
        "LOG_LOCATION": str(workdir / "logs"),
        "METRICS_LOCATION": str(workdir / "logs"),
        "TMPDIR": str(tmp),
        "TEMP": str(tmp),
        "_JAVA_OPTIONS": "",  # these go over the command line, and so over the processors of the budget
    }


def _endpoint(replica: int, ports: _Ports) -> Endpoint:
    return Endpoint(
        replica=replica,
        rest_url=f"http://{HOST}:{ports.inference}",
        grpc_target=f"{HOST}:{ports.grpc_inference}",
        metrics_url=f"http://{HOST}:{ports.metrics}/metrics",
        management_url=f"http://{HOST}:{ports.management}",
    )


def _settings(model: ModelDir, budget: Budget, batching: Batching, place: _Place) -> dict[str, str | int]:
    """config.properties. Threads that only shuffle bytes follow the CPU set; one worker computes."""
    archive, ports = _archive(model), place.ports
    threads = _processors(budget)
    return {
        "inference_address": f"http://{place.host}:{ports.inference}",
        "management_address": f"http://{place.host}:{ports.management}",
        "metrics_address": f"http://{place.host}:{ports.metrics}",
        "grpc_inference_address": place.host,
        "grpc_management_address": place.host,
        "grpc_inference_port": ports.grpc_inference,
        "grpc_management_port": ports.grpc_management,
        # Only this machine reaches it, on the loopback interface or a container's own network: a token would guard
        # nothing.
        "disable_token_authorization": "true",
        "enable_envvars_config": "false",
        "install_py_dep_per_model": "false",
        "allowed_urls": "file://.*",
        "model_store": place.store,
        "workflow_store": place.workflows,
        "model_snapshot": model_snapshot.snapshot(model.name, archive, batching),
        "initial_worker_port": _WORKER_PORT,
        "number_of_gpu": 0,
        "number_of_netty_threads": threads,
        "netty_client_threads": threads,
        "use_native_io": "true",
        "job_queue_size": batching.queue_size,
        "max_request_size": MAX_MESSAGE_BYTES,
        "max_response_size": MAX_MESSAGE_BYTES,
        "metrics_mode": "prometheus",
        "metrics_config": place.metrics,
        # They start a Python process a minute inside the CPU budget, to report what the backend measures anyway.
        "disable_system_metrics": "true",
    }


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _metrics() -> bytes:
    """TorchServe's own metrics and those of our handler, which it would ignore otherwise; JSON is YAML too."""
    document = yaml.safe_load((_home() / "ts" / "configs" / "metrics.yaml").read_text(encoding="utf-8"))
    counters = document["model_metrics"].setdefault("counter", [])
    counters += [{"name": name, "unit": "count", "dimensions": ["ModelName", "Level"]} for name in HANDLER_COUNTERS]
    return orjson.dumps(document)


def _archive(model: ModelDir) -> Path:
    if model.mar_path is None:
        raise EngineUnavailable(f"{model.path} holds no .mar archive: export or import the model with one.")
    return model.mar_path


def _description(model: ModelDir) -> str:
    """Path of the model in the management API."""
    return f"/models/{quote(model.name, safe='')}"
