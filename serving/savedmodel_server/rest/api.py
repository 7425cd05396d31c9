"""TensorFlow Serving's REST methods: each takes a path and a body, and gives a Reply."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from serving.savedmodel_server.calls.call import row_count
from serving.savedmodel_server.calls.inference import Inference
from serving.savedmodel_server.calls.loop_bridge import LoopBridge
from serving.savedmodel_server.calls.messages import metadata_json, status_json
from serving.savedmodel_server.dtypes import Array
from serving.savedmodel_server.errors import Code, RequestError, invalid
from serving.savedmodel_server.inflate import DamagedError, TooLargeError, inflate
from serving.savedmodel_server.metrics import Metrics
from serving.savedmodel_server.rest.http_reply import Reply, error_reply, too_large
from serving.savedmodel_server.rest.json_bodies.document import read_document
from serving.savedmodel_server.rest.json_bodies.fast import FastReader
from serving.savedmodel_server.rest.json_bodies.predict import PredictCall, parse_predict, write_predict
from serving.savedmodel_server.rest.rest_path import RestTarget, parse_path
from serving.savedmodel_server.versions.repository import Lease, Repository

LOG = logging.getLogger("savedmodel_server")
_LARGE_BYTES = 1 << 20
_API = {"predict": "predict", "classify": "classify", "regress": "regress", "status": "", "metadata": ""}
"""The label API of each verb: TensorFlow Serving's, which names no method of a GET."""
Done = Callable[[Reply], None]


class RestApi:
    """The methods of one server; every call belongs to the event loop's thread."""

    def __init__(
        self,
        repository: Repository,
        bridge: LoopBridge,
        inference: Inference,
        metrics: Metrics,
        timeout_s: float,
        max_bytes: int,
    ) -> None:
        self.repository = repository
        self.bridge = bridge
        self.metrics = metrics
        self.timeout_s = timeout_s
        self.max_bytes = max_bytes
        self.reader = FastReader()
        self.loop = bridge.loop
        self._inference = inference

    def predict_target(self, url: bytes) -> RestTarget | None:
        """What a `:predict` URL names; None where it is malformed or has a query."""
        try:
            target = parse_path("POST", url.decode("ascii"))
        except (RequestError, UnicodeDecodeError):
            return None
        return target if target.verb == "predict" else None

    def start_predict(self, target: RestTarget, body: bytes, done: Done, *, gzipped: bool = False) -> RunningPredict:
        """Answer a `:predict`: `done` gets the reply, now or later, on the loop's thread."""
        request = RunningPredict(self, target, done)
        if gzipped:
            request.start_apart(body, self.inflated)
        elif len(body) < _LARGE_BYTES:
            request.start(body)
        else:
            request.start_apart(body)
        return request

    def inflated(self, body: bytes) -> bytes:
        """A body with `Content-Encoding: gzip`; raises RequestError or LargeBodyError."""
        try:
            return inflate(body, self.max_bytes)
        except TooLargeError:
            raise LargeBodyError(Code.RESOURCE_EXHAUSTED, too_large(self.max_bytes)) from None
        except DamagedError as error:
            raise invalid("JSON Parse error: The document is empty") from error

    async def answer(self, method: str, path: str, body: bytes, *, gzipped: bool = False) -> Reply:
        """Answer any request of the API; never raises."""
        begin_ns = time.perf_counter_ns()
        target = None
        try:
            target = parse_path(method, path)
            if target.verb == "predict":
                return await self._predict(target, body, gzipped)
            if gzipped:
                body = await asyncio.to_thread(self.inflated, body)
            reply = await self._run(target, body)
        except RequestError as error:
            return self.failed(target, error)
        except Exception:  # noqa: BLE001 - a bug must not end the connection without an answer
            return self.broken(target)
        self.record(target, begin_ns)
        return reply

    async def _predict(self, target: RestTarget, body: bytes, gzipped: bool) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def done(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        running = self.start_predict(target, body, done, gzipped=gzipped)
        try:
            return await future
        finally:
            running.abandon()

    async def _run(self, target: RestTarget, body: bytes) -> Reply:
        if target.verb == "status":
            return self._status(target)
        if target.verb == "metadata":
            return await self._metadata(target)
        return await self._examples(target, body)

    def record(self, target: RestTarget, begin_ns: int) -> None:
        """Count a request that went well."""
        micros = (time.perf_counter_ns() - begin_ns) / 1000
        self.metrics.request_latency.observe((target.name, _API[target.verb], "REST"), micros)
        self.metrics.request_count.add((target.name, "OK"))

    def failed(self, target: RestTarget | None, error: RequestError) -> Reply:
        """Count a request that failed; its reply."""
        name = target.name if target else ""
        self.metrics.count_failure(name, error.code.name, is_served=name in self.repository.serving())
        return error_reply(error)

    def broken(self, target: RestTarget | None) -> Reply:
        """The reply to a request that met a bug of ours, whose trace is logged."""
        LOG.exception("event=bug target=%r", target)
        return self.failed(target, RequestError(Code.INTERNAL, "Internal error; the server's log says more."))

    def _status(self, target: RestTarget) -> Reply:
        """The states of a model's versions; a label chooses none of them, as in TensorFlow Serving."""
        return Reply(200, status_json(self.repository.states(target.name, target.version)))

    async def _metadata(self, target: RestTarget) -> Reply:
        with self.repository.acquire(target.name, target.version, target.label) as servable:
            return Reply(200, await asyncio.to_thread(metadata_json, servable))

    async def _examples(self, target: RestTarget, body: bytes) -> Reply:
        from serving.savedmodel_server.rest.json_bodies.examples import answer_examples

        with self.repository.acquire(target.name, target.version, target.label) as servable:
            done = asyncio.to_thread(answer_examples, self._inference, servable, target.verb, body)
            return Reply(200, await done)


def _body_error(body: bytes) -> RequestError | None:
    """What is wrong with the body itself, which TensorFlow Serving reports before an unknown model."""
    try:
        read_document(body)
    except RequestError as error:
        return error
    return None


class LargeBodyError(RequestError):
    """A body that unpacks to more than --max_request_bytes."""

    @property
    def http_status(self) -> int:
        """As for a body that is too large as it is."""
        return 413


class RunningPredict:
    """One `:predict` under way: parse, run, write. Callbacks instead of a task save 30 us a request."""

    __slots__ = ("api", "begin_ns", "call", "closed", "done", "target", "timer")

    def __init__(self, api: RestApi, target: RestTarget, done: Done) -> None:
        self.api = api
        self.target = target
        self.done = done
        self.begin_ns = time.perf_counter_ns()
        self.closed = False
        """Answered or given up: what has not begun to run by then is not run."""
        self.timer: asyncio.TimerHandle | None = None

    def start(self, body: bytes) -> None:
        """Parse here, and run."""
        try:
            lease = self.api.repository.acquire(self.target.name, self.target.version, self.target.label)
        except RequestError as error:
            self._end(self.api.failed(self.target, _body_error(body) or error))
            return
        try:
            call = parse_predict(body, lease.servable.rest_signature, self.api.reader)
        except RequestError as error:
            lease.release()
            self._end(self.api.failed(self.target, error))
        except Exception:  # noqa: BLE001 - as in RestApi.answer
            lease.release()
            self._end(self.api.broken(self.target))
        else:
            self._run(lease, call)

    def start_apart(self, body: bytes, prepare: Callable[[bytes], bytes] | None = None) -> None:
        """A large body, or one to be unpacked by `prepare`, is parsed on a thread, so that the loop goes on."""
        loop = asyncio.get_running_loop()
        self.timer = loop.call_later(self.api.timeout_s, self._expire)
        future = loop.run_in_executor(None, self._parse_apart, body, prepare)
        future.add_done_callback(self._parsed_apart)

    def _parse_apart(self, body: bytes, prepare: Callable[[bytes], bytes] | None) -> tuple[Lease, PredictCall] | None:
        if self.closed:
            return None
        if prepare is not None:
            body = prepare(body)
        try:
            lease = self.api.repository.acquire(self.target.name, self.target.version, self.target.label)
        except RequestError as error:
            raise _body_error(body) or error from None
        try:
            return lease, parse_predict(body, lease.servable.rest_signature, FastReader())
        except BaseException:
            lease.release()
            raise

    def _parsed_apart(self, future: asyncio.Future[tuple[Lease, PredictCall] | None]) -> None:
        try:
            parsed = future.result()
        except RequestError as error:
            self._fail(error)
            return
        except Exception:  # noqa: BLE001 - as in RestApi.answer
            if not self.closed:
                self._end(self.api.broken(self.target))
            return
        if parsed is None:
            return
        lease, call = parsed
        if self.closed:
            lease.release()
        else:
            self._run(lease, call)

    def _run(self, lease: Lease, call: PredictCall) -> None:
        self.call = call
        if self.timer is None:
            self.timer = self.api.loop.call_later(self.api.timeout_s, self._expire)
        self.api.bridge.start(lease, call.signature, call.arrays, self._ran, self)

    def _ran(self, outputs: Sequence[Array] | None, error: RequestError | None) -> None:
        api, call = self.api, self.call
        if self.closed:
            return
        try:
            if outputs is None:
                raise error or RequestError(Code.INTERNAL, "no outputs")
            reply = Reply(200, write_predict(call.signature, outputs, call.columnar))
        except RequestError as failure:
            self._end(api.failed(self.target, failure))
            return
        except Exception:  # noqa: BLE001 - as in RestApi.answer
            self._end(api.broken(self.target))
            return
        rows = row_count(call.arrays)
        api.metrics.example_counts.observe((self.target.name,), rows)
        api.metrics.example_count_total.add((self.target.name,), rows)
        api.record(self.target, self.begin_ns)
        self._end(reply)

    def _expire(self) -> None:
        """The time is over: what runs goes on to its end, and nobody reads it; what waits is dropped."""
        self._fail(RequestError(Code.DEADLINE_EXCEEDED, "Timed out: --rest_api_timeout_in_ms has passed."))

    def _fail(self, error: RequestError) -> None:
        if not self.closed:
            self._end(self.api.failed(self.target, error))

    def abandon(self) -> None:
        """The client is gone: run nothing for it that has not begun, and answer nothing."""
        self.closed = True
        if self.timer is not None:
            self.timer.cancel()

    def _end(self, reply: Reply) -> None:
        self.abandon()
        self.done(reply)
