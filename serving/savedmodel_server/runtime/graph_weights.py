"""Where the weights of a SavedModel are, which decides whether TensorFlow shall fuse its operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

GRAPH_FILE = "saved_model.pb"


def is_mostly_dense(path: Path, tags: Sequence[str]) -> bool:
    """Whether more than half of the weights of the graph with these tags are of dense layers: matrices.

    TensorFlow fuses MatMul, bias and activation into an operation of oneDNN that lays the weights out anew in every run
    where they are variables. For a small network that costs more than the product itself (a batch of 8 of the
    project's `cnn` takes 3.9 ms with it and 2.9 ms without). Convolutions gain from it (3 to 9 % on ResNet50,
    GoogLeNet and EfficientNet-Lite0). A graph that cannot be read here is not: its load says what is wrong.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString((path / GRAPH_FILE).read_bytes())
    except (OSError, DecodeError):
        return False
    matrices = others = 0
    for meta_graph in saved.meta_graphs:
        if set(meta_graph.meta_info_def.tags) != set(tags):
            continue
        for node in meta_graph.graph_def.node:
            size, rank = _size_and_rank(node)
            if rank == 2:
                matrices += size
            else:
                others += size
    return matrices > others


def _size_and_rank(node: Any) -> tuple[int, int]:
    """Of the variable or constant that a node holds: its number of values, 0 for any other node, and its rank."""
    if node.op == "VarHandleOp":
        shape = node.attr["shape"].shape
    elif node.op == "Const":
        shape = node.attr["value"].tensor.tensor_shape
    else:
        return 0, 0
    return math.prod(dim.size for dim in shape.dim), len(shape.dim)
