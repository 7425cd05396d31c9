"""Replays `assets.extra/tf_serving_warmup_requests` before a version takes traffic, as TensorFlow Serving does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.savedmodel_server.calls.inference import Inference
from serving.savedmodel_server.errors import Code, RequestError, invalid
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.runtime.record_file import read_records
from serving.savedmodel_server.versions.servable import Servable

REQUESTS_FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MOST_RECORDS = 1000


def warm_up(inference: Inference, servable: Servable, path: Path, metrics: Metrics, iterations: int) -> None:
    """Run each recorded request `iterations` times; raises RequestError where one fails, which fails the load."""
    file = path / REQUESTS_FILE
    if not file.exists():
        return
    begin_ns, records = time.perf_counter_ns(), 0
    try:
        for i, record in enumerate(_records(file)):
            if i == MOST_RECORDS:
                raise invalid(f"Number of warmup records exceeds the maximum ({MOST_RECORDS})")
            for _ in range(max(1, iterations)):
                _replay(inference, servable, record)
            records += 1
    except RequestError as error:
        if error.code is Code.DATA_LOSS:  # all that TensorFlow Serving counts of a warm-up that fails
            _count(metrics, path, f"{error.code.name}: {error.message}", records, begin_ns)
        raise RequestError(error.code, f"Warm-up with {file} failed: {error.message}") from error
    _count(metrics, path, Code.OK.name, records, begin_ns)


def _count(metrics: Metrics, path: Path, status: str, records: int, begin_ns: int) -> None:
    metrics.warmup_latency.observe((str(path), status), (time.perf_counter_ns() - begin_ns) / 1000)
    metrics.warmup_records.add((str(path), status), records)


def _records(file: Path) -> Iterator[Any]:
    for record in read_records(file, MOST_RECORDS + 1):
        try:
            yield prediction_log_pb2.PredictionLog.FromString(record)
        except DecodeError:
            raise invalid("Failed to parse a warmup record: it is no PredictionLog") from None


def _replay(inference: Inference, servable: Servable, record: Any) -> None:
    kind = record.WhichOneof("log_type")
    methods = {
        "predict_log": inference.predict,
        "classify_log": inference.classify,
        "regress_log": inference.regress,
        "multi_inference_log": inference.multi_inference,
    }
    if kind not in methods:
        raise RequestError(Code.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
    methods[kind](servable, getattr(record, kind).request)
