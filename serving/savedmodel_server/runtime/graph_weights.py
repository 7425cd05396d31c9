"""The MetaGraphDef in a SavedModel's file, and where its weights are, which decides whether operations are fused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

GRAPH_FILE = "saved_model.pb"


def read_meta_graph(path: Path, tags: Sequence[str]) -> Any | None:
    """The MetaGraphDef with exactly these tags; None where this file has none, of which TensorFlow says why."""
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString((path / GRAPH_FILE).read_bytes())
    except (OSError, DecodeError):
        return None
    return next((graph for graph in saved.meta_graphs if set(graph.meta_info_def.tags) == set(tags)), None)


def is_mostly_dense(meta_graph: Any) -> bool:
    """Whether more than half of the weights of a MetaGraphDef are of dense layers: matrices.

    TensorFlow fuses MatMul, bias and activation into one operation of oneDNN, which for a small network costs more than
    the plain product: 8 rows of the project's `cnn` take 3.8 ms with it and 2.3 ms without. Convolutions gain from
    fusing (2 to 9 % on ResNet50, GoogLeNet and EfficientNet-Lite0).
    """
    sizes = [_size_and_rank(node) for node in meta_graph.graph_def.node]
    return 2 * sum(size for size, rank in sizes if rank == 2) > sum(size for size, _ in sizes)


def _size_and_rank(node: Any) -> tuple[int, int]:
    """Of the variable or constant that a node holds: its number of values, 0 for any other node, and its rank."""
    if node.op == "VarHandleOp":
        shape = node.attr["shape"].shape
    elif node.op == "Const":
        shape = node.attr["value"].tensor.tensor_shape
    else:
        return 0, 0
    return math.prod(dim.size for dim in shape.dim), len(shape.dim)
