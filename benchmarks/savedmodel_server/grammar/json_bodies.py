"""REST requests with a JSON body: valid ones for every signature, and the same with a few things wrong.

A document is made of tokens, not of Python values, so that it can hold what no JSON library writes: `-Inf`, `1e400`,
a key twice, bytes that are no UTF-8.
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass, field
from typing import Any

from benchmarks.savedmodel_server.grammar.zoo_signatures import (
    EXAMPLE_SIGNATURES,
    FREE,
    HALF,
    SIGNATURES,
    Input,
    Signature,
)
from tests.serving.savedmodel_server.mutations import damage

Node = Any
"""A token (bytes), a list of nodes, or Members."""

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A PNG of one pixel."""

GOOD: dict[str, list[bytes]] = {
    "float": [
        b"0", b"1.5", b"-2", b"1e2", b"1E-2", b"-0", b"3.4028235e38", b"1e-46", b"0.1", b"16777217", b"NaN",
        b"Infinity", b"-Infinity", b"1435774340", b"1.00000012", b"123456789012345678901234567890",
    ],
    "string": [
        b'""', b'"a"', b'"h\xc3\xa9"', b'"\\u0000\\n"', b'"\\ud83d\\ude00"', b'"NaN"', b'{"b64":"aGVsbG8="}',
        b'{"b64":""}', b'{"b64":"AP+A"}',
    ],
    "bool": [b"true", b"false"],
    "image": [b'{"b64":"' + base64.b64encode(PIXEL) + b'"}'],
}  # fmt: skip
ODD = [
    b"null", b"true", b'"x"', b'"1"', b"{}", b"[]", b"0.5", b"1.0", b"300", b"-129", b"70000", b"2147483648", b"-1",
    b"-2147483649", b"4294967296", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616", b"1e400",
    b"1.8e308", b"1e309", b"-1e999", b"Inf", b"-Inf", b"-NaN", b"nan", b"+1", b"01", b"1.", b".5", b"0x1", b"1e",
    b"--1",
    b'{"b64":"!"}', b'{"b64":"AAA"}', b'{"b64":"AAAA","x":1}', b'{"b64":1}', b'{"B64":"AAAA"}', b'{"b64":"_-8="}',
    b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\x"', b'"a\nb"', b'"\x00"', b"'x'", b"[[1]]", b"[1,[2]]", b"",
    b"[" * 520 + b"]" * 520,
]  # fmt: skip
"""Tokens that are wrong somewhere: of another type, out of range, or no JSON."""

KEYS = [b"instances", b"inputs", b"signature_name", b"examples", b"context", b"x", b"y", b"Instances", b"", b"b64"]
SPACES = [(b"", b""), (b" ", b""), (b" ", b"\n  "), (b"\t", b"\r\n")]


@dataclass
class Members:
    """An object: its pairs in order, so that a key may stand twice."""

    pairs: list[list[Any]] = field(default_factory=list)


def members(**values: Node) -> Members:
    """An object with these keys, in this order."""
    return Members([[name.encode(), value] for name, value in values.items()])


def rest_request(rng: random.Random, valid: bool) -> tuple[str, str, bytes]:
    """(what it is, path, body) of a POST."""
    method = rng.choices(["predict", "classify", "regress"], [8, 1, 1])[0]
    if method == "predict":
        signature = rng.choice(SIGNATURES)
        model, name, document = signature.model, signature.name, predict_document(rng, signature)
    else:
        model, name, document = HALF, EXAMPLE_SIGNATURES[method], examples_document(rng, method)
    spaces = rng.choice(SPACES)
    path = f"/v1/models/{model}{version_part(rng, model)}:{method}"
    what = f"{method} {name}"
    if valid:
        return what, path, written(document, spaces)
    kind = rng.random()
    if kind < 0.65:
        for _ in range(rng.choice([1, 1, 2])):
            document = changed(document, rng)
        return what, path, written(document, spaces)
    if kind < 0.8:
        return f"{method} damaged bytes", path, damage(written(document, spaces), rng)
    if kind < 0.9:
        return f"{method} framed", path, framed(written(document, spaces), rng)
    return "path", odd_path(rng, path, method), written(document, spaces)


def predict_document(rng: random.Random, signature: Signature) -> Members:
    """Rows or columns for a signature; of one input with or without its name."""
    count = rng.choice([1, 1, 2, 3])
    shapes = {name: shape_of(rng, given, count) for name, given in signature.inputs.items()}
    columns = {name: tensor(rng, given, shapes[name]) for name, given in signature.inputs.items()}
    bare = len(columns) == 1 and rng.random() < 0.6
    document = Members()
    if signature.name != "serving_default" or rng.random() < 0.3:
        document.pairs.append([b"signature_name", b'"' + signature.name.encode() + b'"'])
    if all(isinstance(column, list) for column in columns.values()) and rng.random() < 0.5:
        rows = [members(**{name: column[at] for name, column in columns.items()}) for at in range(count)]
        only = next(iter(columns.values()))
        document.pairs.append([b"instances", list(only) if bare else rows])
    else:
        document.pairs.append([b"inputs", next(iter(columns.values())) if bare else members(**columns)])
    if rng.random() < 0.1:
        document.pairs.append([b"comment", members(a=[b"1", b"null"])])
    rng.shuffle(document.pairs)
    return document


def examples_document(rng: random.Random, method: str) -> Members:
    """Rows of tf.Examples with the float x, some of it in the context."""
    count = rng.choice([1, 1, 2, 3])
    rows = [members(x=[scalar(rng, "float32")] if rng.random() < 0.5 else scalar(rng, "float32")) for _ in range(count)]
    if rng.random() < 0.1:
        rows[0].pairs.append([b"z", rng.choice([b'"a"', b"1", b"2.5", b'{"b64":"AAAA"}'])])
    document = members(signature_name=b'"' + EXAMPLE_SIGNATURES[method].encode() + b'"', examples=rows)
    if rng.random() < 0.15:
        document.pairs.append([b"context", members(z=[b'"a"'])])
    return document


def shape_of(rng: random.Random, given: Input, count: int) -> tuple[int, ...]:
    """A shape that the input takes, `count` in its first dimension."""
    if given.shape is None:
        return (count, *(rng.randint(1, 3) for _ in range(rng.randint(0, 4))))
    return tuple(count if size == FREE else size for size in given.shape)


def tensor(rng: random.Random, given: Input, shape: tuple[int, ...]) -> Node:
    """Nested lists of tokens of the input's type."""
    if not shape:
        return scalar(rng, given.dtype)
    return [tensor(rng, given, shape[1:]) for _ in range(shape[0])]


def scalar(rng: random.Random, dtype: str) -> bytes:
    """A token of a type, often an edge of it."""
    if dtype.startswith("float"):
        return rng.choice(GOOD["float"])
    if dtype in GOOD:
        return rng.choice(GOOD[dtype])
    bits = int(dtype.lstrip("uint"))
    low, high = (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return str(rng.choice([low, high, 0, 1, 7, high // 2, rng.randint(low, high)])).encode()


def version_part(rng: random.Random, model: str) -> str:
    """Nothing, or a version or label that the model has."""
    own = ["/versions/1", "/versions/2", "/labels/stable", "/labels/canary"] if model == HALF else ["/versions/1"]
    return rng.choice(["", "", *own])


def odd_path(rng: random.Random, path: str, method: str) -> str:
    """A path that is nearly that of a method."""
    model = path.removeprefix("/v1/models/").partition(":")[0].partition("/")[0]
    return rng.choice([
        f"/v1/models/nope:{method}", f"/v1/models/{model}/versions/7:{method}",
        f"/v1/models/{model}/labels/no:{method}",
        f"/v1/models/{model}/versions/{2**63}:{method}", f"/v1/models/{model}/versions/{2**63 - 1}:{method}",
        f"/v1/models/{model}/versions/-1:{method}", f"/v1/models/{model}/versions/01:{method}", f"{path}/",
        f"{path}?a=b",
        f"{path}#f", f"/v1/models/{model}/versions/:{method}", f"/v1/models/{model}/versions/1/labels/stable:{method}",
        path.replace(method, method.title()), path.replace("/v1/", "/V1/"), path.replace("models", "MODELS"),
        path.replace("/v1/", "/v2/"), path.replace("/v1/", "//v1/"), path.replace("_", "%5F"), path.replace(":", "%3A"),
        f"/v1/models/{model}:{method}:{method}", f"/v1/models/:{method}", f"/v1/models/{model}",
        f"/v1/{model}:{method}",
        f"/v1/models/{model}%20:{method}", f"/v1/models/{model}:train", f"/v1/models/{model}/metadata",
        f"/v1/models/{model}/Versions/1:{method}", f"/v1/models/{model}/labels/STABLE:{method}",
    ])  # fmt: skip


def framed(body: bytes, rng: random.Random) -> bytes:
    """A body with something around it, cut, or in its place."""
    return rng.choice([
        b"\xef\xbb\xbf" + body, body + b" and more", body + body, b" \n" + body, body[: rng.randrange(len(body))], b"",
        b" ", b"[" + body + b"]", b"null", b"1", b'"x"', body.replace(b'"', b"'"), body.replace(b",", b",,"), b"{}",
        body.replace(b"]", b",]"), body.replace(b"{", b"{/**/"), body.replace(b"}", b",}"), b"\x00" + body,
        body.replace(b":", b"="), b"\xff\xfe" + body.decode("latin-1").encode("utf-16-le"), b"NaN" + body,
        body + b"\x00",
    ])  # fmt: skip


def changed(node: Node, rng: random.Random) -> Node:
    """`node` with a change at it, or somewhere below it."""
    parts = node.pairs if isinstance(node, Members) else node
    if isinstance(node, bytes) or not parts or rng.random() < 0.15:
        return replaced(node, rng)
    at = rng.randrange(len(parts))
    kind = rng.random()
    if kind < 0.08:
        del parts[at]
    elif kind < 0.16:
        parts.insert(rng.randrange(len(parts) + 1), parts[at])
    elif isinstance(node, Members) and kind < 0.24:
        parts[at] = [rng.choice(KEYS), parts[at][1]]
    elif isinstance(node, Members) and kind < 0.36:
        parts.insert(rng.randrange(len(parts) + 1), [rng.choice([parts[at][0], *KEYS]), rng.choice(ODD)])
    elif isinstance(node, Members):
        parts[at] = [parts[at][0], changed(parts[at][1], rng)]
    else:
        parts[at] = changed(parts[at], rng)
    return node


def replaced(node: Node, rng: random.Random) -> Node:
    """Another node in the place of one: an odd token, a list around it, its first element, or an object around it."""
    kind = rng.random()
    if kind < 0.2:
        return [node]
    if kind < 0.3 and isinstance(node, list) and node:
        return node[0]
    if kind < 0.35:
        return members(x=node)
    return rng.choice([*ODD, *GOOD["float"], *GOOD["string"]])


def written(node: Node, spaces: tuple[bytes, bytes]) -> bytes:
    """The bytes of a document; `spaces` stand after a colon, and after brackets and commas."""
    after_colon, after_comma = spaces
    if isinstance(node, bytes):
        return node
    if isinstance(node, Members):
        inner = [b'"' + key + b'":' + after_colon + written(value, spaces) for key, value in node.pairs]
        return b"{" + after_comma + (b"," + after_comma).join(inner) + b"}"
    return b"[" + after_comma + (b"," + after_comma).join(written(part, spaces) for part in node) + b"]"
