"""What TorchServe's management API says of a model: GET /models/NAME, of TorchServe 0.12."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from serving.server_settings import Refusal, ReportedSetting, ServerSettings, read, unreadable, unreadable_settings

_NO_THREADS = "TorchServe does not report its workers' threads, which a handler may set itself"


def workers_ready(body: bytes) -> bool:
    """Whether the model has workers, and every one of them is READY."""
    workers = _described(body).get("workers") or []
    try:
        return bool(workers) and all(worker["status"] == "READY" for worker in workers)
    except (LookupError, TypeError):
        return False


def settings_of(body: bytes | Refusal | None, source: str) -> ServerSettings:
    """The settings in an answer to GET /models/NAME; `source` names it. None: the API could not be asked."""
    if isinstance(body, Refusal):
        return unreadable_settings(f"TorchServe's management API: {body.sentence}")
    if body is None:
        return unreadable_settings("TorchServe's management API could not be asked")
    model = _described(body)
    return ServerSettings(
        workers=_number(len(model.get("workers") or []) or model.get("minWorkers"), source),
        max_batch_size=_number(model.get("batchSize"), source),
        batch_delay_us=_number(model.get("maxBatchDelay"), source, 1000),
        queue_size=_queue(model, source),
        response_timeout_s=_number(model.get("responseTimeout"), source),
        threads=unreadable(_NO_THREADS),
        notes=tuple(_notes(model)),
    )


def _described(body: bytes) -> dict[str, Any]:
    """The first version that the answer describes: JSON, as TorchServe wrote it; empty for any other body."""
    try:
        model = orjson.loads(body)[0]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return {}
    return model if isinstance(model, dict) else {}


def _number(value: object, source: str, factor: int = 1) -> ReportedSetting:
    if isinstance(value, int):
        return read(value * factor, source)
    return unreadable(f"{source} does not say it")


def _queue(model: dict[str, Any], source: str) -> ReportedSetting:
    """TorchServe reports the places that are left and the requests that wait: together they are its size."""
    if model.get("useJobTicket") is True:
        return read(0, f"useJobTicket of {source}")
    status = model.get("jobQueueStatus")
    places = [status.get(key) for key in ("remainingCapacity", "pendingRequests")] if isinstance(status, dict) else []
    known = [number for number in places if isinstance(number, int)]
    return read(sum(known), f"jobQueueStatus of {source}") if len(known) == 2 else _number(None, source)


def _notes(model: dict[str, Any]) -> Iterator[str]:
    """What an archive's own model-config.yaml may change and nothing from outside can."""
    fewest, most = model.get("minWorkers"), model.get("maxWorkers")
    if fewest != most:
        yield f"TorchServe may run {fewest} to {most} workers."
    if model.get("useJobTicket") is True:
        yield "The archive's useJobTicket makes TorchServe refuse a request unless a worker is free: nothing waits."
    if model.get("continuousBatching") is True:
        yield "The archive's continuousBatching adds requests to a batch that is being computed."
    if model.get("stateful") is True:
        yield "The archive's sequenceBatching batches by sequence, not by arrival."
    if model.get("parallelType") not in (None, "", "none"):
        yield f"The archive's parallelType {model['parallelType']} splits the model over several processes."
    if timeout_ms := model.get("clientTimeoutInMills"):
        yield f"The archive's clientTimeoutInMills drops a request that has waited {timeout_ms} ms."
