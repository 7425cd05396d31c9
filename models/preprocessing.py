"""From encoded bytes to the network's input, exactly as the exported TensorFlow graph computes it.

This file is also packed into the TorchServe archive, where `handler.py` imports it from beside itself, so it may
import nothing but numpy and Pillow. What TensorFlow's decoder does was measured, and is followed here:

* JPEG (grey, YCbCr and CMYK, any chroma subsampling) equals `decode_jpeg(dct_method="INTEGER_ACCURATE")`;
* PNG drops alpha and transparency, and 16-bit samples keep their upper byte;
* an EXIF orientation is not applied, by either side;
* one channel is Pillow's `convert("L")` of the RGB picture, which is what handlers do; our own export has three;
* other formats (GIF, BMP, WebP, TIFF, ...) are refused by both sides, because the two libraries decode
  some of them differently (palettes, transparent pixels, animations).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG"
MAX_PIXELS = 1 << 26
"""Larger images are refused before they are decoded: a small file can unfold to gigabytes."""

REFUSED = "the bytes are neither a JPEG nor a PNG image"


class ImageError(ValueError):
    """The bytes are not an image that both frameworks decode alike; the message is one sentence."""


class Spec(Protocol):
    """What of `models.manifest.InputSpec` is needed here."""

    @property
    def height(self) -> int:
        """Pixels."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def channels(self) -> int:
        """3: red, green, blue; 1: grey."""

    @property
    def dtype(self) -> str:
        """float32: normalised; uint8: the pixels as they are."""

    @property
    def mean(self) -> Sequence[float]:
        """Per channel, of pixel values scaled to 0..1."""

    @property
    def std(self) -> Sequence[float]:
        """Per channel, of pixel values scaled to 0..1."""


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG to uint8 RGB of (height, width, 3).

    Raises ImageError where the bytes are something else, broken, or unfold to more than MAX_PIXELS.
    """
    if not data.startswith((JPEG_MAGIC, PNG_MAGIC)):
        raise ImageError(f"{REFUSED}.")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"the image has {image.width}x{image.height} pixels, over {MAX_PIXELS} in all.")
            return _to_rgb(image)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ... on broken files
        raise ImageError(f"the image cannot be decoded: {error}.") from error


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip it, TensorFlow keeps the upper byte
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    image.info.pop("transparency", None)  # it is dropped in any case, and Pillow would warn of that every time
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def resize_bilinear(image: NDArray[Any], height: int, width: int) -> NDArray[np.float32]:
    """Resize (h, w, c) to float32 (height, width, c): half-pixel centres, float32 arithmetic, no antialiasing.

    The same operations in the same order as TensorFlow's ResizeBilinear kernel (half_pixel_centers=True).
    """
    pixels = np.ascontiguousarray(image, dtype=np.float32)
    if pixels.shape[:2] == (height, width):
        return pixels
    top, bottom, y = _neighbours(pixels.shape[0], height)
    left, right, x = _neighbours(pixels.shape[1], width)
    x, y = x[None, :, None], y[:, None, None]
    upper, lower = pixels[top], pixels[bottom]
    upper = upper[:, left] + (upper[:, right] - upper[:, left]) * x
    lower = lower[:, left] + (lower[:, right] - lower[:, left]) * x
    resized: NDArray[np.float32] = upper + (lower - upper) * y
    return resized


def _neighbours(size: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Lower index, upper index and weight of the upper one, for each output position of one axis."""
    scale = np.float32(size) / np.float32(target)
    position = (np.arange(target, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    floor = np.floor(position)
    lower = np.maximum(floor.astype(np.intp), 0)
    upper = np.minimum(np.ceil(position).astype(np.intp), size - 1)
    return lower, upper, (position - floor).astype(np.float32)


def scale_and_shift(spec: Spec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Per-channel (scale, shift) so that pixel * scale + shift == (pixel / 255 - mean) / std, pixels 0..255."""
    mean, std = np.asarray(spec.mean, dtype=np.float64), np.asarray(spec.std, dtype=np.float64)
    return (1.0 / (255.0 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def normalise(pixels: NDArray[Any], spec: Spec) -> NDArray[np.float32]:
    """Normalise pixels 0..255 of (..., c) to float32 (x / 255 - mean) / std."""
    scale, shift = scale_and_shift(spec)
    normalised: NDArray[np.float32] = np.asarray(pixels, dtype=np.float32) * scale + shift
    return normalised


def grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 RGB of (height, width, 3) to luma of (height, width, 1), by ITU-R 601-2 as Pillow rounds it."""
    return np.asarray(Image.fromarray(image).convert("L"))[:, :, None]


def preprocess(data: bytes, spec: Spec) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Encoded bytes to the network's input (height, width, channels): normalised float32, or uint8 pixels of 0..255.

    Raises ImageError.
    """
    image = decode_image(data)
    pixels = resize_bilinear(grey(image) if spec.channels == 1 else image, spec.height, spec.width)
    if spec.dtype == "uint8":
        return np.rint(pixels).astype(np.uint8)
    return normalise(pixels, spec)
