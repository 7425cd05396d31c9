"""The settings of a model as a snapshot of TorchServe, and what they are in the end.

TorchServe 0.12 takes a model's settings from the parameters of POST /models, then from the archive's own
model-config.yaml, and last from `models` in config.properties: an archive overrules its configuration. What it restores
from a snapshot (`model_snapshot` in the same file) it takes from there alone. A snapshot does not hold the size of the
queue.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Final

import orjson

from serving.deployment import Batching, Budget
from serving.errors import ServingError
from serving.server_settings import OrderedSettings

WORKERS: Final = 1
"""Of a replica: each computes one batch at a time."""
RESPONSE_TIMEOUT_S: Final = 120
"""TorchServe's own; it ends a worker that takes longer for an answer."""
STARTUP_TIMEOUT_S: Final = 3600
"""Of a worker. Whoever starts the server has a limit of their own for it, and a clearer sentence."""


def snapshot(name: str, archive: Path, batching: Batching) -> str:
    """The one model with its settings, as JSON. Raises ServingError where the archive is none."""
    settings = {
        "defaultVersion": True,
        "marName": archive.name,
        "minWorkers": WORKERS,
        "maxWorkers": WORKERS,
        "batchSize": max(1, batching.max_batch_size),
        "maxBatchDelay": _delay_ms(batching),
        "responseTimeout": RESPONSE_TIMEOUT_S,
        "startupTimeout": STARTUP_TIMEOUT_S,
    }
    models = {name: {archive_version(archive): settings}}
    return orjson.dumps({"name": "servestorm", "modelCount": 1, "models": models}).decode()


def ordered(budget: Budget, batching: Batching) -> OrderedSettings:
    """What a server with such a snapshot runs with."""
    return OrderedSettings(
        workers=WORKERS,
        max_batch_size=max(1, batching.max_batch_size),
        batch_delay_us=1000 * _delay_ms(batching),
        queue_size=batching.queue_size,
        response_timeout_s=RESPONSE_TIMEOUT_S,
        threads=budget.threads,
    )


def _delay_ms(batching: Batching) -> int:
    """Whole milliseconds, rounded up."""
    return max(1, math.ceil(batching.timeout_us / 1000))


def archive_version(archive: Path) -> str:
    """Model version in the archive's own manifest. Raises ServingError where it is not a model archive."""
    try:
        with zipfile.ZipFile(archive) as contents:
            return str(orjson.loads(contents.read("MAR-INF/MANIFEST.json"))["model"]["modelVersion"])
    except (OSError, zipfile.BadZipFile, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ServingError(f"{archive} is not a model archive ({error}): make it with torch-model-archiver.") from error
