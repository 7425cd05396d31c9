"""TensorProtos of all types and ranks, in every encoding that TensorFlow knows."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

from benchmarks.savedmodel_server.grammar.json_bodies import PIXEL
from benchmarks.savedmodel_server.grammar.zoo_signatures import Input

FIELDS = {
    "float32": (1, "float_val"), "float64": (2, "double_val"), "int32": (3, "int_val"), "uint8": (4, "int_val"),
    "int16": (5, "int_val"), "int8": (6, "int_val"), "string": (7, "string_val"), "complex64": (8, "scomplex_val"),
    "int64": (9, "int64_val"), "bool": (10, "bool_val"), "uint16": (17, "int_val"), "float16": (19, "half_val"),
    "uint32": (22, "uint32_val"), "uint64": (23, "uint64_val"), "complex128": (18, "dcomplex_val"),
}  # fmt: skip
"""DataType, and the field of a TensorProto that holds such values."""
STRINGS = [b"", b"a", b"h\xc3\xa9", b"\x00\xff", b"text"]
FLOATS = [0.0, -0.0, 1.5, -2.0, 1e30, 1e-45, math.nan, math.inf, -math.inf, 0.1]


def fill(tensor: Any, given: Input, shape: tuple[int, ...], rng: random.Random) -> None:
    """A type, a shape and its values, as content, as values, or with the last value standing for those that follow."""
    dtype = "string" if given.dtype == "image" else given.dtype
    tensor.dtype, name = FIELDS[dtype]
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    values = [PIXEL if given.dtype == "image" else scalar(rng, dtype) for _ in range(math.prod(shape))]
    if dtype != "string" and rng.random() < 0.4:
        tensor.tensor_content = np.array(values, dtype).tobytes()
        return
    if len(values) > 1 and rng.random() < 0.2:
        values = values[: rng.randint(1, len(values) - 1)]
    getattr(tensor, name).extend(values)


def scalar(rng: random.Random, dtype: str) -> Any:
    """A value of a numpy type, often an edge of it."""
    if dtype == "string":
        return rng.choice(STRINGS)
    if dtype == "bool":
        return rng.random() < 0.5
    if dtype.startswith("float"):
        return rng.choice(FLOATS)
    limits = np.iinfo(dtype)
    return rng.choice([int(limits.min), int(limits.max), 0, 1, 7, rng.randint(int(limits.min), int(limits.max))])
