"""The body of `:predict`, both ways: JSON to tensors in TensorFlow Serving's row and columnar forms, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from serving.savedmodel_server.dtypes import DT_BOOL, DT_STRING, SHORT_NAMES, Array
from serving.savedmodel_server.errors import RequestError, invalid
from serving.savedmodel_server.rest.json_bodies import fast as json_fast
from serving.savedmodel_server.rest.json_bodies import layout
from serving.savedmodel_server.rest.json_bodies import values as json_values
from serving.savedmodel_server.rest.json_bodies.document import read_document
from serving.savedmodel_server.rest.json_bodies.objects import members_of
from serving.savedmodel_server.rest.json_bodies.shown import shown
from serving.savedmodel_server.rest.json_bodies.values import is_base64
from serving.savedmodel_server.versions.signatures import Signature, TensorSpec

_SMALL_BYTES = 512
_REPLY_DTYPES = frozenset((1, 2, 3, 4, 5, 6, DT_STRING, 9, DT_BOOL, 22, 23))


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
    document = read_document(body)
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
    return PredictCall(signature, (array,), parsed.columnar)


def _from_rows(document: dict[str, Any], signature: Signature) -> Mapping[str, Array]:
    rows = document["instances"]
    if type(rows) is not list:
        raise invalid(f"JSON Value: {shown(document)} Expecting 'instances' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {shown(document)} No values in 'instances' array")
    if not isinstance(rows[0], dict) and len(signature.inputs) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map"
        )
    if not signature.inputs:
        raise invalid(f"Failed to get input map for signature: {signature.name}")
    if _has_names(rows[0]):
        return _from_objects(rows, signature)
    for i, row in enumerate(rows):
        if _has_names(row):
            raise invalid(f"Expecting value/list but got object at item {i} of input list")
    spec = next(iter(signature.inputs.values()))
    return {spec.name: _column(rows, spec, "")}


def _has_names(row: Any) -> bool:
    """True for an object of named tensors."""
    return isinstance(row, dict) and not is_base64(row)


def _from_objects(rows: list[Any], signature: Signature) -> Mapping[str, Array]:
    for i, row in enumerate(rows):
        if not _has_names(row):
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
        name: _column(_values_of(name, rows), spec, f" key: {name}")[: len(rows)]
        for name, spec in signature.inputs.items()
    }


def _values_of(name: str, rows: list[dict[str, Any]]) -> list[Any]:
    """A name's values in all rows, in order: of a row that names it twice, both."""
    if all(type(row) is dict for row in rows):
        return [row[name] for row in rows]
    return [value for row in rows for key, value in members_of(row) if key == name]


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
    if _has_names(value):
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
    outputs = [np.asarray(o, object) if isinstance(o, bytes) else o for o in outputs]  # a scalar string is no array
    if not columnar:
        _check_rows(specs, outputs)
    for spec, array in zip(specs, outputs, strict=True):
        if spec.dtype not in _REPLY_DTYPES and array.size:
            name = SHORT_NAMES.get(spec.dtype, str(spec.dtype))
            raise invalid(f"Failed to write JSON value for tensor type: {name}")
    if columnar:
        return layout.columns_json(specs, outputs)
    if len(specs) == 1:
        return layout.rows_json(specs[0], outputs[0])
    return layout.objects_json(specs, outputs)


def _check_rows(specs: Sequence[TensorSpec], outputs: Sequence[Array]) -> None:
    size = -1
    for spec, array in zip(specs, outputs, strict=True):
        if array.ndim == 0:
            raise invalid(f"Tensor name: {spec.name} has no shape information ")
        if size not in (-1, len(array)):
            raise invalid(f"Tensor name: {spec.name} has inconsistent batch size: {len(array)} expecting: {size}")
        size = len(array)
