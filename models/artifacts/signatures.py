"""What a foreign SavedModel takes and gives, read from its own signatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.errors import ModelError

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
PREFERRED = "serving_default"
_PIXELS: dict[str, Literal["float32", "uint8"]] = {"float32": "float32", "uint8": "uint8"}
_CHANNELS: dict[int, Literal[0, 1, 3]] = {1: 1, 3: 3, -1: 0}
"""What a signature may state, -1 for nothing, and how many channels that is, 0 where it is open."""


@dataclass(frozen=True)
class ImageSignature:
    """A signature with one input that takes images, and the output that is compared."""

    name: str
    input: str
    output: str
    height: int | None = None
    """Of a tensor signature, where it is fixed."""
    width: int | None = None
    channels: Literal[1, 3] | None = None
    """Of a tensor signature, where it is fixed."""
    dtype: Literal["float32", "uint8"] = "float32"
    """Of a tensor signature."""


@dataclass(frozen=True)
class ImageSignatures:
    """The signatures that a study can use, and the TensorFlow that wrote them."""

    image: ImageSignature | None
    """One vector of encoded images to numbers of each image."""
    tensor: ImageSignature | None
    """float32 or uint8 NHWC with one or three channels to numbers of each image."""
    tensorflow: str


def version_folder(path: Path) -> Path:
    """The SavedModel itself: `path`, or its newest numbered version. Raises ModelError where there is none."""
    if not path.is_dir():
        raise ModelError(f"{path} is not a directory: name a SavedModel's folder, or the folder of its versions.")
    if _is_savedmodel(path):
        return path
    versions = [entry for entry in path.iterdir() if entry.name.isdecimal() and _is_savedmodel(entry)]
    if not versions:
        raise ModelError(f"{path} holds no saved_model.pb, nor does a numbered folder in it: name a SavedModel.")
    return max(versions, key=lambda entry: int(entry.name))


def _is_savedmodel(path: Path) -> bool:
    return any((path / name).is_file() for name in SAVED_MODEL_FILES)


def read_signatures(path: Path, output: str | None = None) -> ImageSignatures:
    """Find the usable signatures of a SavedModel. Raises ModelError where it is broken or has none.

    `output` names the output that is compared; without it, it is the only one of numbers, or of rows of floats.
    """
    graph = _serving_graph(path)
    images, tensors = {}, {}
    for name, definition in _of_a_person(graph.signature_def):
        usable = _usable(name, definition, output)
        if usable and _is_string(definition):
            images[name] = usable
        elif usable:
            tensors[name] = usable
    if not images and not tensors:
        needed = (
            f"the output {output!r}, of numbers" if output else "one output of numbers (--output names one of several)"
        )
        raise ModelError(
            f"{path} has no signature for images (one input, encoded bytes or NHWC of float32 or uint8 with 1 or "
            f"3 channels, and "
            f"{needed}); it has: {', '.join(map(_described, sorted(_of_a_person(graph.signature_def)))) or 'none'}."
        )
    return ImageSignatures(_preferred(images), _preferred(tensors), graph.meta_info_def.tensorflow_version)


def _serving_graph(path: Path) -> Any:
    from google.protobuf.message import DecodeError
    from google.protobuf.text_format import ParseError
    from tensorflow.python.saved_model import loader_impl

    try:
        saved = loader_impl.parse_saved_model(str(path))
    except (OSError, DecodeError, ParseError) as error:
        raise ModelError(f"{path} is not a readable SavedModel: {' '.join(str(error).split())[:200]}") from error
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return graph
    raise ModelError(f"{path} has no graph tagged `serve`: save it for serving.")


def _usable(name: str, definition: Any, wanted: str | None) -> ImageSignature | None:
    """The signature where it has one image-like input and an output of numbers."""
    if len(definition.inputs) != 1:
        return None
    input_name, taken = next(iter(definition.inputs.items()))
    output_name = _output(definition.outputs, wanted)
    if output_name is None:
        return None
    if _is_string(definition):
        vector = taken.tensor_shape.unknown_rank or len(taken.tensor_shape.dim) == 1
        return ImageSignature(name, input_name, output_name) if vector else None
    sizes = [dimension.size for dimension in taken.tensor_shape.dim]
    dtype, channels = _PIXELS.get(_dtype(taken).name), _CHANNELS.get(sizes[-1] if sizes else 0)
    if dtype is None or len(sizes) != 4 or channels is None:
        return None
    height, width = (size if size > 0 else None for size in sizes[1:3])
    return ImageSignature(name, input_name, output_name, height, width, channels or None, dtype)


def _output(outputs: Mapping[str, Any], wanted: str | None) -> str | None:
    """The output that is compared: the wanted one, the only one of numbers, or the only one of rows of floats.

    None where no output of numbers has an axis of images, or where several would do.
    """
    numbers = [name for name, given in outputs.items() if _has_numbers(given) and wanted in (None, name)]
    rows = [name for name in numbers if _dtype(outputs[name]).is_floating and _rank(outputs[name]) in (None, 2)]
    for candidates in (numbers, rows):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _has_numbers(given: Any) -> bool:
    dtype = _dtype(given)
    return (dtype.is_floating or dtype.is_integer) and not dtype.is_quantized and _rank(given) != 0


def _rank(given: Any) -> int | None:
    """Number of axes; None where the signature does not say."""
    return None if given.tensor_shape.unknown_rank else len(given.tensor_shape.dim)


def _dtype(given: Any) -> Any:
    """tf.DType of an input or output."""
    from tensorflow import dtypes

    return dtypes.as_dtype(given.dtype)


def _is_string(definition: Any) -> bool:
    from tensorflow.core.framework import types_pb2

    return all(taken.dtype == types_pb2.DT_STRING for taken in definition.inputs.values())


def _of_a_person(signatures: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """All but those that TensorFlow adds itself."""
    return [(name, definition) for name, definition in signatures.items() if not name.startswith("__")]


def _described(item: tuple[str, Any]) -> str:
    name, definition = item
    return f"{name} ({', '.join(definition.inputs) or 'no input'} -> {', '.join(definition.outputs) or 'no output'})"


def _preferred(signatures: dict[str, ImageSignature]) -> ImageSignature | None:
    return signatures.get(PREFERRED) or (signatures[min(signatures)] if signatures else None)
