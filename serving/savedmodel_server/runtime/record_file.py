"""Reads a file of TFRecords with TensorFlow's own reader, which checks the sums of each record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from serving.savedmodel_server.dtypes import DT_INT64, DT_STRING
from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.runtime.graph_session import GraphSession, import_graph


def read_records(path: Path, most: int) -> list[bytes]:
    """At most so many records of a file, from its begin; raises RequestError where it is damaged or unreadable."""
    session = import_graph(_reader_graph().SerializeToString())
    try:
        name = np.empty((), object)
        name[()] = bytes(path)
        session.prepare(["file:0"], [], ["enqueue"]).run([[name]])
        session.prepare([], [], ["close"]).run([])
        records: list[bytes] = _read(session, most).tolist()
        return records
    finally:
        session.close()


def _read(session: GraphSession, most: int) -> Any:
    try:
        return session.prepare(["most:0"], ["read:1"]).run([[np.array(most, np.int64)]])[0]
    except RequestError as error:
        if error.code is Code.OUT_OF_RANGE:  # not one record
            return np.empty(0, object)
        raise


def _reader_graph() -> Any:
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()

    def add(name: str, op: str, *inputs: str, **types: int) -> Any:
        node = graph.node.add(name=name, op=op, input=inputs)
        for attribute, dtype in types.items():
            node.attr[attribute].type = dtype
        return node

    add("file", "Placeholder", dtype=DT_STRING)
    add("most", "Placeholder", dtype=DT_INT64)
    add("reader", "TFRecordReaderV2")
    add("queue", "FIFOQueueV2").attr["component_types"].list.type.append(DT_STRING)
    add("enqueue", "QueueEnqueueV2", "queue", "file").attr["Tcomponents"].list.type.append(DT_STRING)
    add("close", "QueueCloseV2", "queue")
    add("read", "ReaderReadUpToV2", "reader", "queue", "most")
    return graph
