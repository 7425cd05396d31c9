"""What a foreign SavedModel takes and gives, read from its own signatures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ModelError

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
PREFERRED = "serving_default"


@dataclass(frozen=True)
class ImageSignature:
    """A signature with one input and one output that fits images."""

    name: str
    input: str
    output: str
    height: int | None = None
    """Of a tensor signature, where it is fixed."""
    width: int | None = None


@dataclass(frozen=True)
class ImageSignatures:
    """The signatures that a study can use, and the TensorFlow that wrote them."""

    image: ImageSignature | None
    """One vector of encoded images to one float matrix."""
    tensor: ImageSignature | None
    """float32 NHWC with three channels to one float matrix."""
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


def read_signatures(path: Path) -> ImageSignatures:
    """Find the usable signatures of a SavedModel. Raises ModelError where it is broken or has none."""
    graph = _serving_graph(path)
    images, tensors = {}, {}
    for name, definition in graph.signature_def.items():
        usable = _usable(name, definition)
        if usable and _is_string(definition):
            images[name] = usable
        elif usable:
            tensors[name] = usable
    if not images and not tensors:
        raise ModelError(
            f"{path} has no signature for images (one input, encoded bytes or float32 NHWC with 3 channels, and one "
            f"float output); it has: {', '.join(map(_described, sorted(graph.signature_def.items()))) or 'none'}."
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


def _usable(name: str, definition: Any) -> ImageSignature | None:
    """The signature where it has one image-like input and one float output."""
    if name.startswith("__") or len(definition.inputs) != 1 or len(definition.outputs) != 1:
        return None
    input_name, taken = next(iter(definition.inputs.items()))
    output_name, given = next(iter(definition.outputs.items()))
    if given.dtype != _float() or not (given.tensor_shape.unknown_rank or len(given.tensor_shape.dim) == 2):
        return None
    if _is_string(definition):
        vector = taken.tensor_shape.unknown_rank or len(taken.tensor_shape.dim) == 1
        return ImageSignature(name, input_name, output_name) if vector else None
    sizes = [dimension.size for dimension in taken.tensor_shape.dim]
    if taken.dtype != _float() or len(sizes) != 4 or sizes[3] not in (3, -1):
        return None
    height, width = (size if size > 0 else None for size in sizes[1:3])
    return ImageSignature(name, input_name, output_name, height, width)


def _float() -> int:
    from tensorflow.core.framework import types_pb2

    return int(types_pb2.DT_FLOAT)


def _is_string(definition: Any) -> bool:
    from tensorflow.core.framework import types_pb2

    return all(taken.dtype == types_pb2.DT_STRING for taken in definition.inputs.values())


def _described(item: tuple[str, Any]) -> str:
    name, definition = item
    return f"{name} ({', '.join(definition.inputs) or 'no input'} -> {', '.join(definition.outputs) or 'no output'})"


def _preferred(signatures: dict[str, ImageSignature]) -> ImageSignature | None:
    return signatures.get(PREFERRED) or (signatures[min(signatures)] if signatures else None)
