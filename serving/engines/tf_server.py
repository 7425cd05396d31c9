"""What TensorFlow Serving and the embedded SavedModel server share: their flags, files and readiness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

import orjson

from models.manifest import ModelDir
from serving.deployment import Batching, Budget, Endpoint, Launch
from serving.errors import EngineUnavailable
from serving.ports import HOST, free_ports, is_bound
from serving.probe import http_get

_MOST_IMAGES = 1024
"""Images that one request may hold where batching is on."""

METRICS_PATH = "/monitoring/prometheus/metrics"
_MONITORING = f'prometheus_config {{ enable: true, path: "{METRICS_PATH}" }}\n'


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
        command=[*program, *_flags(model, budget, batching, workdir, rest, grpc)],
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
        fatal="event=load_failed|Failed to start server|did not become available",
    )


def _ports(port: int | None) -> tuple[int, int]:
    rest, grpc = free_ports(2)
    return (port or rest), grpc


def _flags(model: ModelDir, budget: Budget, batching: Batching, workdir: Path, rest: int, grpc: int) -> list[str]:
    if model.savedmodel_base_path is None:
        raise EngineUnavailable(f"{model.path} holds no SavedModel: export or import the model with one.")
    monitoring = workdir / "monitoring.config"
    monitoring.write_text(_MONITORING)
    flags = [
        f"--port={grpc}",
        f"--rest_api_port={rest}",
        f"--model_name={model.name}",
        f"--model_base_path={model.savedmodel_base_path}",
        f"--tensorflow_intra_op_parallelism={budget.threads}",
        "--tensorflow_inter_op_parallelism=1",
        f"--monitoring_config_file={monitoring}",
        "--max_num_load_retries=0",  # a model that does not load is told at once, not after minutes
        "--file_system_poll_wait_seconds=0",  # a study is of this version: nothing to look for later
    ]
    if not budget.warmup:
        flags.append("--enable_model_warmup=false")
    if batching.max_batch_size > 1:
        parameters = workdir / "batching.config"
        parameters.write_text(_batching_parameters(batching))
        flags += ["--enable_batching=true", f"--batching_parameters_file={parameters}"]
    return flags


def _batching_parameters(batching: Batching) -> str:
    """BatchingParameters as text; one batch at a time, as TorchServe's one worker has it.

    A request with more images than a batch is split: without that it would be refused.
    """
    batches = max(1, batching.queue_size // batching.max_batch_size)
    return (
        f"max_batch_size {{ value: {max(batching.max_batch_size, _MOST_IMAGES)} }}\n"
        "enable_large_batch_splitting { value: true }\n"
        f"max_execution_batch_size {{ value: {batching.max_batch_size} }}\n"
        f"batch_timeout_micros {{ value: {batching.timeout_us} }}\n"
        f"max_enqueued_batches {{ value: {batches} }}\n"
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
    return _available(reply[1]) and is_bound(urlsplit(f"//{endpoint.grpc_target}").port or 0)


def _available(body: bytes) -> bool:
    try:
        versions = orjson.loads(body)["model_version_status"]
        return any(version["state"] == "AVAILABLE" for version in versions)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return False
