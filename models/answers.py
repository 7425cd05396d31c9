"""One reading of answers: the numbers that a server's reply gives for each image, for the import and for loads alike.

`document_of` parses a reply's bytes, and `rows` reads the numbers. A handler may answer an image, or a request of
several images, in any of these forms (two classes, labels `a` and `b`, output `probabilities`):

    [0.2, 0.8]                                         numbers of one image
    [[0.2, 0.8], ...]                                  one list an image, wrapped in further lists of one or not
    {"predictions": ...}, {"outputs": ...}             either of these, also as the one entry of any other name
    {"a": 0.2, "b": 0.8}, [{...}, ...]                 every label with its number, in any order
    {"0": 0.2, "1": 0.8}                               every class by its number
    [{"probabilities": [...], "classes": 1}, ...]      rows of several outputs, of which one has the model's name
    {"probabilities": [[...], ...], "classes": [1]}    columns of several outputs

The load generator imports this module, so it must stay free of tensorflow and torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from models.errors import ModelError
from models.manifest import Manifest

_WRAPPERS: Final = ("predictions", "outputs")
_MOST_LAYERS: Final = 32
"""Lists and objects around the numbers; a reply may be nested a thousand times."""
_EXCERPT: Final = 120
_LEAST_ERROR_CODE: Final = 400


class AnswerError(ModelError):
    """A reply that holds no answer; the message is one sentence that begins with "the reply"."""


@dataclass(frozen=True)
class AnswerNames:
    """What is known of a model's answers: where several numbers are named, these names say which they are."""

    labels: tuple[str, ...] = ()
    """Class names in output order; empty where they are unknown."""
    output: str | None = None
    """Name of the output that is compared; None where the model names none."""

    @classmethod
    def of(cls, manifest: Manifest | None) -> AnswerNames:
        """The names in a model's manifest; nothing is known without one."""
        return cls(tuple(manifest.labels), manifest.output) if manifest else cls()


def document_of(body: bytes) -> Any:
    """What a reply's body says: parsed JSON, or text where it is none. Raises AnswerError for an empty or error reply.

    TorchServe loses a handler's status over gRPC (its clients get OK), so an error is recognised by its content.
    """
    if not body:
        raise AnswerError("the reply is empty.")
    document = _parsed(body)
    if error := _error_in(document):
        raise AnswerError(f"the reply is an error: {error}")
    return document


def rows(document: Any, names: AnswerNames, images: int) -> NDArray[np.float64]:
    """The numbers of a reply to `images` images, float64 of (images, values); what an image gets is flattened.

    `document` is parsed JSON, or an array of numbers. Raises AnswerError where it is in no form that is read.
    """
    values = _values(document, names)
    if isinstance(values, str):
        raise AnswerError(f"the reply is a text and not numbers: {excerpt(values)}")
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise AnswerError("the reply's rows differ in length.") from error
    if array.dtype.kind not in "fiu":
        raise AnswerError(f"the reply's values are not numbers: {excerpt(values)}")
    if array.size == 0:
        raise AnswerError("the reply holds no numbers.")
    if not np.isfinite(array).all():
        raise AnswerError("the reply's numbers are not all finite.")
    return _by_image(array, images)


def excerpt(value: object) -> str:
    """The start of a reply on one line, for a message."""
    text = value[: 2 * _EXCERPT].decode("utf-8", "replace") if isinstance(value, bytes) else _text(value)
    shown = " ".join(text[: 2 * _EXCERPT].split())[:_EXCERPT]
    return repr(shown) if shown else "an empty text"


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body)  # NaN and Infinity, which are no JSON, but which both servers write
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace")


def _error_in(document: Any) -> str:
    """What an error reply says: TorchServe's {"code", "type", "message"}, or {"error": ...}; empty for any other."""
    while isinstance(document, list) and len(document) == 1:
        document = document[0]
    if not isinstance(document, dict):
        return ""
    code, error = document.get("code"), document.get("error")
    if isinstance(code, int) and code >= _LEAST_ERROR_CODE and ("message" in document or "type" in document):
        return _one_line(" ".join(_text(document[key]) for key in ("code", "type", "message") if key in document))
    return _one_line(_text(error)) if error and isinstance(error, (str, dict)) else ""


def _text(value: object) -> str:
    try:
        return str(value)
    except RecursionError:  # nested as deeply as a parser takes it
        return "a deeply nested value"


def _one_line(text: str) -> str:
    return " ".join(text[: 2 * _EXCERPT].split())[:_EXCERPT]


def _values(value: Any, names: AnswerNames, layers: int = 0) -> Any:
    """The part of a document that holds the numbers, as nested lists; names are gone."""
    if layers > _MOST_LAYERS:
        raise AnswerError(f"the reply is nested more than {_MOST_LAYERS} times.")
    if isinstance(value, dict):
        return _values(_chosen(value, names), names, layers + 1)
    if isinstance(value, list) and _ends_in_names(value):
        if len({type(entry) for entry in value}) > 1:
            raise AnswerError("the reply mixes rows with and without names.")
        return [_values(entry, names, layers + 1) for entry in value]
    return value


def _ends_in_names(value: Any) -> bool:
    """Whether the first entry, or the first entry's first, and so on, is an object."""
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, dict)


def _chosen(value: dict[str, Any], names: AnswerNames) -> Any:
    """The entry, or the entries in the labels' order, that hold the numbers."""
    if names.labels and all(_is_number(value.get(label)) for label in names.labels):
        return [value[label] for label in names.labels]
    for name in (names.output, *_WRAPPERS):
        if name in value:
            return value[name]
    if value and all(map(_is_number, value.values())):
        return _by_class_number(value, names)
    if len(value) == 1:
        return next(iter(value.values()))
    has = ", ".join(sorted(value)) or "none"
    wanted = f"but not {names.output!r}" if names.output else "and which one is the answer is not known"
    raise AnswerError(f"the reply has outputs {_one_line(has)}, {wanted}.")


def _by_class_number(value: dict[str, Any], names: AnswerNames) -> list[Any]:
    """The numbers of {"0": ..., "1": ...}, as TorchServe names classes without labels."""
    numbers = [str(index) for index in range(len(value))]
    if value.keys() == set(numbers) and len(names.labels) in (0, len(value)):
        return [value[number] for number in numbers]
    missing = next((label for label in names.labels if label not in value), None)
    why = f"leaves out {missing!r}" if missing else "names labels, and the model's labels are not known"
    raise AnswerError(f"the reply {why}, so its numbers cannot be put in order.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _by_image(array: NDArray[Any], images: int) -> NDArray[np.float64]:
    """(images, values); further lists of one around it are taken off."""
    shape = array.shape
    while array.ndim > 2 and len(array) == 1 != images:
        array = array[0]
    if images == 1 and array.ndim < 2:
        array = array.reshape(1, -1)
    if array.ndim == 0 or len(array) != images:
        asked = f"{images} image{'s' if images != 1 else ''}"
        raise AnswerError(f"the reply has numbers of shape {list(shape)} for {asked}.")
    return array.reshape(images, -1).astype(np.float64, copy=False)
