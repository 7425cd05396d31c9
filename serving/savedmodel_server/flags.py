"""The command line: TensorFlow Serving's flag names, `--flag=value` or `--flag value`."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from serving.savedmodel_server.errors import FlagError


@dataclass(frozen=True)
class _Flag:
    kind: type
    default: Any
    help: str


def _cores() -> int:
    return len(os.sched_getaffinity(0))


SUPPORTED: dict[str, _Flag] = {
    "port": _Flag(int, 8500, "TCP port of gRPC; 0 disables it"),
    "rest_api_port": _Flag(int, 8501, "TCP port of HTTP/REST; 0 disables it"),
    "bind_address": _Flag(str, "127.0.0.1", "address both ports listen on (ours: TensorFlow Serving has none)"),
    "model_name": _Flag(str, "default", "name of the model in URLs"),
    "model_base_path": _Flag(str, "", "folder that holds the version folders"),
    "model_config_file": _Flag(str, "", "text proto ModelServerConfig; takes the place of model_name"),
    "model_config_file_poll_wait_seconds": _Flag(int, 0, "seconds between reads of it; 0 reads it once"),
    "file_system_poll_wait_seconds": _Flag(int, 1, "seconds between looks for versions; 0 looks once"),
    "max_num_load_retries": _Flag(int, 5, "attempts after the first that fails"),
    "load_retry_interval_micros": _Flag(int, 60_000_000, "microseconds between them"),
    "allow_version_labels_for_unavailable_models": _Flag(bool, False, "labels may name unloaded versions"),
    "saved_model_tags": _Flag(str, "serve", "comma-separated tags of the graph to load"),
    "enable_model_warmup": _Flag(bool, True, "replay assets.extra/tf_serving_warmup_requests at load"),
    "num_request_iterations_for_warmup": _Flag(int, 1, "times each warm-up record is replayed"),
    "enable_batching": _Flag(bool, False, "batch requests of several clients"),
    "batching_parameters_file": _Flag(str, "", "text proto BatchingParameters"),
    "tensorflow_session_parallelism": _Flag(int, 0, "intra-op and inter-op threads; 0 lets TensorFlow choose"),
    "tensorflow_intra_op_parallelism": _Flag(int, 0, "threads of one operation; 0 lets TensorFlow choose"),
    "tensorflow_inter_op_parallelism": _Flag(int, 0, "operations at a time; 0 lets TensorFlow choose"),
    "rest_api_num_threads": _Flag(int, 0, "REST calls that run at a time; 0 means 4 a core"),
    "rest_api_timeout_in_ms": _Flag(int, 30_000, "milliseconds a REST call may take"),
    "rest_api_enable_cors_support": _Flag(bool, False, "CORS headers in replies"),
    "max_request_bytes": _Flag(int, 64 << 20, "largest request body or message (ours)"),
    "max_unfinished_request_bytes": _Flag(int, 0, "bytes of half-sent requests; 0 means 2 of the largest (ours)"),
    "grpc_max_threads": _Flag(int, 0, "one more than gRPC calls at a time, others are refused; 0 means 4 a core"),
    "grpc_channel_arguments": _Flag(str, "", "comma-separated key=value pairs for the gRPC server"),
    "enable_grpc_healthcheck_service": _Flag(bool, True, "the standard gRPC health service"),
    "enable_serialization_as_tensor_content": _Flag(bool, False, "gRPC replies carry tensor_content"),
    "enable_signature_method_name_check": _Flag(bool, False, "hold a signature's method name against the call"),
    "monitoring_config_file": _Flag(str, "", "text proto MonitoringConfig: Prometheus on or off, and its path"),
    "ssl_config_file": _Flag(str, "", "text proto SSLConfig: TLS for gRPC"),
    "drain_seconds": _Flag(int, 30, "seconds that requests under way get after SIGTERM (ours)"),
}

REFUSED = (
    "grpc_socket_path",
    "enable_per_model_batching_parameters",
    "num_load_threads",
    "num_unload_threads",
    "flush_filesystem_caches",
    "tensorflow_session_config_file",
    "use_alts_credentials",
    "platform_config_file",
    "per_process_gpu_memory_fraction",
    "remove_unused_fields_from_bundle_metagraph",
    "prefer_tflite_model",
    "num_tflite_pools",
    "num_tflite_interpreters_per_pool",
    "xla_cpu_compilation_enabled",
    "xla_gpu_compilation_enabled",
    "enable_profiler",
    "thread_pool_factory_config_file",
    "mixed_precision",
    "skip_initialize_tpu",
)
"""Flags of TensorFlow Serving that this server does not have."""


@dataclass(frozen=True)
class Flags:
    """The parsed command line; SUPPORTED describes each of them."""

    port: int
    rest_api_port: int
    bind_address: str
    model_name: str
    model_base_path: str
    model_config_file: str
    model_config_file_poll_wait_seconds: int
    file_system_poll_wait_seconds: int
    max_num_load_retries: int
    load_retry_interval_micros: int
    allow_version_labels_for_unavailable_models: bool
    saved_model_tags: str
    enable_model_warmup: bool
    num_request_iterations_for_warmup: int
    enable_batching: bool
    batching_parameters_file: str
    tensorflow_session_parallelism: int
    tensorflow_intra_op_parallelism: int
    tensorflow_inter_op_parallelism: int
    rest_api_num_threads: int
    rest_api_timeout_in_ms: int
    rest_api_enable_cors_support: bool
    max_request_bytes: int
    max_unfinished_request_bytes: int
    grpc_max_threads: int
    grpc_channel_arguments: str
    enable_grpc_healthcheck_service: bool
    enable_serialization_as_tensor_content: bool
    enable_signature_method_name_check: bool
    monitoring_config_file: str
    ssl_config_file: str
    drain_seconds: int

    @property
    def intra_op_threads(self) -> int:
        """0 where TensorFlow chooses."""
        return self.tensorflow_intra_op_parallelism or self.tensorflow_session_parallelism

    @property
    def inter_op_threads(self) -> int:
        """0 where TensorFlow chooses."""
        return self.tensorflow_inter_op_parallelism or self.tensorflow_session_parallelism

    @property
    def unfinished_bytes(self) -> int:
        """Bytes of requests that have not arrived in full, over all connections."""
        return self.max_unfinished_request_bytes or 2 * self.max_request_bytes

    @property
    def rest_threads(self) -> int:
        """REST calls that run at a time."""
        return self.rest_api_num_threads or 4 * _cores()

    @property
    def grpc_threads(self) -> int:
        """Threads of gRPC; one of them waits for calls."""
        return self.grpc_max_threads or 4 * _cores()


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise FlagError(f"{message}; `savedmodel-server --help` lists the flags.")


def parser() -> argparse.ArgumentParser:
    """The argument parser; abbreviations are off, as a typo must not select another flag."""
    made = _Parser(
        prog="savedmodel-server",
        allow_abbrev=False,
        description="Serves TensorFlow SavedModels over REST and gRPC with TensorFlow Serving's API. "
        "It is not TensorFlow Serving.",
    )
    for name, flag in SUPPORTED.items():
        text = f"{flag.help} (default: {flag.default if flag.default != '' else 'none'})"
        if flag.kind is bool:
            made.add_argument(
                f"--{name}", type=_boolean, nargs="?", const=True, default=flag.default, help=text, metavar="BOOL"
            )
        else:
            made.add_argument(f"--{name}", type=flag.kind, default=flag.default, help=text, metavar=flag.kind.__name__)
    made.add_argument("--version", action="store_true", help="print the versions and exit")
    return made


def parse_flags(argv: list[str]) -> Flags:
    """Flags from the command line; raises FlagError that names the flag at fault."""
    _refuse(argv)
    given = vars(parser().parse_args(argv))
    flags = Flags(**{field.name: given[field.name] for field in fields(Flags)})
    _check(flags)
    return flags


def _refuse(argv: list[str]) -> None:
    for word in argv:
        name = word.partition("=")[0].lstrip("-")
        if word.startswith("--") and name in REFUSED:
            raise FlagError(
                f"--{name} is a flag of TensorFlow Serving that savedmodel-server lacks; "
                "docs/reference/savedmodel-server.md lists its flags."
            )


def _check(flags: Flags) -> None:
    if not flags.model_config_file and not flags.model_base_path:
        raise FlagError("--model_base_path (or --model_config_file) is required: name the folder of the versions.")
    if not flags.port and not flags.rest_api_port:
        raise FlagError("--port and --rest_api_port are both 0: leave one of them on.")
    for name in ("port", "rest_api_port"):
        if not 0 <= getattr(flags, name) <= 65535:
            raise FlagError(f"--{name}={getattr(flags, name)} is no TCP port: use 1 to 65535, or 0 to disable it.")
    if flags.port == flags.rest_api_port:
        raise FlagError(f"--port and --rest_api_port are both {flags.port}: give them different ports.")
    if flags.model_base_path and not flags.model_config_file and not Path(flags.model_base_path).is_dir():
        raise FlagError(
            f"--model_base_path={flags.model_base_path} is not a folder: name the one that holds 1/, 2/, ..."
        )
    if flags.batching_parameters_file and not flags.enable_batching:
        raise FlagError("--batching_parameters_file needs --enable_batching.")
    for name in ("rest_api_num_threads", "grpc_max_threads", "max_num_load_retries", "drain_seconds"):
        if getattr(flags, name) < 0:
            raise FlagError(f"--{name} must not be negative.")
    if flags.grpc_max_threads == 1:
        raise FlagError("--grpc_max_threads=1 would refuse every call, as one thread waits for calls: use at least 2.")
    if flags.max_request_bytes < 1 or flags.rest_api_timeout_in_ms < 1:
        raise FlagError("--max_request_bytes and --rest_api_timeout_in_ms must be at least 1.")
    if flags.unfinished_bytes < flags.max_request_bytes:
        raise FlagError(
            f"--max_unfinished_request_bytes={flags.max_unfinished_request_bytes} is less than --max_request_bytes="
            f"{flags.max_request_bytes}: allow at least one request of the largest size."
        )
