"""What answers say, in a form that is equal where two of them mean the same, and where savedmodel-server may differ."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any

from benchmarks.savedmodel_server.asking import Answer, Request

MOST_DEPTH = 512


def difference(request: Request, a: Answer, b: Answer, *, texts: bool = False) -> str:
    """What differs between two answers, "" where nothing does. The values of errors count only with `texts`."""
    if a.status != b.status:
        return f"status {a.status} / {b.status}"
    if a.content_type != b.content_type:
        return f"content type {a.content_type or 'none'} / {b.content_type or 'none'}"
    if a.is_error() and not texts:
        return ""
    if a.body == b.body or value(request, a) == value(request, b):
        return ""
    return "text" if a.is_error() else "value"


def value(request: Request, answer: Answer) -> Any:
    """What the body says; bytes where it is neither JSON nor a message of the method."""
    if request.over == "grpc":
        return answer.body if answer.is_error() else message_value(request.path, answer.body)
    if not answer.content_type.startswith("application/json"):
        return answer.body
    try:
        return json_value(answer.body.decode("utf-8", "surrogateescape"))
    except ValueError:
        return answer.body


def json_value(text: str) -> Any:
    """The value of a document. Numbers are doubles by their bits, but whole ones keep all digits; b64 is decoded.

    A key that stands twice counts twice, in its order; different keys may change places. Raises ValueError.
    """
    return json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_number, object_pairs_hook=_object)


def _number(token: str) -> tuple[str, str]:
    try:
        whole = int(token)
    except ValueError:
        return ("number", float(token).hex())
    return ("number", float(token).hex() if abs(whole) <= 2**53 else str(whole))


def _object(pairs: list[tuple[str, Any]]) -> tuple[str, Any]:
    if len(pairs) == 1 and pairs[0][0] == "b64" and isinstance(pairs[0][1], str):
        try:
            return ("bytes", base64.b64decode(pairs[0][1], validate=True))
        except (binascii.Error, ValueError):
            pass
    return ("object", tuple(sorted(pairs, key=lambda pair: pair[0])))


def message_value(method: str, body: bytes) -> Any:
    """The fields of a reply; tensors as (type, shape, values), floats by their bits, maps without an order."""
    from google.protobuf import message_factory
    from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

    _, service, name = method.split("/")
    for module in (prediction_service_pb2, model_service_pb2):
        for known in module.DESCRIPTOR.services_by_name.values():
            if known.full_name == service and name in known.methods_by_name:
                kind = message_factory.GetMessageClass(known.methods_by_name[name].output_type)
                return _message(kind.FromString(body))
    return body


def _message(message: Any) -> Any:
    name = message.DESCRIPTOR.full_name
    if name == "tensorflow.TensorProto":
        return _tensor(message)
    if name == "google.protobuf.Any":
        from google.protobuf import symbol_database

        inner = symbol_database.Default().GetSymbol(message.TypeName())()
        message.Unpack(inner)
        return (message.TypeName(), _message(inner))
    return tuple((field.name, _field(field, content)) for field, content in message.ListFields())


def _field(field: Any, content: Any) -> Any:
    if field.message_type and field.message_type.GetOptions().map_entry:
        return {key: _single(part) for key, part in content.items()}
    if isinstance(content, str | bytes) or not hasattr(content, "__len__"):
        return _single(content)
    return [_single(part) for part in content]


def _single(content: Any) -> Any:
    if hasattr(content, "DESCRIPTOR"):
        return _message(content)
    return content.hex() if isinstance(content, float) else content


def _tensor(tensor: Any) -> Any:
    """Type, shape, and the values: bytes of an array in which every NaN is the same one, or a list of strings."""
    import numpy as np
    from tensorflow import make_ndarray

    array = make_ndarray(tensor)
    if array.dtype == object:
        values: Any = array.ravel().tolist()
    else:
        with_nan = array.dtype.kind in "fc" and np.isnan(array).any()
        values = np.where(np.isnan(array), array.dtype.type("nan"), array).tobytes() if with_nan else array.tobytes()
    return (tensor.dtype, array.shape, values)


def nested_deeper(body: bytes) -> bool:
    """Whether brackets outside of strings are more than MOST_DEPTH deep."""
    depth = 0
    for bracket in re.findall(rb"[\[{}\]]", re.sub(rb'"(?:[^"\\]|\\.)*"', b"", body, flags=re.DOTALL)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MOST_DEPTH:
            return True
    return False


def head_of(request: Request) -> bytes:
    """The request line and the headers of a raw request."""
    return re.split(rb"\r?\n\r?\n", request.body, maxsplit=1)[0] if request.over == "raw" else b""


STRICTER: dict[str, Callable[[Request], bool]] = {
    "JSON nested over 512 deep": lambda request: request.over == "rest" and nested_deeper(request.body),
    "two Content-Length headers": lambda request: len(re.findall(rb"(?im)^content-length:", head_of(request))) > 1,
    "lines that end with LF alone": lambda request: re.search(rb"(?<!\r)\n", head_of(request)) is not None,
    "HTTP/1.2": lambda request: re.search(rb"\A[^\n]* HTTP/1\.2\r?(\n|\Z)", head_of(request)) is not None,
}
"""Class S: kinds of requests that savedmodel-server refuses on purpose and TensorFlow Serving answers."""


def stricter(request: Request, a: Answer, b: Answer) -> str:
    """The name in STRICTER that explains a difference, or "": one of both must refuse with 400, and not the other."""
    refusals = [re.search(r"(?:^|\s)400(?:\s|$)", answer.status) is not None for answer in (a, b)]
    if refusals[0] == refusals[1]:
        return ""
    return next((name for name, applies in STRICTER.items() if applies(request)), "")
