"""The body of `:predict`, both ways: JSON to tensors in TensorFlow Serving's row and columnar forms, and back."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from serving.savedmodel_server.errors import RequestError, invalid
from serving.savedmodel_server.rest.json_bodies import fast as json_fast
from serving.savedmodel_server.rest.json_bodies import values as json_values
from serving.savedmodel_server.rest.json_bodies.values import is_base64, shown
from serving.savedmodel_server.versions.signatures import (
    DT_BOOL,
    DT_STRING,
    NUMPY,
    SHORT_NAMES,
    Array,
    Signature,
    TensorSpec,
)

_SMALL_BYTES = 512
_REPLY_DTYPES = frozenset((1, 2, 3, 4, 5, 6, DT_STRING, 9, DT_BOOL, 22, 23))
_NUMPY = orjson.OPT_SERIALIZE_NUMPY


class PredictCall(NamedTuple):
    """A parsed request: inputs in the signature's order, and the form that the reply takes."""

    signature: Signature
    arrays: tuple[Array, ...]
    columnar: bool


def parse_predict(body: bytes, find_signature: Callable[[str], Signature], fast: json_fast.FastReader) -> PredictCall:
    """Read a `:predict` body; raises RequestError."""
    if len(body) > _SMALL_BYTES and b'"b64"' not in body:
        call = _parse_fast(body, find_signature, fast)
        if call is not None:
            return call
    document = json_values.read_document(body)
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    signature = find_signature(name)
    if "instances" in document:
        if "inputs" in document:
            raise invalid(
                f"JSON Value: {shown(document)} Not formatted correctly expecting only one of "
                "'inputs' or 'instances' keys to exist "
            )
        arrays = _from_rows(document, signature)
        return PredictCall(signature, signature.arrange(arrays), False)
    if "inputs" in document:
        return PredictCall(signature, signature.arrange(_from_columns(document["inputs"], signature)), True)
    raise invalid("Missing 'inputs' or 'instances' key")


def _parse_fast(
    body: bytes, find_signature: Callable[[str], Signature], reader: json_fast.FastReader
) -> PredictCall | None:
    parsed = reader.parse(body)
    if parsed is None:
        return None
    signature = find_signature(parsed.signature_name)
    if len(signature.inputs) != 1:
        return None
    (spec,) = signature.inputs.values()
    array = json_fast.to_array(parsed, body, spec)
    if array is None:
        return None
    return PredictCall(signature, (spec.accept(array),), parsed.columnar)


def _from_rows(document: dict[str, Any], signature: Signature) -> Mapping[str, Array]:
    rows = document["instances"]
    if type(rows) is not list:
        raise invalid(f"JSON Value: {shown(document)} Expecting 'instances' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {shown(document)} No values in 'instances' array")
    if type(rows[0]) is not dict and len(signature.inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map"
        )
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature.name}")
    if type(rows[0]) is dict and not is_base64(rows[0]):
        return _from_objects(rows, signature)
    for i, row in enumerate(rows):
        if type(row) is dict and not is_base64(row):
            raise invalid(f"Expecting value/list but got object at item {i} of input list")
    spec = next(iter(signature.inputs.values()))
    return {spec.name: _column(rows, spec, "")}


def _from_objects(rows: list[Any], signature: Signature) -> Mapping[str, Array]:
    for i, row in enumerate(rows):
        if type(row) is not dict or is_base64(row):
            raise invalid(f"Expecting object but got list at item {i} of input list")
        for name in row:
            if name not in signature.inputs:
                error = f"INVALID_ARGUMENT: JSON object: does not have named input: {name}"
                raise invalid(f"Failed to process element: {i} key: {name} of 'instances' list. Error: {error}")
        if len(row) != len(signature.inputs):
            raise invalid(
                f"Failed to process element: {i} of 'instances' list. JSON object: {shown(row)} "
                f"keys must be equal to: {','.join(signature.inputs)}"
            )
    return {
        name: _column([row[name] for row in rows], spec, f" key: {name}") for name, spec in signature.inputs.items()
    }


def _column(values: list[Any], spec: TensorSpec, where: str) -> Array:
    """One tensor of all rows' values; an error names the row that caused it."""
    try:
        return json_values.to_array(values, spec)
    except RequestError as error:
        raise _blamed(values, spec, where, error) from None


def _blamed(values: list[Any], spec: TensorSpec, where: str, whole: RequestError) -> RequestError:
    """The error of the first row that is wrong by itself, or unlike the first."""
    first: Array | None = None
    for i, value in enumerate(values):
        try:
            array = json_values.to_array(value, spec)
        except RequestError as error:
            return _at_row(i, where, error)
        first = array if first is None else first
        if array.size != first.size:
            return _at_row(i, where, invalid(f"Expecting tensor size: {first.size} but got: {array.size}"))
        if array.shape != first.shape:
            shapes = f"Expecting shape {_listed(first.shape)} but got: {_listed(array.shape)}"
            return _at_row(i, where, invalid(shapes))
    return whole


def _at_row(i: int, where: str, error: RequestError) -> RequestError:
    return invalid(
        f"Failed to process element: {i}{where} of 'instances' list. Error: {error.code.name}: {error.message}"
    )


def _listed(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _from_columns(value: Any, signature: Signature) -> Mapping[str, Array]:
    if type(value) is dict and not is_base64(value):
        missing = [name for name in signature.inputs if name not in value and name not in signature.defaults]
        if missing:
            raise invalid(f"Missing named input: {missing[0]} in 'inputs' object.")
        return {
            name: json_values.to_array(value[name], spec) for name, spec in signature.inputs.items() if name in value
        }
    if len(signature.inputs) > 1:
        raise invalid(
            "inputs is a plain value/list, but expecting an object as multiple input tensors required "
            "as per tensorinfo_map"
        )
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature.name}")
    (spec,) = signature.inputs.values()
    return {spec.name: json_values.to_array(value, spec)}


def write_predict(signature: Signature, outputs: Sequence[Array], columnar: bool) -> bytes:
    """The reply's JSON for all outputs of the signature, in its order; raises RequestError."""
    specs = list(signature.outputs.values())
    for spec in specs:
        if spec.dtype not in _REPLY_DTYPES:
            name = SHORT_NAMES.get(spec.dtype, str(spec.dtype))
            raise invalid(f"Failed to write JSON value for tensor type: {name}")
    if columnar:
        if len(specs) == 1:
            return b'{"outputs": ' + _dump(_jsonable(specs[0], outputs[0])) + b"}"
        columns = {spec.name: _jsonable(spec, array) for spec, array in zip(specs, outputs, strict=True)}
        return b'{"outputs": ' + _dump(columns) + b"}"
    _check_rows(specs, outputs)
    if len(specs) == 1:
        return b'{"predictions": ' + _dump(_jsonable(specs[0], outputs[0])) + b"}"
    values = [_jsonable(spec, array) for spec, array in zip(specs, outputs, strict=True)]
    names = [spec.name for spec in specs]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
    return b'{"predictions": ' + _dump(rows) + b"}"


def _check_rows(specs: Sequence[TensorSpec], outputs: Sequence[Array]) -> None:
    size = -1
    for spec, array in zip(specs, outputs, strict=True):
        if array.ndim == 0:
            raise invalid(f"Tensor name: {spec.name} has no shape information ")
        if size not in (-1, len(array)):
            raise invalid(f"Tensor name: {spec.name} has inconsistent batch size: {len(array)} expecting: {size}")
        size = len(array)


def _jsonable(spec: TensorSpec, array: Array) -> Any:
    if spec.dtype == DT_STRING:
        encode = _as_base64 if spec.name.endswith("_bytes") else _as_text
        return _map_leaves(np.asarray(array, object).tolist(), encode)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return _map_leaves(array.tolist() if array.dtype == np.float64 else _exact(array), _as_number)
    contiguous = np.asarray(array, NUMPY[spec.dtype], order="C")
    return contiguous if contiguous.ndim else contiguous[()]  # orjson writes a numpy scalar, but no array of rank 0


def _exact(array: Array) -> Any:
    """Nested lists of doubles with the fewest digits that identify the float32 (0.1, not 0.10000000149011612)."""
    return _map_leaves(array.tolist(), lambda value: float(str(np.float32(value))))


def _map_leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    return [_map_leaves(item, change) for item in value] if type(value) is list else change(value)


def _as_text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def _as_base64(value: bytes | str) -> dict[str, str]:
    return {"b64": b64encode(value if isinstance(value, bytes) else value.encode()).decode()}


class _NotFinite(float):
    """NaN or an infinity, which orjson would write as null."""


def _as_number(value: float) -> float:
    return value if np.isfinite(value) else _NotFinite(value)


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=_NUMPY | orjson.OPT_PASSTHROUGH_SUBCLASS)
    except orjson.JSONEncodeError:  # holds NaN or an infinity, which only Python's writer spells as tokens
        return json.dumps(value, default=lambda array: array.tolist()).encode()
