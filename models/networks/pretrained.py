"""Published weights, from a file in the form of the framework that they come from, with their preprocessing.

Nothing is downloaded. A file of Keras (`.weights.h5`, or the older `.h5` of keras.applications) is read by the network
of keras.applications, a file of torch (`.pth`) by the names that torchvision, or the package that publishes it, gives
its modules; the network's table of layers says which is which.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.errors import ModelError
from models.manifest import InputSpec
from models.networks.efficientnet_lite0.architecture import PIXEL_MEAN, PIXEL_STD
from models.networks.network import CAFFE_MEAN, CAFFE_STD, IMAGENET_MEAN, IMAGENET_STD, Network, WeightedLayer
from models.networks.weights import Array, LayerWeights, Weights, keras_weights, neutral, tensor_names

FileForm = Literal["keras", "torch"]
_SUFFIXES: dict[str, FileForm] = {".h5": "keras", ".pth": "torch", ".pt": "torch"}


@dataclass(frozen=True)
class PixelScale:
    """What the weights were trained on: (x / 255 - mean) / std, red, green, blue."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def spec(self, size: tuple[int, int]) -> InputSpec:
        """The input of a network that takes images of this (height, width)."""
        height, width = size
        return InputSpec(height=height, width=width, mean=list(self.mean), std=list(self.std))


@dataclass(frozen=True)
class Pretrained:
    """Weights from a file."""

    weights: Weights
    """Of all layers, or of all but the dense ones: files "without top"."""
    scale: PixelScale
    classes: int
    """Of its last dense layer; 0 where the file has none."""


PUBLISHED: dict[str, dict[FileForm, PixelScale]] = {
    "resnet50-keras": {"keras": PixelScale(CAFFE_MEAN, CAFFE_STD)},
    "resnet50-torchvision": {"torch": PixelScale(IMAGENET_MEAN, IMAGENET_STD)},
    "vgg16": {"keras": PixelScale(CAFFE_MEAN, CAFFE_STD), "torch": PixelScale(IMAGENET_MEAN, IMAGENET_STD)},
    "efficientnet-lite0": {"torch": PixelScale((PIXEL_MEAN,) * 3, (PIXEL_STD,) * 3)},
}
"""Network to the forms in which its weights are published."""


def read_pretrained(network: Network, path: Path) -> Pretrained:
    """The weights in `path`. Raises ModelError where they are not of this network, or the file is broken."""
    form = weights_form(network, path)
    try:
        weights = _read_keras(network, path) if form == "keras" else _read_torch(network, path)
    except (OSError, ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ModelError(f"{path} does not hold weights of {network.name}: {reason}.") from error
    last = weights.get(network.layers()[-1].keras)
    return Pretrained(weights, PUBLISHED[network.name][form], last["kernel"].shape[1] if last else 0)


def weights_form(network: Network, path: Path) -> FileForm:
    """The form of a file, by its name. Raises ModelError where it is missing, or the network has no such weights."""
    if not (forms := PUBLISHED.get(network.name)):
        raise ModelError(
            f"There are no published weights of {network.name}: choose one of {', '.join(PUBLISHED)}, or leave "
            "--pretrained out."
        )
    if not path.is_file():
        raise ModelError(f"{path} does not exist: name a file of weights.")
    form = _SUFFIXES.get(path.suffix)
    if form not in forms:
        endings = {"keras": "Keras's form (.weights.h5)", "torch": "torch's form (.pth)"}
        raise ModelError(f"{path}: weights of {network.name} are read in {' or in '.join(endings[f] for f in forms)}.")
    return form


def _read_torch(network: Network, path: Path) -> Weights:
    import torch

    state = torch.load(path, weights_only=True, map_location="cpu")
    if not isinstance(state, Mapping):
        raise ValueError(f"it holds a {type(state).__name__}, not a state dict")
    tensors = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    rows = list(network.layers())
    if not any(name.startswith(f"{rows[-1].published or rows[-1].torch}.") for name in tensors):
        rows = [row for row in rows if row.kind != "dense"]
    weights = {row.keras: _torch_layer(row, tensors) for row in rows}
    if tensors:
        raise ValueError(f"it has {min(tensors)}, which is in no layer of this network")
    return weights


def _torch_layer(row: WeightedLayer, tensors: dict[str, Any]) -> LayerWeights:
    """Take the layer's tensors out of `tensors`. A bias may be missing, the network's own shapes are compared later."""
    path = row.published or row.torch
    arrays: dict[str, Array] = {}
    for name, theirs in tensor_names(row.kind).items():
        if (tensor := tensors.pop(f"{path}.{theirs}", None)) is not None:
            arrays[name] = tensor.float().numpy()
        elif name != "bias" or row.kind == "dense":
            raise ValueError(f"{path}.{theirs} is missing")
    return neutral(row, arrays)


def _read_keras(network: Network, path: Path) -> Weights:
    shapes = _dense_shapes(path)
    rows = [row for row in network.layers() if row.kind != "dense" or shapes]
    model = _applications()[network.name](shapes)
    model.load_weights(path)
    first = rows[0]
    weights = dict(keras_weights(rows, model))
    # keras.applications swaps red and blue before the network; here the first kernel does it.
    weights[first.keras] = {**weights[first.keras], "kernel": weights[first.keras]["kernel"][:, :, ::-1]}
    return weights


def _dense_shapes(path: Path) -> list[tuple[int, int]]:
    """(in, out) of the dense kernels in an HDF5 file; none in a file "without top".

    Both of Keras's forms name them so that the order of names is that of the network.
    """
    import h5py

    shapes: list[tuple[int, int]] = []

    def note(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 2:
            shapes.append(item.shape)

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return shapes


def _applications() -> dict[str, Callable[[list[tuple[int, int]]], Any]]:
    """Network to what builds it in keras.applications for dense kernels of these shapes."""
    import keras

    def resnet(shapes: list[tuple[int, int]]) -> Any:
        classes = shapes[-1][1] if shapes else 1000
        return keras.applications.ResNet50(weights=None, include_top=bool(shapes), classes=classes)

    def vgg(shapes: list[tuple[int, int]]) -> Any:
        if not shapes:
            return keras.applications.VGG16(weights=None, include_top=False)
        side = 32 * round(float(np.sqrt(shapes[0][0] / 512)))
        return keras.applications.VGG16(weights=None, input_shape=(side, side, 3), classes=shapes[-1][1])

    return {"resnet50-keras": resnet, "vgg16": vgg}
