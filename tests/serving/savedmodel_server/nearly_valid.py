"""Requests that every parser reads and that mean something odd: bodies and messages damaged in their structure.

mutations.py damages bytes, so that most of its inputs end in a parser. Same rng, same bytes.
"""

from __future__ import annotations

import json
import math
import random
from copy import deepcopy
from typing import Any

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 255, 256, 2**31, 2**63, 2**64, -(2**63) - 1, 1.5, 1e308, 1e-320, math.nan, -math.inf,
    "", "x", "\ud800", "NaN", [], {}, [[]], [1, [2]], [[1], [1, 2]], [None], {"b64": "AAAA"}, {"b64": 1}, {"b64": "!"},
    {"b64": "AAAA", "x": 1}, {"x": []}, {"a": [1, 2]}, [True, 1, "x"],
]  # fmt: skip
SIGNATURES = {
    "half_plus_two": ["", "serving_default", "regress_x_to_y", "classify_x_to_y", "nope"],
    "zoo": [
        "", "two_in_two_out", "image_like", "any_rank", "scalar", "to_bytes", "not_finite", "uneven", "half", "raises",
        "image", "echo_float32", "echo_int8", "echo_uint8", "echo_int64", "echo_uint64", "echo_bool", "echo_string",
    ],
}  # fmt: skip
SIZES = [0, 0, 1, 1, 1, 2, 2, 3, 4, 1000, -1, 2**31, 2**33, 2**62, -(2**63)]
FIELDS = {
    "float_val": 1.5, "double_val": -2.5, "int_val": 300, "int64_val": -(2**63), "bool_val": True, "half_val": 15360,
    "uint32_val": 7, "uint64_val": 2**64 - 1, "string_val": b"\xff", "scomplex_val": 1.0, "dcomplex_val": 1.0,
}  # fmt: skip


def json_body(seed_body: bytes, rng: random.Random) -> bytes:
    """A document with one to three nodes replaced, doubled, wrapped or lost."""
    document = json.loads(seed_body)
    for _ in range(rng.randint(1, 3)):
        document = _changed(document, rng)
    return json.dumps(document).encode()


def _changed(node: Any, rng: random.Random) -> Any:
    """`node` with a change at it, or somewhere below it."""
    if not node or not isinstance(node, dict | list) or rng.random() < 0.2:
        return [node] if rng.random() < 0.2 else deepcopy(rng.choice(VALUES))
    key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    kind = rng.random()
    if kind < 0.1:
        del node[key]
    elif kind < 0.2 and isinstance(node, list):
        node.append(deepcopy(node[key]))
    elif kind < 0.2:
        node[rng.choice(["instances", "inputs", "signature_name", "examples", "context", "x", "extra"])] = deepcopy(
            node[key]
        )
    else:
        node[key] = _changed(node[key], rng)
    return node


def predict_message(rng: random.Random) -> bytes:
    """A PredictRequest whose model, signature, version, inputs and filter may each be odd."""
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = rng.choice([*SIGNATURES, *SIGNATURES, "", "nope"])
    names = SIGNATURES.get(request.model_spec.name, ["nope"])
    request.model_spec.signature_name = rng.choice(names)
    if rng.random() < 0.2:
        request.model_spec.version.value = rng.choice([0, 1, 2, 3, -1, 2**63 - 1])
    elif rng.random() < 0.1:
        request.model_spec.version_label = rng.choice(["stable", "nope", "\u00e9"])
    for name in rng.choice([["x"], ["x"], ["x"], ["a", "b"], [], ["x", "y"], ["image_bytes"], [""]]):
        _fill(request.inputs[name], rng)
    if rng.random() < 0.2:
        request.output_filter.extend(rng.choice([["y"], ["y", "y"], ["nope"], [""]]))
    message: bytes = request.SerializeToString()
    return message


def _fill(tensor: Any, rng: random.Random) -> None:
    """A type, a shape and values that seldom agree."""
    kinds = {1: "float_val", 2: "double_val", 3: "int_val", 9: "int64_val", 7: "string_val", 10: "bool_val"}
    tensor.dtype = rng.choice([*kinds, *kinds, rng.randint(-1, 130)])
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        tensor.tensor_shape.dim.add(size=rng.choice(SIZES))
    tensor.tensor_shape.unknown_rank = rng.random() < 0.03
    name = kinds.get(tensor.dtype, "") if rng.random() < 0.8 else ""
    name = name or rng.choice(list(FIELDS))
    getattr(tensor, name).extend([FIELDS[name]] * rng.choice([0, 1, 1, 2, 3, 4]))
    if rng.random() < 0.15:
        tensor.tensor_content = rng.randbytes(rng.choice([1, 4, 8, 16]))
