"""A session of TensorFlow's C API: a SavedModel's graph, loaded and run."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from serving.savedmodel_server.dtypes import Array
from serving.savedmodel_server.errors import invalid
from serving.savedmodel_server.runtime.c_api import Buffer, CApi, Output, c_api
from serving.savedmodel_server.runtime.status import checked, require_ok
from serving.savedmodel_server.runtime.tensors import new_tensor, to_array


class GraphSession:
    """A graph and its session; runs are safe from any thread, `close` is for after the last of them."""

    def __init__(self, api: CApi, session: int, graph: int) -> None:
        self._api = api
        self._session = session
        self._graph = graph

    def operation_output(self, tensor: str) -> Output:
        """The output that a tensor's name ("x:0") means; raises RequestError where the graph has none."""
        name, _, index = tensor.partition(":")
        operation = self._api.TF_GraphOperationByName(self._graph, name.encode())
        if operation is None or int(index or 0) >= self._api.TF_OperationNumOutputs(operation):
            raise invalid(
                f"Tensor {tensor}, specified in either feed_devices or fetch_devices was not found in the Graph"
            )
        return Output(operation, int(index or 0))

    def operation(self, name: str) -> int:
        """An operation by its name, which the graph has."""
        found: int = self._api.TF_GraphOperationByName(self._graph, name.encode())
        return found

    def prepare(self, feeds: Sequence[str], fetches: Sequence[str], targets: Sequence[str] = ()) -> PreparedRun:
        """Runs that feed and fetch tensors by their names, and run the operations `targets`; raises RequestError."""
        return PreparedRun(
            self._api,
            self._session,
            [self.operation_output(name) for name in feeds],
            [self.operation_output(name) for name in fetches],
            [self.operation(name) for name in targets],
        )

    def close(self) -> None:
        """Free the session and its graph."""
        for end in (self._api.TF_CloseSession, self._api.TF_DeleteSession):
            with checked(self._api) as status:
                end(self._session, status)
        self._api.TF_DeleteGraph(self._graph)


class PreparedRun:
    """One choice of feeds and fetches of a session."""

    def __init__(
        self, api: CApi, session: int, feeds: Sequence[Output], fetches: Sequence[Output], targets: Sequence[int]
    ) -> None:
        self._api = api
        self._session = session
        self._feeds = (Output * len(feeds))(*feeds)
        self._fetches = (Output * len(fetches))(*fetches)
        self._targets = (ctypes.c_void_p * len(targets))(*targets)
        self._fed = ctypes.c_void_p * len(feeds)
        self._fetched = ctypes.c_void_p * len(fetches)
        self._options = _run_options()
        self._statuses: list[int] = []
        """Idle ones: as many as ran at a time."""

    def run(self, calls: Sequence[Sequence[Array]], padding: int = 0) -> list[Array]:
        """The fetched arrays.

        `calls` holds the fed arrays of one call, or of several whose rows are run together, in order, with `padding`
        copies of the first row behind them. Raises RequestError with TensorFlow's code and message.
        """
        api = self._api
        fed, fetched = self._fed(), self._fetched()
        status = self._status()
        try:
            for i in range(len(fed)):
                fed[i] = new_tensor(api, [arrays[i] for arrays in calls], padding)
            api.TF_SessionRun(
                self._session, self._options,
                self._feeds, fed, len(fed),
                self._fetches, fetched, len(fetched),
                self._targets, len(self._targets),
                None, status,
            )  # fmt: skip
            require_ok(api, status)
            return [to_array(api, tensor) for tensor in fetched if tensor]
        finally:
            for tensor in (*fetched, *fed):
                if tensor:
                    api.TF_DeleteTensor(tensor)
            self._statuses.append(status)

    def _status(self) -> int:
        try:
            return self._statuses.pop()
        except IndexError:
            status: int = self._api.TF_NewStatus()
            return status

    def close(self) -> None:
        """Free what the runs shared; none may be under way."""
        while self._statuses:
            self._api.TF_DeleteStatus(self._statuses.pop())


@cache
def _run_options() -> Any:
    """Of all runs: a RunOptions: the graph runs in the calling thread, which saves a hand-over."""
    from tensorflow.core.protobuf import config_pb2

    return _buffer(config_pb2.RunOptions(inter_op_thread_pool=-1).SerializeToString())


def _buffer(data: bytes) -> Any:
    return c_api().TF_NewBufferFromString(data, len(data))


def load_saved_model(
    path: Path, tags: Sequence[str], config: bytes, *, with_meta_graph: bool = True
) -> tuple[GraphSession, bytes]:
    """A SavedModel's session, with its variables restored and its initialisers run, and its serialized MetaGraphDef.

    config: a serialized ConfigProto. The MetaGraphDef, which may be large, is empty without `with_meta_graph`. Raises
    RequestError with TensorFlow's code and message.
    """
    api = c_api()
    names = (ctypes.c_char_p * len(tags))(*[tag.encode() for tag in tags])
    graph = api.TF_NewGraph()
    meta_graph = api.TF_NewBuffer() if with_meta_graph else None
    options = _session_options(api, config)
    try:
        with checked(api) as status:
            session = api.TF_LoadSessionFromSavedModel(
                options, None, bytes(path), names, len(tags), graph, meta_graph, status
            )
        return GraphSession(api, session, graph), _bytes(meta_graph.contents) if meta_graph else b""
    except BaseException:
        api.TF_DeleteGraph(graph)
        raise
    finally:
        if meta_graph:
            api.TF_DeleteBuffer(meta_graph)
        api.TF_DeleteSessionOptions(options)


def import_graph(definition: bytes, config: bytes = b"") -> GraphSession:
    """A session of a serialized GraphDef; raises RequestError.

    config: a serialized ConfigProto. TensorFlow takes the numbers of its threads from the first session of a process.
    """
    api = c_api()
    graph, buffer = api.TF_NewGraph(), _buffer(definition)
    imported, options = api.TF_NewImportGraphDefOptions(), _session_options(api, config)
    try:
        with checked(api) as status:
            api.TF_GraphImportGraphDef(graph, buffer, imported, status)
        with checked(api) as status:
            session = api.TF_NewSession(graph, options, status)
        return GraphSession(api, session, graph)
    except BaseException:
        api.TF_DeleteGraph(graph)
        raise
    finally:
        api.TF_DeleteBuffer(buffer)
        api.TF_DeleteImportGraphDefOptions(imported)
        api.TF_DeleteSessionOptions(options)


def _session_options(api: CApi, config: bytes) -> Any:
    options = api.TF_NewSessionOptions()
    with checked(api) as status:
        api.TF_SetConfig(options, config, len(config), status)
    return options


def _bytes(buffer: Buffer) -> bytes:
    return ctypes.string_at(buffer.data, buffer.length) if buffer.length else b""
