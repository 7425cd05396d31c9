"""TensorFlow Serving's REST methods: each takes a path and a body, and gives a Reply."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from serving.savedmodel_server.dispatch import Dispatcher
from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.http_reply import Reply, error_reply, internal_error
from serving.savedmodel_server.inference import Inference
from serving.savedmodel_server.json_fast import FastReader
from serving.savedmodel_server.json_predict import parse_predict, write_predict
from serving.savedmodel_server.messages import metadata_json, status_json
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.repository import Repository
from serving.savedmodel_server.rest_path import Target, parse_path

LOG = logging.getLogger("savedmodel_server")
_PATHS_KEPT = 4096
_LARGE_BYTES = 1 << 20


class RestApi:
    """The methods of one server; every call belongs to the event loop's thread."""

    def __init__(
        self,
        repository: Repository,
        dispatcher: Dispatcher,
        inference: Inference,
        metrics: Metrics,
        timeout_s: float,
    ) -> None:
        self._inference = inference
        self._repository = repository
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._reader = FastReader()
        self._paths: dict[tuple[str, str], Target] = {}

    async def answer(self, method: str, path: str, body: bytes) -> Reply:
        """Answer one request; never raises."""
        begin = time.perf_counter_ns()
        name, code = "", Code.OK
        try:
            target = self._target(method, path)
            name = target.name
            reply = await self._run(target, body)
            micros = (time.perf_counter_ns() - begin) / 1000
            self._metrics.request_latency.observe((name, target.verb, "REST"), micros)
        except RequestError as error:
            code, reply = error.code, error_reply(error)
        except Exception:
            LOG.exception("event=bug method=%s path=%r", method, path)
            code, reply = Code.INTERNAL, internal_error()
        self._metrics.request_count.add((name, code.name))
        return reply

    def _target(self, method: str, path: str) -> Target:
        key = (method, path)
        target = self._paths.get(key)
        if target is None:
            target = parse_path(method, path)
            if len(self._paths) < _PATHS_KEPT:
                self._paths[key] = target
        return target

    async def _run(self, target: Target, body: bytes) -> Reply:
        if target.verb == "predict":
            return await self._predict(target, body)
        if target.verb == "status":
            return self._status(target)
        if target.verb == "metadata":
            return await self._metadata(target)
        return await self._examples(target, body)

    async def _predict(self, target: Target, body: bytes) -> Reply:
        lease = self._repository.acquire(target.name, target.version, target.label)
        try:
            if len(body) < _LARGE_BYTES:
                call = parse_predict(body, lease.servable.rest_signature, self._reader)
            else:
                call = await asyncio.to_thread(parse_predict, body, lease.servable.rest_signature, FastReader())
        except BaseException:
            lease.release()
            raise
        outputs = await self._bounded(self._dispatcher.call(lease, call.signature, call.arrays))
        rows = len(call.arrays[0]) if call.arrays and call.arrays[0].ndim else 1
        self._metrics.example_counts.observe((target.name,), rows)
        self._metrics.example_count_total.add((target.name,), rows)
        return Reply(200, write_predict(call.signature, outputs, call.columnar))

    async def _bounded(self, future: asyncio.Future[Any]) -> Any:
        """The future's result, or DEADLINE_EXCEEDED; the thread goes on to the end of its run in any case."""
        handle = future.get_loop().call_later(self._timeout_s, _expire, future)
        try:
            return await future
        finally:
            handle.cancel()

    def _status(self, target: Target) -> Reply:
        version = target.version
        if target.label is not None:
            version = self._repository.label_version(target.name, target.label)
        return Reply(200, status_json(self._repository.states(target.name, version)))

    async def _metadata(self, target: Target) -> Reply:
        with self._repository.acquire(target.name, target.version, target.label) as servable:
            return Reply(200, await asyncio.to_thread(metadata_json, servable))

    async def _examples(self, target: Target, body: bytes) -> Reply:
        from serving.savedmodel_server.json_examples import answer_examples

        with self._repository.acquire(target.name, target.version, target.label) as servable:
            done = asyncio.to_thread(answer_examples, self._inference, servable, target.verb, body)
            return Reply(200, await done)


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(RequestError(Code.DEADLINE_EXCEEDED, "Timed out: --rest_api_timeout_in_ms has passed."))
