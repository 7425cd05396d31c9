"""The bodies of `:classify` and `:regress`: JSON examples to tf.Example protos, and results back to JSON."""

from __future__ import annotations

from typing import Any

from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import classification_pb2, regression_pb2

from serving.savedmodel_server.calls.inference import Inference
from serving.savedmodel_server.errors import RequestError, invalid
from serving.savedmodel_server.rest.json_bodies.document import read_document
from serving.savedmodel_server.rest.json_bodies.objects import members_of
from serving.savedmodel_server.rest.json_bodies.shown import shown
from serving.savedmodel_server.rest.json_bodies.texts import float32_texts, quoted
from serving.savedmodel_server.rest.json_bodies.values import decode_base64, is_base64, kind_of
from serving.savedmodel_server.versions.servable import Servable

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def answer_examples(inference: Inference, servable: Servable, verb: str, body: bytes) -> bytes:
    """The reply's JSON to a classify or regress body; raises RequestError."""
    classify = verb == "classify"
    request: Any = classification_pb2.ClassificationRequest() if classify else regression_pb2.RegressionRequest()
    fill_request(request, body)
    if classify:
        return _classes_json(inference.classify(servable, request).result)
    return _values_json(inference.regress(servable, request).result)


def fill_request(request: Any, body: bytes) -> None:
    """Signature name, context and examples from the body; raises RequestError."""
    document = read_document(body)
    name = document.get("signature_name", "")
    if type(name) is not str:
        raise invalid(
            f"JSON Value: {shown(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    request.model_spec.signature_name = _as_unicode(name)
    target = request.input.example_list
    if "context" in document:
        target = request.input.example_list_with_context
        target.context.CopyFrom(make_example(document["context"]))
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {shown(document)} When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if type(examples) is not list:
        raise invalid(f"JSON Value: {shown(document)} Expecting 'examples' value to be an list/array")
    if not examples:
        raise invalid(f"JSON Value: {shown(document)} 'examples' value is an empty array")
    target.examples.extend(make_example(value) for value in examples)


def make_example(value: Any) -> Any:
    """A tf.Example from {"feature": value or list}; raises RequestError."""
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {kind_of(value)}")
    example = example_pb2.Example()
    for name, content in members_of(value):
        feature = feature_pb2.Feature()
        for item in content if type(content) is list else [content]:
            _add(feature, name, item)
        example.features.feature[_as_unicode(name)].CopyFrom(feature)
    return example


def _as_unicode(name: str) -> str:
    """A name that Python's messages can hold: none that a model knows has bytes that are no UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _add(feature: Any, name: str, item: Any) -> None:
    kind, value = _kind_and_value(name, item)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {_KINDS[present]}")
    try:
        getattr(feature, kind).value.append(value)
    except (ValueError, UnicodeEncodeError) as error:
        raise invalid(f"Feature: {name} has a value that tf.Example cannot hold: {error}.") from None


def _kind_and_value(name: str, item: Any) -> tuple[str, Any]:
    if type(item) is bool:
        return "int64_list", int(item)
    if type(item) is int:
        if item >= 1 << 63:
            raise invalid(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
        return "int64_list", item
    if type(item) is float:
        return "float_list", item
    if type(item) is str:
        return "bytes_list", item.encode("utf-8", "surrogateescape")
    if is_base64(item):
        return "bytes_list", decode_base64(item["b64"])
    raise _unexpected(name, item)


def _unexpected(name: str, item: Any) -> RequestError:
    return invalid(f"Feature: {name} has element with unexpected JSON type: {kind_of(item)}")


def _classes_json(result: Any) -> bytes:
    rows = []
    for entry in result.classifications:
        scores = float32_texts([c.score for c in entry.classes])
        pairs = (f"[{quoted(c.label)}, {score}]" for c, score in zip(entry.classes, scores, strict=True))
        rows.append("[" + ", ".join(pairs) + "]")
    return ('{\n    "results": [' + ", ".join(rows) + "\n    ]\n}").encode()


def _values_json(result: Any) -> bytes:
    values = float32_texts([entry.value for entry in result.regressions])
    return ('{\n    "results": [' + ", ".join(values) + "]\n}").encode()
