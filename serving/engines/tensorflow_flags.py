"""What TensorFlow Serving and the embedded SavedModel server share: their flags, files and readiness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import orjson

from models.manifest import ModelDir
from serving.containers import CONFIG, MODELS
from serving.deployment import Batching, Budget, ContainerLaunch, Endpoint, Launch
from serving.engines.tensorflow_settings import GRPC_THREADS, MOST_IMAGES, batches_queued
from serving.errors import EngineUnavailable
from serving.ports import HOST, free_ports, is_bound_at
from serving.probe import http_get

METRICS_PATH = "/monitoring/prometheus/metrics"
_MONITORING = f'prometheus_config {{ enable: true, path: "{METRICS_PATH}" }}\n'
_FATAL = "event=load_failed|Failed to start server|did not become available"
_REST, _GRPC = 8501, 8500
"""Ports in a container, as its image's entry point sets them."""


@dataclass(frozen=True)
class _Folder:
    """Where configuration files are written, and where the server finds them."""

    here: Path
    there: str

    def write(self, name: str, text: str) -> str:
        """Write a file; its path as the server sees it."""
        (self.here / name).write_text(text)
        return f"{self.there}/{name}"


def launch(
    program: Sequence[str],
    env: Mapping[str, str],
    model: ModelDir,
    replica: int,
    budget: Budget,
    batching: Batching,
    workdir: Path,
    port: int | None,
) -> Launch:
    """Launch of `program` with TensorFlow Serving's flags; writes its configuration files into `workdir`."""
    rest, grpc = _ports(port)
    url = f"http://{HOST}:{rest}"
    return Launch(
        command=[
            *program,
            f"--port={grpc}",
            f"--rest_api_port={rest}",
            f"--model_name={model.name}",
            f"--model_base_path={_base_path(model)}",
            *_flags(budget, batching, _Folder(workdir, str(workdir))),
        ],
        env={**_environment(budget), **env},
        endpoint=Endpoint(
            replica=replica,
            rest_url=url,
            grpc_target=f"{HOST}:{grpc}",
            metrics_url=url + METRICS_PATH,
            management_url=None,
        ),
        workdir=workdir,
        ports=(rest, grpc),
        fatal=_FATAL,
    )


def contain(
    model: ModelDir, budget: Budget, batching: Batching, config: Path, more: Sequence[str] = ()
) -> ContainerLaunch:
    """Container of an image whose entry point is, or works like, that of tensorflow/serving; `more` flags come last."""
    _base_path(model)
    return ContainerLaunch(
        command=[*_flags(budget, batching, _Folder(config, CONFIG)), *more],
        env={**_environment(budget), "MODEL_NAME": model.name, "MODEL_BASE_PATH": MODELS},
        config=config,
        rest_port=_REST,
        grpc_port=_GRPC,
        metrics_port=_REST,
        metrics_path=METRICS_PATH,
        fatal=_FATAL,
    )


def _base_path(model: ModelDir) -> Path:
    if model.savedmodel_base_path is None:
        raise EngineUnavailable(f"{model.path} holds no SavedModel: export or import the model with one.")
    return model.savedmodel_base_path


def _ports(port: int | None) -> tuple[int, int]:
    rest, grpc = free_ports(2)
    return (port or rest), grpc


def _flags(budget: Budget, batching: Batching, folder: _Folder) -> list[str]:
    """What a study sets, wherever the server runs; writes the files that it names."""
    flags = [
        f"--tensorflow_intra_op_parallelism={budget.threads}",
        "--tensorflow_inter_op_parallelism=1",
        f"--grpc_max_threads={GRPC_THREADS}",
        f"--monitoring_config_file={folder.write('monitoring.config', _MONITORING)}",
        "--max_num_load_retries=0",  # a model that does not load is reported at once, not after minutes
        "--file_system_poll_wait_seconds=0",  # a study is of this version: nothing to look for later
    ]
    if not budget.warmup:
        flags.append("--enable_model_warmup=false")
    if batching.max_batch_size > 1:
        parameters = folder.write("batching.config", _batching_parameters(batching))
        flags += ["--enable_batching=true", f"--batching_parameters_file={parameters}"]
    return flags


def _batching_parameters(batching: Batching) -> str:
    """BatchingParameters as text; one batch at a time, as TorchServe's one worker has it.

    A request with more images than a batch is split: without that it would be refused.
    """
    return (
        f"max_batch_size {{ value: {max(batching.max_batch_size, MOST_IMAGES)} }}\n"
        "enable_large_batch_splitting { value: true }\n"
        f"max_execution_batch_size {{ value: {batching.max_batch_size} }}\n"
        f"batch_timeout_micros {{ value: {batching.timeout_us} }}\n"
        f"max_enqueued_batches {{ value: {batches_queued(batching)} }}\n"
        "num_batch_threads { value: 1 }\n"
    )


def _environment(budget: Budget) -> dict[str, str]:
    return {
        "TF_CPP_MIN_LOG_LEVEL": "1",
        "OMP_NUM_THREADS": str(budget.threads),
        "CUDA_VISIBLE_DEVICES": "",  # a budget holds CPUs: no engine may use a GPU that the other cannot
    }


def ready(endpoint: Endpoint, model: ModelDir) -> bool:
    """True once the model's status is AVAILABLE and the gRPC port is bound too."""
    reply = http_get(f"{endpoint.rest_url}/v1/models/{quote(model.name, safe='')}")
    if reply is None or reply[0] != 200:
        return False
    return _available(reply[1]) and is_bound_at(endpoint.grpc_target)


def _available(body: bytes) -> bool:
    try:
        versions = orjson.loads(body)["model_version_status"]
        return any(version["state"] == "AVAILABLE" for version in versions)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return False
