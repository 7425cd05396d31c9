"""What a server with TensorFlow Serving's flags runs with: its command line and the files that this names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from models.manifest import ModelDir
from serving.deployment import Batching, Budget
from serving.server_settings import (
    OrderedSettings,
    ReportedSetting,
    RunningServer,
    ServerSettings,
    absent,
    read,
    unreadable,
    unreadable_settings,
)

MOST_IMAGES: Final = 1024
"""Images that one request may hold where batching is on."""
GRPC_THREADS: Final = 16_384
"""--grpc_max_threads, wherever this project starts a server with TensorFlow Serving's flags.

A call that finds no thread is refused (RESOURCE_EXHAUSTED), and the default of 4 a core is fewer than a load has in
flight: 1,000 in an open loop, up to 10,000 in a closed one. It is a limit only: a thread is made when a call needs it.
"""
_FLAG = re.compile(r"--?([a-z0-9_]+)(?:=(.*))?", re.DOTALL)
_FIELD = re.compile(r"(\w+)\s*:?\s*\{\s*value\s*:\s*(\w+)\s*\}")
_BatchSettings = tuple[ReportedSetting, ReportedSetting, ReportedSetting, ReportedSetting]
_NO_BATCHING = "batching is off"
_INTRA, _SESSION = "tensorflow_intra_op_parallelism", "tensorflow_session_parallelism"
_REST_TIMEOUT = "rest_api_timeout_in_ms"


def batches_queued(batching: Batching) -> int:
    """Batches that may wait: TensorFlow Serving counts batches where TorchServe counts requests."""
    return max(1, batching.queue_size // batching.max_batch_size)


def ordered(budget: Budget, batching: Batching) -> OrderedSettings:
    """What `tensorflow_flags` and the chart start a server with; one batch at a time, as TorchServe's one worker."""
    if batching.max_batch_size == 1:
        return OrderedSettings(max_batch_size=1, threads=budget.threads)
    return OrderedSettings(
        workers=1,
        max_batch_size=batching.max_batch_size,
        batch_delay_us=batching.timeout_us,
        queue_size=batches_queued(batching) * batching.max_batch_size,
        threads=budget.threads,
    )


def settings(server: RunningServer, model: ModelDir) -> ServerSettings:
    """What the server runs with; see Engine."""
    flags = max((flags_of(command) for command in server.commands()), key=len, default={})
    notes = tuple(_notes(flags, model))
    if not flags:
        reason = "its command line cannot be seen from here, and its API does not report settings"
        return replace(unreadable_settings(reason), notes=notes)
    if "platform_config_file" in flags:
        reason = "--platform_config_file takes the place of the other flags"
        return replace(unreadable_settings(reason), notes=notes)
    workers, size, delay_us, queue = _batching(flags, server)
    return ServerSettings(workers, size, delay_us, queue, _timeout(flags), _threads(flags), notes)


def flags_of(command: Sequence[str]) -> dict[str, str]:
    """Flags of a command line with their values; the last one of a name wins, as the server has it."""
    flags: dict[str, str] = {}
    for argument, following in zip(command, [*command[1:], "--"], strict=True):
        if match := _FLAG.fullmatch(argument):
            alone = "true" if following.startswith("-") else following
            flags[match[1]] = alone if match[2] is None else match[2]
    return flags


def _batching(flags: Mapping[str, str], server: RunningServer) -> _BatchSettings:
    """Workers, images in a batch, its delay, and the queue."""
    if flags.get("enable_batching", "false").lower() not in ("true", "1"):
        source = "no --enable_batching on the command line"
        off = absent(_NO_BATCHING)
        workers = absent(f"{_NO_BATCHING}, and requests are computed side by side")
        return workers, read(1, source), off, off
    own = "enable_per_model_batching_parameters"
    path = flags.get("batching_parameters_file")
    text = server.file(path) if path else None
    if flags.get(own, "false").lower() in ("true", "1"):
        unknown = unreadable(f"--{own}: batching_params.pbtxt of the SavedModel may say otherwise")
    elif path is None:
        unknown = unreadable("no --batching_parameters_file: the server's own defaults")
    elif text is None:
        unknown = unreadable("the file of --batching_parameters_file cannot be read from here")
    else:
        return _parameters(text, "the file of --batching_parameters_file")
    return unknown, unknown, unknown, unknown


def _parameters(text: str, source: str) -> _BatchSettings:
    found = dict(_FIELD.findall(_without_comments(text)))

    def number(name: str) -> ReportedSetting:
        value = found.get(name, "")
        return read(int(value), source) if value.isdigit() else unreadable(f"{source} does not set {name}")

    split = found.get("enable_large_batch_splitting") == "true" and "max_execution_batch_size" in found
    size = number("max_execution_batch_size" if split else "max_batch_size")
    batches = number("max_enqueued_batches")
    queue = next((part for part in (batches, size) if part.value is None), batches)
    if batches.value is not None and size.value is not None:
        queue = read(batches.value * size.value, source)
    return number("num_batch_threads"), size, number("batch_timeout_micros"), queue


def _without_comments(text: str) -> str:
    return re.sub(r"#.*", "", text)


def _threads(flags: Mapping[str, str]) -> ReportedSetting:
    for name in (_INTRA, _SESSION):
        value = flags.get(name, "")
        if value.isdigit() and int(value) > 0:
            return read(int(value), f"--{name}")
    return unreadable(f"neither --{_INTRA} nor --{_SESSION} is on the command line: TensorFlow's own choice")


def _timeout(flags: Mapping[str, str]) -> ReportedSetting:
    value = flags.get(_REST_TIMEOUT, "")
    if value.isdigit():
        return read(int(value) // 1000, f"--{_REST_TIMEOUT}")
    return unreadable(f"no --{_REST_TIMEOUT} on the command line: the server's own default over REST, none over gRPC")


def _notes(flags: Mapping[str, str], model: ModelDir) -> Iterator[str]:
    if flags.get("tensorflow_inter_op_parallelism", "1") != "1":
        yield f"TensorFlow runs {flags['tensorflow_inter_op_parallelism']} operations at a time."
    if _batches_itself(model):
        yield "The SavedModel's own graph holds a BatchFunction, which batches by settings of its own."


def _batches_itself(model: ModelDir) -> bool:
    """Whether the graph batches within itself (tf.nondifferentiable_batch_function)."""
    artifact = model.manifest.savedmodel
    try:
        return artifact is not None and any(
            b"BatchFunction" in path.read_bytes() for path in Path(model.path / artifact.path).glob("saved_model.pb")
        )
    except OSError:
        return False
